package mta

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/queue/envelope"
)

// smarthost is a world whose mail all goes to one server by a url.
func smarthost(t *testing.T, url string, a *ca, change func(*project.RelayAction)) *world {
	t.Helper()
	w := newWorld(t, false, nil)
	p := dispatcherConf(func(p *project.DispatcherConf) {
		p.Relays[0].Host = url
		p.Relays[0].AuthTable = "secrets"
		if change != nil {
			change(&p.Relays[0])
		}
	})
	c, err := NewConfig(1, p, a.pem, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Configure(c)
	w.domain("mx.far.example", "0 mx.far.example 192.0.2.1")
	w.tables["secrets/label"] = []string{"joe:pass word"}
	return w
}

const (
	delivered = "ok 250 2.0.0 taken\n"
	failed    = "temporary 4.4.1 Network error on destination MXs ("
)

// Every url scheme, against servers with a good certificate, a bad one, and none.
func TestSchemes(t *testing.T) {
	a := authority(t)
	good, bad := a.server(t, "mx.far.example"), a.server(t, "other.example")
	for _, tc := range []struct {
		url    string
		change func(*project.RelayAction)
		tls    *tls.Config
		smtps  bool
		want   string
		secure bool
	}{
		{"smtp://mx.far.example", nil, nil, false, delivered, false},
		{"smtp://mx.far.example", nil, good, false, delivered, true},
		{"smtp://mx.far.example", nil, bad, false, delivered, true},
		{"smtp+tls://mx.far.example", nil, good, false, delivered, true},
		{"smtp+tls://mx.far.example", nil, bad, false, failed + "TLS handshake failed", false},
		{"smtp+tls://mx.far.example", nil, nil, false, failed + "TLS required but not supported by remote host", false},
		{"smtp+tls://mx.far.example", func(r *project.RelayAction) { r.TLS, r.NoVerify = true, true }, bad, false, delivered, true},
		{"smtp://mx.far.example", func(r *project.RelayAction) { r.TLS = true }, bad, false, failed + "TLS handshake failed", false},
		{"smtp+notls://mx.far.example", nil, good, false, delivered, false},
		{"smtp+notls://mx.far.example", func(r *project.RelayAction) { r.TLS = true }, good, false, "temporary 4.7.4 TLS required", false},
		{"smtps://mx.far.example:25", nil, good, true, delivered, true},
		{"smtps://mx.far.example:25", nil, bad, true, failed + "TLS handshake failed", false},
		{"lmtp://mx.far.example:25", nil, good, false, delivered, false},
	} {
		s := &script{tls: tc.tls, smtp: tc.smtps}
		w := smarthost(t, tc.url, a, tc.change)
		w.server("192.0.2.1:25", s.serve)
		if got := outcomes(w.send(w.task("b@far.example"))); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.url, got, tc.want)
		}
		if n := len(w.log.With(" mta tls ciphers=TLSv1.3:TLS_")); (n == 1) != tc.secure {
			t.Errorf("%s: TLS %d times", tc.url, n)
		}
		verified := tc.secure && tc.tls == good && tc.url != "smtp://mx.far.example"
		if n := len(w.log.With(`cert-check result="valid" fingerprint="SHA256:`)); (n == 1) != verified {
			t.Errorf("%s: verified %d times", tc.url, n)
		}
		if strings.HasPrefix(tc.want, failed) && len(s.got()) != 0 {
			t.Errorf("%s: the server got a message", tc.url)
		}
	}
}

