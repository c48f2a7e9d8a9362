package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"opensmtpd/src/pki"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/privsep/msg"
)

// tlsRig is a rig whose listener speaks TLS.
func tlsRig(t testing.TB, change func(*TLS, *pki.Server)) (*rig, *pkitest.Authority) {
	t.Helper()
	r, a := newRig(t), pkitest.New(t)
	s := pki.Server{Chains: []*pki.Chain{a.Chain(pkitest.ECDSA, "mx.example.com")}, Ask: a.Sign, Turns: pki.NewTurns(2)}
	r.ln.TLS = new(TLS)
	if change != nil {
		change(r.ln.TLS, &s)
	}
	var err error
	if r.ln.TLS.Config, err = s.Config(context.Background()); err != nil {
		t.Fatal(err)
	}
	return r, a
}

func smtps(l *TLS, _ *pki.Server) { l.Immediate = true }

// conversation talks to a server.
type conversation struct {
	t  testing.TB
	nc net.Conn
	in *bufio.Reader
}

func talk(t testing.TB, nc net.Conn) *conversation {
	return &conversation{t, nc, bufio.NewReader(nc)}
}

// want sends what the client says, unless it is empty, and holds the last line of
// the answer against want.
func (c *conversation) want(say, want string) {
	c.t.Helper()
	if say != "" {
		if _, err := io.WriteString(c.nc, say+"\r\n"); err != nil {
			c.t.Fatal(err)
		}
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%q: %v", say, err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			c.t.Errorf("%q: got %q, want %q", say, line, want)
		}
		return
	}
}

// ehlo returns what the server offers.
func (c *conversation) ehlo() string {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, "EHLO client.example.org\r\n"); err != nil {
		c.t.Fatal(err)
	}
	var all strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		all.WriteString(line[4:])
		if line[3] == ' ' {
			return all.String()
		}
	}
}

// startTLS goes on in TLS.
func (c *conversation) startTLS(cfg *tls.Config) *conversation {
	c.t.Helper()
	c.want("STARTTLS", "220 2.0.0 Ready to start TLS")
	nc := tls.Client(c.nc, cfg)
	if err := nc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return talk(c.t, nc)
}

func TestStartTLS(t *testing.T) {
	r, a := tlsRig(t, nil)
	rec := &scripted{}
	r.ln.Filter = rec
	c := talk(t, r.dial(t))
	c.want("", "220")
	c.want("STARTTLS", "503 5.5.1 Invalid command: Command not allowed at this point.")
	if offer := c.ehlo(); !strings.Contains(offer, "STARTTLS\r\n") {
		t.Errorf("offers %q", offer)
	}
	c.want("STARTTLS now", "501 5.5.4 Invalid command arguments: No parameters allowed")
	c.want("MAIL FROM:<a@example.org>", "250")
	c.want("STARTTLS", "503")
	c.want("RSET", "250")
	c = c.startTLS(a.Client("mx.example.com"))
	c.want("MAIL FROM:<a@example.org>", "503") // HELO is forgotten
	if offer := c.ehlo(); strings.Contains(offer, "STARTTLS") {
		t.Errorf("offers %q inside TLS", offer)
	}
	c.want("STARTTLS", "503 5.5.1 Invalid command: Channel already secured")
	c.want("MAIL FROM:<a@example.org>", "250")
	c.want("RCPT TO:<b@example.com>", "250")
	c.want("DATA", "354")
	c.want("Subject: x\r\n\r\nbody\r\n.", "250")
	c.want("QUIT", "221")
	if _, err := c.nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end was not told in good order: %v", err)
	}
	<-r.mem.done
	m := r.mem.accepted()
	if len(m) != 1 || !strings.Contains(m[0].body.String(), "with ESMTPS id 10000002 (TLSv1.3:TLS_AES_128_GCM_SHA256:128:NO)\n\tfor") {
		t.Errorf("%d messages: %s", len(m), m[0].body.String())
	}
	if want := "smtp tls ciphers=TLSv1.3:TLS_AES_128_GCM_SHA256:128"; !strings.Contains(r.log.String(), want) {
		t.Errorf("no %q in\n%v", want, r.log)
	}
	if heard := strings.Join(rec.heard, "\n"); !strings.Contains(heard, "tell tls TLSv1.3:TLS_AES_128_GCM_SHA256:128\n") ||
		!strings.Contains(heard, fmt.Sprintf("ask %d \n", PhaseStartTLS)) {
		t.Errorf("filters saw\n%s", heard)
	}
}

