package sendmail

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/paths"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon is a control socket that hands out SMTP sessions.
type daemon struct {
	dir    string
	refuse atomic.Pointer[ctl.Refused] // instead of a session
	server *smtp.Server

	mu   sync.Mutex
	log  strings.Builder // MAIL and RCPT as they came
	data string
	fail map[string]*smtp.SMTPError // by "MAIL", "RCPT address", "DATA"
}

func (d *daemon) NewSession(*smtp.Conn) (smtp.Session, error) { return d, nil }
func (d *daemon) Reset()                                      {}
func (d *daemon) Logout() error                               { return nil }

func (d *daemon) Mail(from string, o *smtp.MailOptions) error {
	return d.note("MAIL", fmt.Sprintf("MAIL <%s> %s %s", from, o.Return, o.EnvelopeID))
}

func (d *daemon) Rcpt(to string, o *smtp.RcptOptions) error {
	return d.note("RCPT "+to, fmt.Sprintf("RCPT <%s> %v", to, o.Notify))
}

func (d *daemon) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.data = string(b)
	d.mu.Unlock()
	return d.note("DATA", "DATA")
}

func (d *daemon) note(what, line string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintln(&d.log, strings.TrimSpace(line))
	if e := d.fail[what]; e != nil {
		return e
	}
	return nil
}

func (d *daemon) result() (log, data string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String(), d.data
}

// conns is a listener of the sessions that were handed out.
type conns chan net.Conn

func (c conns) Accept() (net.Conn, error) {
	if conn, ok := <-c; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (c conns) Close() error   { return nil }
func (c conns) Addr() net.Addr { return &net.UnixAddr{Name: "local", Net: "unix"} }

func start(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sm")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir, fail: make(map[string]*smtp.SMTPError)}
	d.server = smtp.NewServer(d)
	d.server.Domain = "mail.test"
	d.server.EnableDSN = true
	d.server.MaxLineLength = 1 << 20
	sessions := make(conns, 16)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "smtpd.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		// It ends with the listener.
		_ = d.server.Serve(sessions)
	})
	wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if err := d.control(c, sessions); err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(sessions)
		d.server.Close()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return d
}

// control serves one connection to the control socket.
func (d *daemon) control(c *net.UnixConn, sessions conns) error {
	s := ctl.NewServerConn(c, time.Now, time.Minute)
	if err := s.Hello("x"); err != nil {
		return err
	}
	for {
		q, err := s.Request()
		if err != nil {
			return err
		}
		if r := d.refuse.Load(); r != nil || q.Verb != ctl.VerbSession {
			if err := s.Fail(r); err != nil {
				return err
			}
			continue
		}
		l, err := net.Listen("unix", filepath.Join(d.dir, "pair"))
		if err != nil {
			return err
		}
		theirs, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			return err
		}
		ours, err := l.Accept()
		if err != nil {
			return err
		}
		l.Close()
		sessions <- ours
		f, err := theirs.(*net.UnixConn).File()
		theirs.Close()
		if err != nil {
			return err
		}
		err = s.Session(f)
		f.Close()
		if err != nil {
			return err
		}
	}
}