// TestRequireTLS: mail that must travel in TLS goes to servers that prove who they
// are and promise the same, and to no other. That one is none will not change soon,
// so that the sender hears of it at once; what may change is waited for (RFC 8689
// section 4.2.1).
func TestRequireTLS(t *testing.T) {
	a := authority(t)
	good, bad := a.server(t, "mx.far.example"), a.server(t, "other.example")
	old := a.server(t, "mx.far.example")
	old.MaxVersion = tls.VersionTLS11
	const promise, none = "250-x\r\n250-REQUIRETLS\r\n250 STARTTLS", "250-x\r\n250 STARTTLS"
	const noTLS = "permanent 5.7.10 Encryption needed: "
	for _, tc := range []struct {
		url  string
		tls  *tls.Config
		ehlo string
		want string
		say  string // to STARTTLS
	}{
		{"smtp://mx.far.example", good, promise, delivered, ""},
		{"smtp+tls://mx.far.example", good, promise, delivered, ""},
		{"smtp://mx.far.example", good, none, "permanent 5.7.30 REQUIRETLS support required\n", ""},
		{"smtp+notls://mx.far.example", good, promise, noTLS, ""},
		{"lmtp://mx.far.example:25", good, promise, noTLS, ""},
		{"smtp://mx.far.example", bad, promise, noTLS + "TLS handshake failed: tls: failed to verify certificate", ""},
		{"smtp://mx.far.example", old, promise, noTLS + "TLS handshake failed: tls: protocol version not supported", ""},
		{"smtp://mx.far.example", nil, "250-x\r\n250 REQUIRETLS", noTLS + "TLS required but not supported by remote host\n", ""},
		{"smtp://mx.far.example", good, promise, noTLS + "STARTTLS rejected: 502 5.5.1 what?\n", "502 5.5.1 what?"},
		{"smtp://mx.far.example", good, "502 what?", noTLS + "EHLO rejected: 502 what?\n", ""},
		{"smtp://mx.far.example", good, promise, failed + "STARTTLS rejected: 454 4.7.0 not now)\n", "454 4.7.0 not now"},
		{"smtp://mx.far.example", good, "421 4.3.2 busy", failed + "EHLO rejected: 421 4.3.2 busy)\n", ""},
	} {
		s := &script{tls: tc.tls, say: map[string]string{"EHLO": tc.ehlo}}
		if tc.say != "" {
			s.say["STARTTLS"] = tc.say
		}
		w := smarthost(t, tc.url, a, nil)
		w.server("192.0.2.1:25", s.serve)
		task := w.task("b@far.example")
		task.Envelopes[0].Flags |= envelope.RequireTLS
		if got := outcomes(w.send(task)); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.url, got, tc.want)
		}
		if taken := len(s.got()) == 1; taken != (tc.want == delivered) {
			t.Errorf("%s: the server got %d messages", tc.url, len(s.got()))
		}
		if said := s.said("MAIL"); tc.want == delivered && (len(said) != 1 || !strings.HasSuffix(said[0], " REQUIRETLS")) {
			t.Errorf("%s: said %q", tc.url, said)
		}
		if n := len(w.log.With("Disabling route")); (n == 1) != strings.HasPrefix(tc.want, failed) {
			t.Errorf("%s: %d routes disabled, want %s", tc.url, n, tc.want)
		}
	}
}

// What stands in a certificate makes no lines, and none that has no end.
func TestHostileCertificate(t *testing.T) {
	a := authority(t)
	evil := "evil\r\nBcc: all@example.com\x1b[2J" + strings.Repeat(".long", 40)
	for _, names := range [][]string{{evil}, slices.Repeat([]string{evil}, 90)} {
		s := &script{tls: a.server(t, names...)}
		w := smarthost(t, "smtp+tls://mx.far.example", a, nil)
		w.server("192.0.2.1:25", s.serve)
		res := w.send(w.task("b@far.example"))
		line := res.Results[0].Line
		if !strings.HasPrefix(line, "Network error on destination MXs (TLS handshake failed: ") || len(line) > 1100 ||
			strings.ContainsAny(line, "\r\n\x1b") || res.Results[0].Err.Text != line {
			t.Errorf("%d names: %q", len(names), line)
		}
		for _, l := range w.log.With("evil") {
			if len(l) > 1300 {
				t.Errorf("%d names: a line of %d bytes", len(names), len(l))
			}
		}
	}
}