func TestSMTPS(t *testing.T) {
	r, a := tlsRig(t, smtps)
	nc := tls.Client(r.dial(t), a.Client("mx.example.com"))
	c := talk(t, nc)
	c.want("", "220 mx.example.com ESMTP")
	if offer := c.ehlo(); strings.Contains(offer, "STARTTLS") {
		t.Errorf("offers %q", offer)
	}
	// A message of many records, and pipelined.
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000)
	go func() {
		_, _ = io.WriteString(nc, "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n\r\n"+body+".\r\nQUIT\r\n")
	}()
	for _, want := range []string{"250", "250", "354", "250", "221"} {
		c.want("", want)
	}
	<-r.mem.done
	got := r.mem.accepted()
	if len(got) != 1 || !strings.HasSuffix(got[0].body.String(), strings.ReplaceAll(body, "\r\n", "\n")) {
		t.Errorf("%d messages", len(got))
	}
	if n := strings.Count(r.log.String(), "smtp disconnected reason=quit"); n != 1 {
		t.Errorf("log\n%v", r.log)
	}
}

func TestNotOffered(t *testing.T) {
	for _, r := range []*rig{newRig(t)} {
		c := talk(t, r.dial(t))
		c.want("", "220")
		if offer := c.ehlo(); strings.Contains(offer, "STARTTLS") {
			t.Errorf("offers %q", offer)
		}
		c.want("STARTTLS", "503 5.5.1 Invalid command: Command not supported")
	}
	r, a := tlsRig(t, smtps)
	c := talk(t, tls.Client(r.dial(t), a.Client("mx.example.com")))
	c.want("", "220")
	c.ehlo()
	c.want("STARTTLS", "503 5.5.1 Invalid command: Channel already secured")
}

func TestTLSRequired(t *testing.T) {
	r, a := tlsRig(t, func(l *TLS, _ *pki.Server) { l.Require = true })
	c := talk(t, r.dial(t))
	c.want("", "220")
	c.ehlo()
	c.want("MAIL FROM:<a@example.org>", "530 5.7.0 Must issue a STARTTLS command first")
	c.want("NOOP", "250")
	c = c.startTLS(a.Client("mx.example.com"))
	c.ehlo()
	c.want("MAIL FROM:<a@example.org>", "250")
}

