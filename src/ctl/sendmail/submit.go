package sendmail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"

	"opensmtpd/src/ctl/invoke"
)

// envelope is how a message is to be sent.
type envelope struct {
	from   string
	rcpts  []string
	notify []smtp.DSNNotify
	ret    smtp.DSNReturn
	envid  string
}

// wire is the connection to the daemon. It remembers the name in the greeting,
// by which addresses are completed, and shows the dialogue to those who want to
// see it.
type wire struct {
	net.Conn
	show io.Writer // nil: nobody wants

	mu       sync.Mutex
	greeting []byte // the first line, as far as it was read
	silent   bool   // while the message goes out
}

// maxGreeting bounds what is kept of the first line (RFC 5321 section 4.5.3.1.5).
const maxGreeting = 512

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.greeting) < maxGreeting && bytes.IndexByte(w.greeting, '\n') < 0 {
		w.greeting = append(w.greeting, p[:n]...)
	}
	w.print("<<< ", p[:n])
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	if !w.silent {
		w.print(">>> ", p)
	}
	w.mu.Unlock()
	return w.Conn.Write(p)
}

func (w *wire) print(prefix string, p []byte) {
	if w.show == nil {
		return
	}
	for line := range strings.Lines(string(p)) {
		fmt.Fprintf(w.show, "%s%s\n", prefix, strings.TrimRight(line, "\r\n"))
	}
}

func (w *wire) quiet(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = silent
}

// serverName returns the name in the greeting, "localhost" when it has none.
func (w *wire) serverName() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	words := strings.Fields(string(w.greeting))
	if len(words) < 2 || strings.ContainsAny(words[1], "<>@\"") {
		return "localhost"
	}
	return words[1]
}

// dialogue speaks SMTP on w. The message is written by body once the recipients
// are accepted. host tells the daemon's name, known after the greeting.
func dialogue(w *wire, make func(host string) (envelope, identity), m *message) error {
	c := smtp.NewClient(w)
	defer c.Close()
	if err := c.Hello("localhost"); err != nil {
		return err
	}
	env, id := make(w.serverName())
	opts := smtp.MailOptions{Return: env.ret, EnvelopeID: env.envid}
	if offered, _ := c.Extension("SMTPUTF8"); offered {
		opts.UTF8 = env.utf8()
	}
	if err := c.Mail(env.from, &opts); err != nil {
		return err
	}
	for _, to := range env.rcpts {
		if err := c.Rcpt(to, &smtp.RcptOptions{Notify: env.notify}); err != nil {
			return &refusedRcpt{to, err}
		}
	}
	data, err := c.Data()
	if err != nil {
		return err
	}
	w.quiet(true)
	if err := m.writeTo(data, id); err != nil {
		return err
	}
	err = data.Close()
	w.quiet(false)
	if err != nil {
		return err
	}
	// The message is accepted; what the daemon says to QUIT changes nothing.
	_ = c.Quit()
	return nil
}

// refusedRcpt is the refusal of one recipient.
type refusedRcpt struct {
	to  string
	err error
}

func (e *refusedRcpt) Error() string { return fmt.Sprintf("<%s>: %v", e.to, e.err) }
func (e *refusedRcpt) Unwrap() error { return e.err }

// status is the exit status that a failed dialogue means to sendmail's callers:
// whether to try again.
func status(err error) int {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) || reply.Code < 500 {
		return invoke.TempFail
	}
	var rcpt *refusedRcpt
	if errors.As(err, &rcpt) {
		return invoke.NoUser
	}
	return invoke.Unavailable
}

// explain is the error for the user: the reply as the daemon sent it.
func explain(err error) string {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		return err.Error()
	}
	text := fmt.Sprintf("command failed: %d ", reply.Code)
	if reply.EnhancedCode[0] > 0 {
		text += fmt.Sprintf("%d.%d.%d ", reply.EnhancedCode[0], reply.EnhancedCode[1], reply.EnhancedCode[2])
	}
	text += reply.Message
	var rcpt *refusedRcpt
	if errors.As(err, &rcpt) {
		if who := "<" + rcpt.to + ">"; !strings.Contains(text, who) {
			text += " " + who
		}
	}
	return text
}

// utf8 tells whether an address is beyond ASCII.
func (e *envelope) utf8() bool {
	all := e.from + strings.Join(e.rcpts, "")
	return strings.IndexFunc(all, func(r rune) bool { return r >= 0x80 }) >= 0
}