// Every server of a domain is asked before mail that must travel in TLS is given
// up, and that it got none there keeps no other mail from them.
func TestRequireTLSOthers(t *testing.T) {
	a := authority(t)
	const promise, none = "250-x\r\n250-REQUIRETLS\r\n250 STARTTLS", "250-x\r\n250 STARTTLS"
	serving := func(name, ehlo string) *script {
		return &script{tls: a.server(t, name), say: map[string]string{"EHLO": ehlo}}
	}
	for _, tc := range []struct {
		name    string
		servers []*script // nil: it does not answer
		want    string
		took    int
	}{
		{"the third promises", []*script{{}, serving("mx2", none), serving("mx3", promise)}, delivered, 2},
		{"none has TLS", []*script{{}, {}}, "permanent 5.7.10 Encryption needed: TLS required but not supported by remote host\n", -1},
		{"one has TLS", []*script{{}, serving("mx2", none), serving("mx1", promise)}, "permanent 5.7.30 REQUIRETLS support required\n", -1},
		{"one does not answer", []*script{{}, nil, serving("mx3", none)}, failed, -1},
	} {
		w := newWorld(t, false, nil)
		c, err := NewConfig(1, dispatcherConf(nil), a.pem, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Configure(c)
		var names []string
		for i, s := range tc.servers {
			names = append(names, fmt.Sprintf("%d mx%d 192.0.2.%d", i, i+1, i+1))
			if s != nil {
				w.server(fmt.Sprintf("192.0.2.%d:25", i+1), s.serve)
			}
		}
		w.domain("far.example", names...)
		task := w.task("b@far.example")
		task.Envelopes[0].Flags |= envelope.RequireTLS
		res := w.send(task)
		if got := outcomes(res); !strings.HasPrefix(got, tc.want) || res.Unreachable {
			t.Errorf("%s: %s, unreachable: %v", tc.name, got, res.Unreachable)
		}
		if got := outcomes(w.send(w.task("b@far.example"))); got != delivered {
			t.Errorf("%s: other mail: %s", tc.name, got)
		}
		for i, s := range tc.servers {
			want := 0
			if i == tc.took {
				want++
			}
			if i == 0 {
				want++ // the other mail
			}
			if s != nil && len(s.got()) != want {
				t.Errorf("%s: server %d took %d messages, want %d", tc.name, i, len(s.got()), want)
			}
			if s != nil && s.connections() == 0 {
				t.Errorf("%s: server %d was not asked", tc.name, i)
			}
		}
	}
}

// TestTLSOptional: who would rather have his mail arrive is not held to the TLS
// that the action demands of the world, but to that of our own smarthost (RFC 8689
// section 4.2.2).
func TestTLSOptional(t *testing.T) {
	a := authority(t)
	bad := a.server(t, "other.example")
	demanding := func(r *project.RelayAction) { r.TLS = true }
	const none = failed + "TLS required but not supported by remote host"
	for _, tc := range []struct {
		url   string
		flags envelope.Flags
		tls   *tls.Config
		want  string
	}{
		{"", 0, nil, none},
		{"", envelope.TLSOptional, nil, delivered},
		{"", envelope.TLSOptional, bad, delivered},
		{"", envelope.TLSOptional | envelope.RequireTLS, nil, "permanent 5.7.10"},
		{"smtp://mx.far.example", envelope.TLSOptional, nil, none},
		{"smtp+tls://mx.far.example", envelope.TLSOptional, bad, failed + "TLS handshake failed"},
	} {
		s := &script{tls: tc.tls}
		w := smarthost(t, tc.url, a, demanding)
		w.domain("far.example", "0 mx.far.example 192.0.2.1")
		w.server("192.0.2.1:25", s.serve)
		task := w.task("b@far.example")
		task.Envelopes[0].Flags |= tc.flags
		if got := outcomes(w.send(task)); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q %b: %s, want %s", tc.url, tc.flags, got, tc.want)
		}
	}
}

