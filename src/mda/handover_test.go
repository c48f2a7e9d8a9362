package mda

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"opensmtpd/src/conf"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

// shop is an LMTP server that keeps what it is given by recipient. Names tell it
// what to answer.
type shop struct {
	mu  sync.Mutex
	got map[string][]string
}

func (s *shop) NewSession(*smtp.Conn) (smtp.Session, error) { return &visit{shop: s}, nil }

type visit struct {
	shop  *shop
	from  string
	rcpts []string
}

func (v *visit) Reset()                                      {}
func (v *visit) Logout() error                               { return nil }
func (v *visit) Data(io.Reader) error                        { return errors.New("not LMTP") }
func (v *visit) Mail(from string, _ *smtp.MailOptions) error { v.from = from; return nil }
func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == "unknown@example.org" {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "who?"}
	}
	v.rcpts = append(v.rcpts, to)
	return nil
}

func (v *visit) LMTPData(r io.Reader, c smtp.StatusCollector) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, to := range v.rcpts {
		if to == "full@example.org" {
			c.SetStatus(to, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "no room"})
			continue
		}
		v.shop.mu.Lock()
		v.shop.got[to] = append(v.shop.got[to], v.from+"\n"+strings.ReplaceAll(string(body), "\r\n", "\n"))
		v.shop.mu.Unlock()
		c.SetStatus(to, nil)
	}
	return nil
}

// openShop serves on a socket until the test ends.
func openShop(t *testing.T) (*shop, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lmtp")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{got: make(map[string][]string)}
	server := smtp.NewServer(s)
	server.LMTP, server.Domain = true, "shop.test"
	done := make(chan struct{})
	go func() { server.Serve(l); close(done) }()
	t.Cleanup(func() { server.Close(); <-done; os.RemoveAll(dir) })
	return s, dir + "/s"
}

func (s *shop) expect(t *testing.T, rcpt string, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.got[rcpt]; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%s has %.300q, want %.300q", rcpt, got, want)
	}
}

func TestLMTP(t *testing.T) {
	s, socket := openShop(t)
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.LMTP), LMTPDest: socket, RcptTo: true})
	o.command = true
	p := o.pool(Options{})
	check(t, "small", deliver(p, newEnvelope("eve"), "S: x\n\n.\n"), 0, "")
	big := strings.Repeat("Subject: x\n.line\n", 1<<16)
	check(t, "large", deliver(p, newEnvelope("eve"), big), 0, "")
	s.expect(t, "eve@example.org", "bob@sender.example\n"+added+"S: x\n\n.\n", "bob@sender.example\n"+added+big)

	r := deliver(p, newEnvelope("unknown"), "x\n")
	check(t, "unknown", r, mailerr.Perm, `Error (service unavailable: mail.lmtp: LMTP server error: 550 5.1.1 who?)`)
	if r.Err != nil && (r.Err.Enhanced != mailerr.Enhanced{5, 1, 1} || r.Err.Code != 550) {
		t.Error(r.Err)
	}
	r = deliver(p, newEnvelope("full"), "x\n")
	check(t, "full", r, mailerr.Temp, `Error (temporary failure: mail.lmtp: LMTP server error: 452 4.2.2 <full@example.org> no room)`)
	e := newEnvelope("eve")
	e.Dest.Local, e.Dest.Domain = "info", "example.org"
	check(t, "loop", deliver(p, e, "Delivered-To: info@example.org\n\n"), mailerr.Perm, "Loop detected")
}

func TestLMTPAway(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.LMTP), LMTPDest: t.TempDir() + "/none"})
	r := deliver(o.pool(Options{}), newEnvelope("eve"), "x\n")
	check(t, "away", r, mailerr.Temp, "temporary failure: mail.lmtp: cannot connect to the LMTP server: dial unix")
	if r.Err != nil && strings.Contains(r.Err.Text, "none") {
		t.Errorf("the report shows our paths: %q", r.Err.Text)
	}
}

func TestLMTPWrapped(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.LMTP), LMTPDest: "/run/a b", RcptTo: true, HasWrapper: true, LibExec: "/lib exec", Wrapper: `echo '%{mda}' "$SMTPD_1"; exit 75`})
	check(t, "wrapped", deliver(o.pool(Options{}), newEnvelope("eve"), "x\n"), mailerr.Temp, `mail.lmtp -r -d "${SMTPD_1}" /run/a b`)
}
