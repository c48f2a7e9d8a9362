package send

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// server is a peer that keeps what it is given.
type server struct {
	mu   sync.Mutex
	seen []string
	addr net.Addr
	pem  []byte
}

func (s *server) note(words ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, strings.Join(words, " "))
}

func (s *server) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.seen, "\n")
}

func (s *server) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{s}, nil }

type session struct{ s *server }

func (x *session) Reset()                   {}
func (x *session) Logout() error            { return nil }
func (x *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (x *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		x.s.note("auth", user, password)
		if password != "pass:word" {
			return errors.New("wrong")
		}
		return nil
	}), nil
}
func (x *session) Mail(from string, _ *smtp.MailOptions) error { x.s.note("from", from); return nil }
func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "who?"}
	}
	x.s.note("to", to)
	return nil
}
func (x *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	x.s.note("message", string(b))
	return err
}
func (x *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	return x.Data(r)
}

// start runs a peer on loopback until the test ends.
func start(t *testing.T, set func(*smtp.Server)) *server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	v := smtp.NewServer(s)
	v.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	if set != nil {
		set(v)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr()
	var serving sync.WaitGroup
	serving.Go(func() { _ = v.Serve(ln) })
	t.Cleanup(func() { ln.Close(); v.Close(); serving.Wait() }) // Serve may not have begun
	return s
}

// order is one message for the peer.
func (s *server) order(t *testing.T, scheme, params string) *Order {
	t.Helper()
	o := &Order{Helo: "me.example", From: "a@me.example", Rcpts: []string{"b@mx.example"}, Message: []byte("Subject: x\n\n.dot\n")}
	var err error
	if o.Server, _, _, err = ParseServer(scheme + "://" + s.addr.String()); err != nil {
		t.Fatal(err)
	}
	o.TLS, err = ParseTLS("servername=mx.example,cafile=ca,"+params, o.Server.Host, func(string) ([]byte, error) { return s.pem, nil })
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const delivered = "from a@me.example\nto b@mx.example\nmessage Subject: x\r\n\r\n.dot\r\n"

func TestDo(t *testing.T) {
	noTLS := func(v *smtp.Server) { v.TLSConfig = nil }
	for name, tc := range map[string]struct {
		scheme, params string
		set            func(*smtp.Server)
		change         func(*Order)
		seen, err      string
	}{
		"clear":            {scheme: "smtp+notls", seen: delivered},
		"opportunistic":    {scheme: "smtp", seen: delivered},
		"nothing to begin": {scheme: "smtp", set: noTLS, seen: delivered},
		"demanded":         {scheme: "smtp+tls", seen: delivered},
		"demanded in vain": {scheme: "smtp+tls", set: noTLS, err: "the server does not offer STARTTLS"},
		"another name":     {scheme: "smtp+tls", params: "servername=other.example", err: "not other.example"},
		"not verified":     {scheme: "smtp+tls", params: "servername=other.example,noverify", seen: delivered},
		"no name sent":     {scheme: "smtp+tls", params: "nosni", seen: delivered},
		"no name, another": {scheme: "smtp+tls", params: "nosni,servername=other.example", err: "not other.example"},
		"LMTP":             {scheme: "lmtp", set: func(v *smtp.Server) { v.LMTP = true }, seen: delivered},
		"login": {scheme: "smtp+tls", change: func(o *Order) { o.User, o.Password = "joe", "pass:word" },
			seen: "auth joe pass:word\n" + delivered},
		"wrong password": {scheme: "smtp+tls", change: func(o *Order) { o.User, o.Password = "joe", "x" }, seen: "auth joe x", err: "AUTH: "},
		"no login in clear": {scheme: "smtp", change: func(o *Order) { o.User, o.Password = "joe", "pass:word" },
			err: "a password is not sent by smtp://"},
		"one refused": {scheme: "smtp", change: func(o *Order) { o.Rcpts = append(o.Rcpts, "nobody@mx.example") },
			seen: delivered, err: "RCPT TO <nobody@mx.example>: 550 5.1.1 who?"},
		"all refused": {scheme: "smtp", change: func(o *Order) { o.Rcpts = []string{"nobody@mx.example"} },
			seen: "from a@me.example", err: "550 5.1.1 who?"},
		"only tried": {scheme: "smtp+tls", change: func(o *Order) { o.Try = true }},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, tc.set)
			o := s.order(t, tc.scheme, tc.params)
			if tc.change != nil {
				tc.change(o)
			}
			err := Do(t.Context(), o)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if (tc.err == "") != (err == nil) || !strings.Contains(text, tc.err) {
				t.Errorf("got the error %q, want %q", text, tc.err)
			}
			if got := s.got(); got != tc.seen {
				t.Errorf("the server has seen\n%s\nand not\n%s", got, tc.seen)
			}
		})
	}
}

func TestParseServer(t *testing.T) {
	for in, want := range map[string]Server{
		"mx.example":                    {"smtp", "mx.example", 25},
		"mx.example:2525":               {"smtp", "mx.example", 2525},
		"smtps://mx.example":            {"smtps", "mx.example", 465},
		"smtp+tls://a:b@mx.example:587": {"smtp+tls", "mx.example", 587},
		"lmtp+notls://[::1]:24":         {"lmtp+notls", "::1", 24},
	} {
		if got, _, _, err := ParseServer(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "smtp://", "http://mx.example", "lmtp://mx.example", "mx.example:0", "mx.example:70000", "mx.example/x", "joe@mx.example", ":b@mx.example", "smtp://%zz"} {
		if got, _, _, err := ParseServer(in); err == nil {
			t.Errorf("%q is taken for %+v", in, got)
		}
	}
}

func TestParseTLS(t *testing.T) {
	c, err := ParseTLS("ciphers=HIGH protocols=TLSv1.2", "mx.example", nil)
	if err != nil || c.ServerName != "mx.example" || len(c.CipherSuites) == 0 || c.MinVersion != tls.VersionTLS12 || c.MaxVersion != tls.VersionTLS12 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"cafile=", "cafile=none", "cafile=junk", "noverify=1", "what", "ciphers=XYZ", "protocols=SSLv9"} {
		_, err := ParseTLS(bad, "mx.example", func(name string) ([]byte, error) {
			if name == "junk" {
				return []byte("junk"), nil
			}
			return nil, os.ErrNotExist
		})
		if err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