// run calls sendmail as the user me.
func run(t *testing.T, dir, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	call := &invoke.Call{
		Name: "sendmail", Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
		Getenv: func(name string) string {
			if name == paths.StateEnv {
				return dir
			}
			return "untrusted"
		},
		Clock: clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
	status = Run(t.Context(), call, User{Login: "me", Gecos: "Me & Co,Room 7", Home: dir})
	return status, out.String(), errs.String()
}

func TestSubmit(t *testing.T) {
	const date = "Date: Fri, 2 Jan 2026 03:04:05 +0000 (UTC)\r\n"
	for _, tc := range []struct {
		name, args, in string
		log, data      string
	}{
		{
			"as cron calls it", "-FCronDaemon -i -odi -oem -oi -t -f root",
			"From: root (Cron Daemon)\nTo: joe\nSubject: Cron\n\n.\noutput\n",
			"MAIL <root@mail.test>\nRCPT <joe@mail.test> []\n",
			date + "From: root (Cron Daemon)\r\nTo: joe\r\nSubject: Cron\r\n\r\n.\r\noutput\r\n",
		},
		{
			"as mutt calls it", "-oem -oi -f a@b.test -- x@y.test z",
			"From: A <a@b.test>\nTo: x@y.test\nDate: today\n\nhi\n",
			"MAIL <a@b.test>\nRCPT <x@y.test> []\nRCPT <z@mail.test> []\n",
			"From: A <a@b.test>\r\nTo: x@y.test\r\nDate: today\r\n\r\nhi\r\n",
		},
		{
			"as PHP calls it", "-t -i",
			"To: x@y.test\r\nSubject: s\r\nX-PHP-Originating-Script: 0:x.php\r\nCc: C <c@y.test>,\r\n d@y.test\r\nBcc: e@y.test\r\n\r\nbody\r\n",
			"MAIL <me@mail.test>\nRCPT <x@y.test> []\nRCPT <c@y.test> []\nRCPT <d@y.test> []\nRCPT <e@y.test> []\n",
			"From: Me Me Co <me@mail.test>\r\n" + date + "To: x@y.test\r\nSubject: s\r\nX-PHP-Originating-Script: 0:x.php\r\nCc: C <c@y.test>,\r\n d@y.test\r\n\r\nbody\r\n",
		},
		{
			"text alone", "joe", "hello\n",
			"MAIL <me@mail.test>\nRCPT <joe@mail.test> []\n",
			"From: Me Me Co <me@mail.test>\r\n" + date + "\r\nhello\r\n",
		},
		{
			"sender from the header", "joe", "From: Him <him@host.test>\n\nx\n",
			"MAIL <him@host.test>\nRCPT <joe@mail.test> []\n",
			date + "From: Him <him@host.test>\r\n\r\nx\r\n",
		},
		{
			"a header that nobody can read", "joe", "From: <<<\n\nx\n",
			"MAIL <me@mail.test>\nRCPT <joe@mail.test> []\n",
			date + "From: <<<\r\n\r\nx\r\n",
		},
		{
			"null sender", "-f <> joe", "x\n",
			"MAIL <>\nRCPT <joe@mail.test> []\n",
			"From: <me@mail.test>\r\n" + date + "\r\nx\r\n",
		},
		{
			"name given", "-F Boss,The -r <boss@x.test> joe", "x\n",
			"MAIL <boss@x.test>\nRCPT <joe@mail.test> []\n",
			"From: \"Boss,The\" <boss@x.test>\r\n" + date + "\r\nx\r\n",
		},
		{
			"somebody twice", "-G -d0 -t joe", "To: Joe <joe@mail.test>, ann@mail.test\nCc: ann\nDate: x\nFrom: y\n\n",
			"MAIL <y@mail.test>\nRCPT <joe@mail.test> []\nRCPT <ann@mail.test> []\n",
			"To: Joe <joe@mail.test>, ann@mail.test\r\nCc: ann\r\nDate: x\r\nFrom: y\r\n\r\n",
		},
		{
			"DSN", "-N success,delay -R hdrs -V id7 a,b C<c@d>", "Date: x\nFrom: y\n\n",
			"MAIL <y@mail.test> HDRS id7\nRCPT <a@mail.test> [SUCCESS DELAY]\nRCPT <b@mail.test> [SUCCESS DELAY]\nRCPT <c@d> [SUCCESS DELAY]\n",
			"Date: x\r\nFrom: y\r\n\r\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := start(t)
			status, out, errs := run(t, d.dir, tc.in, strings.Fields(tc.args)...)
			if status != 0 || out != "" || errs != "" {
				t.Errorf("status %d, %q, %q", status, out, errs)
			}
			log, data := d.result()
			if want := tc.log + "DATA\n"; log != want {
				t.Errorf("dialogue %q, want %q", log, want)
			}
			if data != tc.data {
				t.Errorf("message %q, want %q", data, tc.data)
			}
		})
	}
}

func TestVerbose(t *testing.T) {
	d := start(t)
	status, out, errs := run(t, d.dir, "secret body\n", "-v", "joe")
	if status != 0 || errs != "" {
		t.Errorf("status %d, %q", status, errs)
	}
	for _, want := range []string{"<<< 220 mail.test", ">>> EHLO localhost\n", ">>> MAIL FROM:<me@mail.test>", ">>> RCPT TO:<joe@mail.test>\n", ">>> DATA\n", "<<< 250 2.0.0 OK", ">>> QUIT\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, "secret") {
		t.Errorf("the message is shown: %s", out)
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		what   string
		code   int
		status int
		words  string
	}{
		{"MAIL", 550, invoke.Unavailable, "command failed: 550 5.0.0 no"},
		{"MAIL", 451, invoke.TempFail, "command failed: 451 4.0.0 no"},
		{"RCPT joe@mail.test", 550, invoke.NoUser, "command failed: 550 5.0.0 no <joe@mail.test>"},
		{"RCPT joe@mail.test", 450, invoke.TempFail, "450 4.0.0 no <joe@mail.test>"},
		{"DATA", 554, invoke.Unavailable, "command failed: 554 5.0.0 no"},
		{"DATA", 452, invoke.TempFail, "command failed: 452 4.0.0 no"},
	} {
		t.Run(fmt.Sprint(tc.what, tc.code), func(t *testing.T) {
			d := start(t)
			d.fail[tc.what] = &smtp.SMTPError{Code: tc.code, EnhancedCode: smtp.EnhancedCode{tc.code / 100, 0, 0}, Message: "no"}
			status, _, errs := run(t, d.dir, "Subject: x\n\nline\n", "ok", "joe")
			if status != tc.status || !strings.Contains(errs, tc.words) {
				t.Errorf("status %d, %q, want %d, %q", status, errs, tc.status, tc.words)
			}
			dead, err := os.ReadFile(filepath.Join(d.dir, "dead.letter"))
			want := "From: Me Me Co <me@mail.test>\nDate: Fri, 2 Jan 2026 03:04:05 +0000 (UTC)\nSubject: x\n\nline\n"
			if err != nil || string(dead) != want {
				t.Errorf("dead.letter: %q, %v", dead, err)
			}
		})
	}
}

