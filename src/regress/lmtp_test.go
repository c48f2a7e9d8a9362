package regress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"opensmtpd/src/regress/daemon"
)

// lmtpServer keeps the messages that it takes, and refuses the next as it is
// told.
type lmtpServer struct {
	mu     sync.Mutex
	refuse error
	got    []string // "sender recipient\nmessage"
}

func (s *lmtpServer) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &lmtpSession{server: s}, nil
}

func (s *lmtpServer) set(refuse error) {
	s.mu.Lock()
	s.refuse = refuse
	s.mu.Unlock()
}

func (s *lmtpServer) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

type lmtpSession struct {
	server *lmtpServer
	from   string
	rcpt   string
}

func (s *lmtpSession) Reset()                                      {}
func (s *lmtpSession) Logout() error                               { return nil }
func (s *lmtpSession) Data(io.Reader) error                        { return errors.New("not LMTP") }
func (s *lmtpSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *lmtpSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.rcpt = to; return nil }
func (s *lmtpSession) LMTPData(r io.Reader, c smtp.StatusCollector) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.refuse == nil {
		s.server.got = append(s.server.got, s.from+" "+s.rcpt+"\n"+string(body))
	}
	c.SetStatus(s.rcpt, s.server.refuse)
	return nil
}

func TestLMTP(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			d := daemon.New(t, "")
			address := map[string]string{"unix": d.Path("lmtp"), "tcp": "127.0.0.1:0"}[network]
			l, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			backend := &lmtpServer{refuse: &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "closed for lunch"}}
			server := smtp.NewServer(backend)
			server.LMTP, server.Domain = true, "imap.test"
			served := make(chan struct{})
			go func() { server.Serve(l); close(served) }()
			t.Cleanup(func() { server.Close(); <-served })
			d.Configure(strings.Replace(daemon.Basic, "maildir $box", `lmtp "`+l.Addr().String()+`" rcpt-to`, 1))
			d.Start()

			rcpt := me(t) + "@localhost"
			big := "Subject: big\r\n\r\n" + strings.Repeat("..dots\r\n.\r\n"+strings.Repeat("x", 900)+"\r\n", 300)
			c := d.Dial()
			// Dots are the client's business here.
			if err := c.Send("sender@example.org", []string{rcpt}, strings.ReplaceAll(big, "\n.", "\n.."), false); err != nil {
				t.Fatal(err)
			}
			m := d.AwaitLog(`mda delivery evpid=([0-9a-f]{16}) .*result=TempFail stat=Error \(temporary failure: mail\.lmtp: LMTP server error: 452 4\.2\.2 .*closed for lunch\)`)
			backend.set(nil)
			d.Ctl("schedule", m[1])
			d.AwaitLog(`mda delivery evpid=` + m[1] + ` .*result=Ok stat=Delivered`)
			got := backend.messages()
			if len(got) != 1 {
				t.Fatalf("%d messages", len(got))
			}
			if !strings.HasPrefix(got[0], "sender@example.org "+rcpt+"\nReturn-Path: <sender@example.org>\r\nDelivered-To: "+rcpt+"\r\n") || !strings.HasSuffix(got[0], big[strings.Index(big, "\r\n\r\n"):]) {
				t.Errorf("the server was given %.300q … %.50q", got[0], got[0][len(got[0])-50:])
			}
			backend.set(&smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not here"})
			send(t, d, "refused", rcpt)
			d.AwaitLog(`mda delivery .*result=PermFail stat=Error \(service unavailable: mail\.lmtp: LMTP server error: 554 5\.7\.1 .*not here\)`)
		})
	}
}

// TestLMTPDovecot hands mail to Debian's Dovecot.
func TestLMTPDovecot(t *testing.T) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, "")
	socket := dovecot(t, d)
	d.Configure(strings.Replace(system, "maildir", `lmtp "`+socket+`" rcpt-to`, 1))
	d.Start()
	send(t, d, "by name", "anna@localhost", "bert@localhost")
	for _, name := range []string{"anna", "bert"} {
		var mail map[string]string
		d.Await("mail of "+name, func() bool { mail = d.Mail("/home/" + name + "/Maildir"); return len(mail) == 1 })
		for _, text := range mail {
			if !regexp.MustCompile(`(?s)Return-Path: <sender@example.org>.*Delivered-To: ` + name + `.*\nSubject: by name\n.*\n\nbody of by name\n$`).MatchString(text) {
				t.Errorf("%s has\n%s", name, text)
			}
		}
	}
	send(t, d, "unknown there", "cleo@localhost")
	d.AwaitLog(`mda delivery .*to=<cleo@localhost> .*result=PermFail stat=Error \(service unavailable: mail\.lmtp: LMTP server error: 550 5\.1\.1 .*\)`)
	d.Stop()
	d.Configure(strings.Replace(system, "maildir", `lmtp "`+socket+`"`, 1))
	d.Start()
	send(t, d, "by user", "anna@localhost")
	d.Await("mail for the user", func() bool { return len(d.Mail("/home/anna/Maildir")) == 2 })
}

// dovecot starts Dovecot for anna and bert until the test ends, and returns its
// LMTP socket.
func dovecot(t *testing.T, d *daemon.Daemon) string {
	t.Helper()
	root := debian(t, d.Path("dovecot"), "dovecot-core", "dovecot-lmtpd")
	for _, dir := range []string{"run", "state"} {
		if err := os.Mkdir(d.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
default_internal_user = cleo
default_internal_group = cleo
default_login_user = cleo
protocols = lmtp
ssl = no
stats_writer_socket_path =
mail_location = maildir:~/Maildir
auth_username_format = %%n
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
service lmtp {
  unix_listener lmtp {
    mode = 0666
  }
}
`, d.Dir)
	users := "anna::7101:7101::/home/anna::\nbert::7102:7102::/home/bert::\n"
	for name, text := range map[string]string{"dovecot.conf": conf, "users": users} {
		if err := os.WriteFile(d.Path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	foreign(t, d, root, "exec dovecot -F -c "+d.Path("dovecot.conf"), d.Path("dovecot.log"))
	socket := d.Path("run", "lmtp")
	d.Await("Dovecot", func() bool {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return socket
}