// A server that wants to know us sees the certificate of the action's pki, signed
// for elsewhere; versions and ciphers are those of the action, or of the server.
func TestOwnCertificate(t *testing.T) {
	a, own := authority(t), pkitest.New(t)
	for _, tc := range []struct {
		name   string
		change func(*project.DispatcherConf)
		want   string
		line   string // of the log
	}{
		{"shown", func(p *project.DispatcherConf) { p.Relays[0].PKI = "us" }, delivered, "mta tls ciphers=TLSv1.3:TLS_"},
		{"none", func(*project.DispatcherConf) {}, failed, ""},
		{"versions", func(p *project.DispatcherConf) { p.Relays[0].PKI, p.Relays[0].Protocols = "us", "TLSv1.2" }, delivered,
			"mta tls ciphers=TLSv1.2:ECDHE-ECDSA-AES128-GCM-SHA256:128"},
		{"ciphers", func(p *project.DispatcherConf) {
			p.Relays[0].PKI, p.Relays[0].Protocols, p.Relays[0].Ciphers, p.Ciphers = "us", "TLSv1.2", "CHACHA20", "AES256"
		}, delivered, "mta tls ciphers=TLSv1.2:ECDHE-ECDSA-CHACHA20-POLY1305:256"},
		{"ciphers of the server", func(p *project.DispatcherConf) {
			p.Relays[0].PKI, p.Relays[0].Protocols, p.Ciphers = "us", "TLSv1.2", "AES256+AEAD"
		}, delivered, "mta tls ciphers=TLSv1.2:ECDHE-ECDSA-AES256-GCM-SHA384:256"},
	} {
		cfg := a.server(t, "mx.far.example")
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, own.Pool()
		s := &script{tls: cfg}
		w := newWorld(t, false, nil)
		c, err := NewConfig(1, dispatcherConf(func(p *project.DispatcherConf) {
			p.Relays[0].Host = "smtp+tls://mx.far.example"
			tc.change(p)
		}), a.pem, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Identify(func(name string) (*tls.Certificate, error) {
			if name != "us" {
				t.Errorf("asked for %q", name)
			}
			return own.Chain(pkitest.RSA, "us.example").Certificate(t.Context(), own.Sign), nil
		}); err != nil {
			t.Fatal(err)
		}
		w.Configure(c)
		w.domain("mx.far.example", "0 mx.far.example 192.0.2.1")
		w.server("192.0.2.1:25", s.serve)
		if got := outcomes(w.send(w.task("b@far.example"))); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if tc.line != "" && len(w.log.With(tc.line)) != 1 {
			t.Errorf("%s: no %q in\n%s", tc.name, tc.line, w.log.String())
		}
	}
}

// A handshake that fails is no reason not to send where TLS is not demanded.
func TestHandshakeFails(t *testing.T) {
	a := authority(t)
	for _, url := range []string{"smtp://mx.far.example", "smtp+tls://mx.far.example"} {
		s := &script{tls: &tls.Config{}, say: map[string]string{"STARTTLS": "220 but not really"}}
		w := smarthost(t, url, a, nil)
		w.server("192.0.2.1:25", s.serve)
		got := outcomes(w.send(w.task("b@far.example")))
		if must := strings.Contains(url, "+tls"); must != strings.HasPrefix(got, failed) || !must && got != delivered {
			t.Errorf("%s: %s", url, got)
		}
		if n := len(w.log.With("opportunistic TLS failed, downgrading to plain")); n != 0 == strings.Contains(url, "+tls") {
			t.Errorf("%s: logged %q", url, w.log.With(""))
		}
	}
}

// NO STARTTLS (2021), client side: what comes behind the 220 in clear text ends
// the session; mandatory TLS never falls back; nothing secret is said before.
func TestNoSTARTTLSInjection(t *testing.T) {
	a := authority(t)
	for _, url := range []string{"smtp://mx.far.example", "smtp+tls://label@mx.far.example"} {
		heard := make(chan string, 10)
		w := smarthost(t, url, a, nil)
		w.server("192.0.2.1:25", func(c net.Conn) {
			buf := make([]byte, 1000)
			io.WriteString(c, "220 x\r\n")
			for _, say := range []string{"250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n", "220 go\r\n250-x\r\n250 AUTH PLAIN\r\n"} {
				if _, err := c.Read(buf); err != nil {
					return
				}
				io.WriteString(c, say)
			}
			n, _ := c.Read(buf)
			heard <- string(buf[:n])
		})
		got := outcomes(w.send(w.task("b@far.example")))
		if want := failed + "Remote host sent too much data)\n"; got != want {
			t.Errorf("%s: %s", url, got)
		}
		if s := <-heard; s != "" {
			t.Errorf("%s: %q was said after it", url, s)
		}
		if n := len(w.log.With("mta connecting")); n != 1 {
			t.Errorf("%s: %d connections", url, n)
		}
	}
}

func TestAuth(t *testing.T) {
	a := authority(t)
	good := a.server(t, "mx.far.example")
	plain := base64.StdEncoding.EncodeToString([]byte("\x00joe\x00pass word"))
	const login = "250-x\r\n250-STARTTLS\r\n250-AUTH LOGIN CRAM-MD5\r\n250 DSN"
	for _, tc := range []struct {
		ehlo, auth, want string
		said             []string
	}{
		{"", "235 2.7.0 welcome", delivered, []string{"AUTH PLAIN " + plain}},
		{"", "535 5.7.8 no", failed + "AUTH rejected: 535 5.7.8 no)\n", []string{"AUTH PLAIN " + plain}},
		{login, "334 VXNlcm5hbWU6", failed + "Bad response", []string{"AUTH LOGIN"}},
		{"250-x\r\n250-STARTTLS\r\n250 DSN", "", failed + "AUTH not advertised)\n", nil},
		{"250-x\r\n250-STARTTLS\r\n250 AUTH CRAM-MD5", "", failed + "No supported AUTH method)\n", nil},
	} {
		s := &script{tls: good, say: map[string]string{"AUTH": tc.auth}}
		if tc.ehlo != "" {
			s.say["EHLO"] = tc.ehlo
		}
		w := smarthost(t, "smtp+tls://label@mx.far.example", a, nil)
		w.server("192.0.2.1:25", s.serve)
		if got := outcomes(w.send(w.task("b@far.example"))); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q: %s", tc.ehlo, got)
		}
		if got := s.said("AUTH"); strings.Join(got, ",") != strings.Join(tc.said, ",") && tc.ehlo != login {
			t.Errorf("%q: said %q", tc.ehlo, got)
		}
		for _, l := range w.log.With("") {
			if strings.Contains(l, "pass word") || strings.Contains(l, plain) {
				t.Errorf("the log has the password: %s", l)
			}
		}
	}
	w := smarthost(t, "smtp+tls://nobody@mx.far.example", a, nil)
	if got := outcomes(w.send(w.task("b@far.example"))); got != "temporary 4.7.0 Could not retrieve credentials\n" {
		t.Error(got)
	}
}

// With LMTP everybody who was accepted gets an answer of his own.
func TestLMTP(t *testing.T) {
	a := authority(t)
	w := smarthost(t, "lmtp://mx.far.example:2424", a, nil)
	w.server("192.0.2.1:2424", func(c net.Conn) {
		play(c, "220 far.example\r\n250-x\r\n250-PIPELINING\r\n250 DSN\r\n"+
			"250 ok\r\n250 ok\r\n550 5.1.1 nobody\r\n250 ok\r\n354 go\r\n"+
			"250 2.0.0 first\r\n452 4.2.2 third is full\r\n")
	})
	got := outcomes(w.send(w.task("a@far.example", "b@far.example", "c@far.example")))
	if want := "ok 250 2.0.0 first\npermanent 5.1.1 550 5.1.1 nobody\ntemporary 4.2.2 452 4.2.2 third is full\n"; got != want {
		t.Error(got)
	}
}