// TestClientCertificate holds that verify wants one, and what is said of it.
func TestClientCertificate(t *testing.T) {
	for _, shown := range []bool{true, false} {
		r, a := tlsRig(t, nil)
		s := pki.Server{Chains: []*pki.Chain{a.Chain(pkitest.ECDSA, "mx.example.com")}, Ask: a.Sign, Verify: true, Authorities: a.Pool()}
		cfg, err := s.Config(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		r.ln.TLS = &TLS{Config: cfg, Verify: true}
		c := talk(t, r.dial(t))
		c.want("", "220")
		c.ehlo()
		client := a.Client("mx.example.com")
		if shown {
			client.Certificates = []tls.Certificate{a.Identity("client.example")}
		}
		c = c.startTLS(client)
		if !shown {
			if _, err := c.nc.Read(make([]byte, 1)); err == nil {
				t.Error("a client without a certificate is served")
			}
			<-r.mem.done
			if !strings.Contains(r.log.String(), `disconnected reason="io-error: TLS handshake failed: tls: client didn't provide a certificate"`) {
				t.Errorf("log\n%v", r.log)
			}
			continue
		}
		c.ehlo()
		c.want("MAIL FROM:<a@example.org>", "250")
		c.want("RCPT TO:<b@example.com>", "250")
		c.want("DATA", "354")
		c.want(".", "250")
		c.want("QUIT", "221")
		<-r.mem.done
		if m := r.mem.accepted()[0].body.String(); !strings.Contains(m, ":128:YES)") {
			t.Errorf("kept %q", m)
		}
		if !strings.Contains(r.log.String(), `smtp cert-check result="verified" fingerprint="SHA256:`) {
			t.Errorf("log\n%v", r.log)
		}
	}
}

// TestCVE20110411 holds that nothing a client sent in clear is obeyed inside TLS.
func TestCVE20110411(t *testing.T) {
	for _, behind := range []string{"RSET\r\n", "MAIL FROM:<evil@example.org>\r\n", "x", "\r\n"} {
		r, _ := tlsRig(t, nil)
		nc := r.dial(t)
		c := talk(t, nc)
		c.want("", "220")
		c.ehlo()
		if _, err := io.WriteString(nc, "STARTTLS\r\n"+behind); err != nil {
			t.Fatal(err)
		}
		c.want("", "500 5.5.1 Invalid command: Nothing may follow STARTTLS before TLS")
		if rest, err := io.ReadAll(c.in); err != nil || len(rest) > 0 {
			t.Errorf("%q: then %q, %v", behind, rest, err)
		}
	}
	// What comes a moment later is taken for a handshake, which it is not.
	r, _ := tlsRig(t, nil)
	nc := r.dial(t)
	c := talk(t, nc)
	c.want("", "220")
	c.ehlo()
	c.want("STARTTLS", "220")
	if _, err := io.WriteString(nc, "MAIL FROM:<evil@example.org>\r\n"); err != nil {
		t.Fatal(err)
	}
	<-r.mem.done
	if !strings.Contains(r.log.String(), "TLS handshake failed: tls: first record does not look like a TLS handshake") {
		t.Errorf("log\n%v", r.log)
	}
}

// TestCVE20132125 shows that clients who do not go on with a handshake keep
// nobody waiting, whether they have said nothing, a part of what begins one, or
// all of that; and that their time ends.
func TestCVE20132125(t *testing.T) {
	const stalled = 200
	r, a := tlsRig(t, smtps)
	hello := clientHello(t)
	for i := range stalled {
		nc := r.dial(t)
		if _, err := nc.Write(hello[:i*len(hello)/(stalled-1)]); err != nil {
			t.Fatal(err)
		}
	}
	// No clock has moved: a server that waited for any of them would not answer.
	c := talk(t, tls.Client(r.dial(t), a.Client("mx.example.com")))
	c.want("", "220")
	c.want("QUIT", "221")
	<-r.mem.done
	for range stalled {
		r.outlast(handshakeTime / 4)
	}
	if n := strings.Count(r.log.String(), "disconnected reason=timeout"); n != stalled {
		t.Errorf("%d have run out of time", n)
	}
}

// clientHello is what a client begins a handshake with.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() // cut below
		client.Close()
	}()
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestTLSDrip feeds a session its records in pieces, between which it waits.
func TestTLSDrip(t *testing.T) {
	r, a := tlsRig(t, smtps)
	tap := &dripper{Conn: r.dial(t), size: 7}
	c := talk(t, tls.Client(tap, a.Client("mx.example.com")))
	c.want("", "220")
	for range 3 {
		c.want("NOOP", "250")
	}
	c.want("QUIT", "221")
	<-r.mem.done
}

// dripper writes in small pieces.
type dripper struct {
	net.Conn
	size int
}