// TestDeadLetterLink holds that dead.letter is not written through a link.
func TestDeadLetterLink(t *testing.T) {
	d := start(t)
	d.fail["MAIL"] = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 0, 0}, Message: "no"}
	victim := filepath.Join(d.dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(d.dir, "dead.letter")); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := run(t, d.dir, "x\n", "joe"); status != invoke.Unavailable || !strings.Contains(errs, "dead.letter:") {
		t.Errorf("status %d, %q", status, errs)
	}
	if b, err := os.ReadFile(victim); string(b) != "precious" || err != nil {
		t.Errorf("the file behind the link is %q, %v", b, err)
	}
}

func TestNoDaemon(t *testing.T) {
	status, _, errs := run(t, t.TempDir(), "x\n", "joe")
	if status != invoke.TempFail || errs != "sendmail: smtpd doesn't seem to be running\n" {
		t.Errorf("status %d, %q", status, errs)
	}
	d := start(t)
	d.refuse.Store(&ctl.Refused{Text: "smtp is paused", Temp: true})
	if status, _, errs := run(t, d.dir, "x\n", "joe"); status != invoke.TempFail || !strings.Contains(errs, "smtp is paused") {
		t.Errorf("paused: status %d, %q", status, errs)
	}
	d.refuse.Store(&ctl.Refused{Text: "go away"})
	if status, _, errs := run(t, d.dir, "x\n", "joe"); status != invoke.Unavailable || !strings.Contains(errs, "go away") {
		t.Errorf("refused: status %d, %q", status, errs)
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args   string
		in     string
		status int
		words  string
	}{
		{"", "", invoke.Usage, "no recipients"},
		{"-t", "Subject: x\n\n", invoke.Usage, "no recipients"},
		{"-t", "To: undisclosed-recipients:;\n\n", invoke.Usage, "no recipients"},
		{"-t", "To: \"open\n\n", invoke.DataErr, "syntax error in address in the header"},
		{"-z x", "", invoke.Usage, "usage: sendmail"},
		{"-f", "", invoke.Usage, "requires an argument"},
		{"-f a,b x", "", invoke.Usage, "invalid sender address"},
		{"-f a>b x", "", invoke.Usage, "invalid sender address"},
		{"<open", "", invoke.Usage, `syntax error in address: "<open"`},
		{"-N sometimes x", "", invoke.Usage, "-N sometimes"},
		{"-R all x", "", invoke.Usage, "-R all"},
		{"-q15m", "", invoke.Software, "smtpctl schedule all"},
	} {
		status, _, errs := run(t, "/nonexistent", tc.in, strings.Fields(tc.args)...)
		if status != tc.status || !strings.Contains(errs, tc.words) {
			t.Errorf("%s: status %d, %q, want %d, %q", tc.args, status, errs, tc.status, tc.words)
		}
	}
}

func TestAsked(t *testing.T) {
	for args, want := range map[string]Mode{
		"": Submit, "joe": Submit, "-bi": Newaliases, "-bp": Mailq, "-bm joe": Submit, "-q": Flush,
		"-- -bi": Submit, "joe -bp": Submit, "-f -bi joe": Submit, "-z -bi": Submit,
	} {
		if got := Asked(strings.Fields(args)); got != want {
			t.Errorf("%q: %d, want %d", args, got, want)
		}
	}
}

// TestInjection holds that no byte of an argument or a header reaches the
// dialogue as a command of its own.
func TestInjection(t *testing.T) {
	for _, tc := range []struct {
		args []string
		in   string
	}{
		{[]string{"joe\r\nRCPT TO:<evil@x.test>"}, "x\n"},
		{[]string{"-f", "me\r\nRCPT TO:<evil@x.test>", "joe"}, "x\n"},
		{[]string{"-V", "a\r\nRCPT TO:<evil@x.test>", "joe"}, "x\n"},
		{[]string{"-t"}, "To: \"a\rRCPT TO:<evil@x.test>\"@b.test\n\n"},
		{[]string{"joe> NOTIFY=NEVER <x"}, "x\n"},
		{[]string{"-F", "Me\r\nBcc: evil@x.test", "joe"}, "Subject: x\n\n\n.\nMAIL FROM:<evil@x.test>\n"},
	} {
		d := start(t)
		run(t, d.dir, tc.in, tc.args...)
		log, data := d.result()
		for line := range strings.Lines(log) {
			if strings.HasPrefix(line, "RCPT <evil") || strings.HasPrefix(line, "MAIL <evil") || strings.Contains(line, "NEVER") {
				t.Errorf("%q: dialogue %q", tc.args, log)
			}
		}
		if strings.Contains(data, "\nBcc:") {
			t.Errorf("%q: message %q", tc.args, data)
		}
	}
}