func (d *dripper) Write(b []byte) (int, error) {
	for n := 0; n < len(b); n += d.size {
		if _, err := d.Conn.Write(b[n:min(n+d.size, len(b))]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// TestTLSNeverReads holds that a client which asks and does not read, in TLS, has
// its time.
func TestTLSNeverReads(t *testing.T) {
	r, a := tlsRig(t, smtps)
	raw := r.dial(t)
	if err := raw.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	nc := tls.Client(raw, a.Client("mx.example.com"))
	c := talk(t, nc)
	c.want("", "220")
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		block := bytes.Repeat([]byte("HELP\r\n"), 1000)
		for {
			if _, err := nc.Write(block); err != nil {
				return
			}
		}
	}()
	r.outlast(idleTime / 10)
	raw.Close()
	<-asked
}

// TestStopInHandshake holds that a server which stops does not wait for a
// handshake.
func TestStopInHandshake(t *testing.T) {
	r, _ := tlsRig(t, smtps)
	r.dial(t)
	r.Stop(context.Background()) // without end
	if !strings.Contains(r.log.String(), "disconnected reason=quit") {
		t.Errorf("log\n%v", r.log)
	}
}

// TestTLSWokenForNothing holds that a wake which means nothing breaks no TLS, in
// the middle of a read or a write.
func TestTLSWokenForNothing(t *testing.T) {
	r, a := tlsRig(t, smtps)
	c := talk(t, tls.Client(r.dial(t), a.Client("mx.example.com")))
	c.want("", "220")
	for i := range 50 {
		r.mu.Lock()
		for s := range r.sessions {
			r.wake(s)
		}
		r.mu.Unlock()
		c.want(fmt.Sprintf("NOOP %d", i), "250")
	}
}

// TestSigningFails holds that a crypto process that fails costs the session
// alone.
func TestSigningFails(t *testing.T) {
	r, a := tlsRig(t, func(l *TLS, s *pki.Server) {
		l.Immediate = true
		s.Ask = func(context.Context, *msg.Sign) ([]byte, error) { return nil, io.ErrUnexpectedEOF }
	})
	if err := tls.Client(r.dial(t), a.Client("mx.example.com")).Handshake(); err == nil {
		t.Error("a handshake without a signature")
	}
	<-r.mem.done
	if !strings.Contains(r.log.String(), "failed to sign handshake: signing: unexpected EOF") {
		t.Errorf("log\n%v", r.log)
	}
}

// FuzzTLSSession throws anything at a live session in TLS, over a socket, in
// records and segments of all sizes: it ends with its client and leaves nothing
// behind, and every reply is one.
func FuzzTLSSession(f *testing.F) {
	f.Add([]byte(script+"QUIT\r\n"), uint8(0), uint8(3))
	f.Add([]byte("EHLO x\r\nSTARTTLS\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n\r\n.\r\n.\r\n"), uint8(1), uint8(0))
	f.Add([]byte("HELO [::1]\r\nNOOP\nRSET\r\r\n\x00\r\nAUTH PLAIN\r\n"), uint8(200), uint8(17))
	f.Fuzz(func(t *testing.T, input []byte, record, segment uint8) {
		r, a := tlsRig(t, smtps)
		tap := &dripper{Conn: r.dial(t), size: 1 << 20}
		nc := tls.Client(tap, a.Client("mx.example.com"))
		if err := nc.Handshake(); err != nil {
			t.Fatal(err)
		}
		tap.size = int(segment) + 1
		in := bufio.NewReader(nc)
		answer(t, in)
		replies := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(in) // it ends with an error when we close
			replies <- b
		}()
		go func() {
			_, _ = (&dripper{Conn: nc, size: int(record) + 1}).Write(input)
			nc.Close()
		}()
		r.outlast(errorPause)
		for line := range strings.SplitAfterSeq(string(<-replies), "\r\n") {
			if strings.HasSuffix(line, "\r\n") {
				checkReply(t, input, line)
			}
		}
		if n := r.mem.pending(); n != 0 {
			t.Errorf("%q leaves %d messages", input, n)
		}
	})
}

// FuzzTLSStart throws anything at a handshake.
func FuzzTLSStart(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("\x80\x2e\x01\x00\x02"))
	f.Fuzz(func(t *testing.T, input []byte) {
		r, _ := tlsRig(t, smtps)
		client, nc := net.Pipe()
		r.Serve(nc, r.ln, Client{Addr: r.local})
		go func() { _, _ = io.Copy(io.Discard, client) }()
		go func() { _, _ = client.Write(input); client.Close() }()
		<-r.mem.done
	})
}

// prefixed puts bytes before the first that are written, into the same segment.
type prefixed struct {
	net.Conn
	before []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	if p.before == nil {
		return p.Conn.Write(b)
	}
	n, err := p.Conn.Write(append(p.before, b...))
	n, p.before = max(n-len(p.before), 0), nil
	return n, err
}

// TestProxiedSMTPS begins the handshake in the segment of a proxy's header.
func TestProxiedSMTPS(t *testing.T) {
	r, a := tlsRig(t, smtps)
	r.ln.Proxy = true
	header := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\xc0\x00\x02\x01\x30\x39\x00\x19"
	nc := tls.Client(&prefixed{r.dial(t), []byte(header)}, a.Client("mx.example.com"))
	c := talk(t, nc)
	if err := nc.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.want("", "220 mx.example.com ESMTP OpenSMTPD")
	c.want("HELO x", "250 mx.example.com Hello x [198.51.100.7], pleased to meet you")
}
