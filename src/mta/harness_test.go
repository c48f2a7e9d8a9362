package mta

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an MTA with everything around it made up, but for TCP on loopback.
type world struct {
	*MTA
	t     *testing.T
	clock clock.Clock
	fake  *clock.Fake
	last  uint64

	mu      sync.Mutex
	log     mlog.Memory
	servers map[netip.AddrPort]string // where a made-up address really listens
	dialed  []netip.AddrPort
	mx      map[string]*msg.MXReply
	tables  map[string][]string // "table/key" or, to be fetched, "table"
	asked   []string
	bodies  map[uint64][]byte
	taken   []uint64
	results chan *msg.RelayResult
}

const defaultRelay = "out"

func dispatcherConf(change func(*project.DispatcherConf)) *project.DispatcherConf {
	p := &project.DispatcherConf{
		ServerName: "mx.here.example",
		MTALimits: []project.MTALimits{{
			MaxConnPerHost: 10, MaxConnPerRoute: 5, MaxConnPerSource: 100, MaxConnPerConnector: 20, MaxConnPerRelay: 100,
			MaxConnPerDomain: 100, ConnDelayRoute: 5 * time.Second, ConnDelayRelay: 2 * time.Second, ReconnDelayRoute: 3 * time.Second,
			SessionMailMax: 100, SessionKeepalive: time.Hour, MaxFailuresPerSession: 25,
			TaskHiwat: 50, TaskLowat: 30, TaskRelease: 10,
		}},
		Relays: []project.RelayAction{{Name: defaultRelay}},
	}
	if change != nil {
		change(p)
	}
	return p
}

// newWorld starts an MTA; with fake its time stands still.
func newWorld(t *testing.T, fake bool, change func(*project.DispatcherConf)) *world {
	t.Helper()
	w := &world{
		t: t, clock: clock.NewSystem(), servers: make(map[netip.AddrPort]string), mx: make(map[string]*msg.MXReply),
		tables: make(map[string][]string), bodies: make(map[uint64][]byte), results: make(chan *msg.RelayResult, 1000),
	}
	if fake {
		w.fake = clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
		w.clock = w.fake
	}
	var id atomic.Uint64
	w.MTA = New(Options{
		Clock: w.clock, Log: mlog.New(&w.log, true), Queue: w, Lookup: w, Dial: w.dial,
		NewID: func() uint64 { return id.Add(1) },
	}, w.config(change))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() {
		now, end := context.WithCancel(context.Background())
		end()
		w.Stop(now)
		cancel()
		running.Wait()
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	return w
}

func (w *world) config(change func(*project.DispatcherConf)) *Config {
	c, err := NewConfig(1, dispatcherConf(change), authority(w.t).pem, func(string) ([]byte, error) { return nil, errors.New("none") })
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) Taken(task uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, task)
}

func (w *world) Body(_ context.Context, task, offset uint64, buf []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, ok := w.bodies[task]
	if !ok {
		return nil, errors.New("no such body")
	}
	b = b[min(offset, uint64(len(b))):]
	return append(buf[:0], b[:min(len(b), msg.MaxRelayBody)]...), nil
}

func (w *world) Result(m *msg.RelayResult) { w.results <- m }

func (w *world) MX(_ context.Context, m *msg.MX) (*msg.MXReply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, fmt.Sprintf("mx %s %v", m.Domain, m.Host))
	if r := w.mx[m.Domain]; r != nil {
		return r, nil
	}
	if a, err := netip.ParseAddr(m.Domain); err == nil {
		return &msg.MXReply{TTL: time.Hour, Hosts: []msg.MXHost{{Name: m.Domain, Addrs: []netip.Addr{a}}}}, nil
	}
	return &msg.MXReply{Err: mailerr.Permanent(550, 1, 2, "Domain does not exist", nil)}, nil
}

func (w *world) Table(_ context.Context, m *msg.RelayLookup) (*msg.RelayLookupReply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := m.Table
	if m.Key != "" {
		key += "/" + m.Key
	}
	w.asked = append(w.asked, key)
	list := w.tables[key]
	if len(list) == 0 {
		return &msg.RelayLookupReply{}, nil
	}
	r := &msg.RelayLookupReply{Found: true, Value: list[0]}
	if m.Service == msg.RelaySecret {
		r.Value, r.Password, _ = strings.Cut(list[0], ":")
	} else if m.Key == "" {
		w.tables[key] = append(list[1:], list[0])
	}
	return r, nil
}

// nameless is a server without a name in the DNS.
const nameless = "192.0.2.99"

func (w *world) Name(_ context.Context, a netip.Addr) string {
	if a.String() == nameless {
		return ""
	}
	return "host.example"
}

// dial leads made-up addresses to the listeners of a test; where there is none
// the connection is refused.
func (w *world) dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	real := w.servers[to]
	w.dialed = append(w.dialed, to)
	w.mu.Unlock()
	if from.IsValid() && from.String() == "192.0.2.254" {
		return nil, &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}
	}
	if real == "" {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", real)
}

// server lets serve answer the connections to a made-up address.
func (w *world) server(address string, serve func(net.Conn)) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	to := netip.MustParseAddrPort(address)
	w.mu.Lock()
	w.servers[to] = l.Addr().String()
	w.mu.Unlock()
	w.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// domain gives a domain its servers, as "pref name address [local]".
func (w *world) domain(name string, servers ...string) {
	r := &msg.MXReply{TTL: time.Hour}
	for _, s := range servers {
		var h msg.MXHost
		var a, local string
		if _, err := fmt.Sscan(s+" no", &h.Pref, &h.Name, &a, &local); err != nil {
			w.t.Fatal(err)
		}
		h.Addrs, h.Local = []netip.Addr{netip.MustParseAddr(a)}, []bool{local == "local"}
		r.Hosts = append(r.Hosts, h)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mx[name] = r
}

const testBody = "From: a@here.example\nTo: b@far.example\n\nhello\n.dot\n"

// task is a message for recipients.
func (w *world) task(rcpts ...string) *msg.RelayTask {
	w.last++
	t := &msg.RelayTask{Task: w.last, Gen: 1, Size: uint64(len(testBody)), Inline: true, Body: []byte(testBody)}
	for i, r := range rcpts {
		to := addr.Cut(r)
		t.Envelopes = append(t.Envelopes, envelope.Envelope{
			ID: mail.EnvelopeAt(mail.MessageID(w.last), uint32(i)), Type: envelope.MTA, Action: defaultRelay,
			Sender: addr.Cut("sender@here.example"), Rcpt: to, Dest: to, Created: w.clock.Now(),
		})
	}
	return t
}

// send submits a task and waits for its result.
func (w *world) send(t *msg.RelayTask) *msg.RelayResult {
	w.t.Helper()
	w.Submit(t)
	return w.result(t.Task)
}

func (w *world) result(task uint64) *msg.RelayResult {
	w.t.Helper()
	r := <-w.results
	if r.Task != task {
		w.t.Fatalf("result of task %d, want %d", r.Task, task)
	}
	return r
}

// outcome is a result in one line for each recipient.
func outcomes(r *msg.RelayResult) string {
	var b strings.Builder
	for i := range r.Results {
		o := &r.Results[i]
		switch {
		case o.Returned:
			b.WriteString("returned\n")
		case o.Err == nil:
			fmt.Fprintf(&b, "ok %s\n", o.Line)
		default:
			fmt.Fprintf(&b, "%s %v %s\n", o.Err.Class, o.Err.Enhanced, o.Line)
		}
	}
	return b.String()
}

// script is a server that says what a test wants to some commands, and agrees to
// the others. What it is told is kept.
type script struct {
	say  map[string]string // by verb; BANNER and END too; "" closes; %s is the address
	tls  *tls.Config
	smtp bool // TLS from the beginning

	mu    sync.Mutex
	heard []string
	mails []string
	conns int
}

func (s *script) reply(verb, normal string) string {
	if r, ok := s.say[verb]; ok {
		return r
	}
	return normal
}

// serve speaks SMTP. The reply to a recipient may be set by "RCPT user".
func (s *script) serve(nc net.Conn) {
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	if s.smtp {
		nc = tls.Server(nc, s.tls)
	}
	r := bufio.NewReader(nc)
	say := func(text string) bool {
		if text == "" {
			return false
		}
		_, err := io.WriteString(nc, text+"\r\n")
		return err == nil
	}
	ok := say(s.reply("BANNER", "220 far.example ESMTP"))
	for ok {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.heard = append(s.heard, line)
		s.mu.Unlock()
		verb, arg, _ := strings.Cut(line, " ")
		switch verb {
		case "EHLO", "LHLO":
			ehlo := "250-far.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 1000000\r\n250-ENHANCEDSTATUSCODES\r\n250 DSN"
			if s.tls != nil && !s.smtp {
				ehlo = strings.Replace(ehlo, "250-PIPE", "250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n250-PIPE", 1)
			}
			ok = say(s.reply(verb, ehlo))
		case "STARTTLS":
			if ok = say(s.reply(verb, "220 go on")); ok && s.say[verb] == "" {
				t := tls.Server(nc, s.tls)
				if t.Handshake() != nil {
					return
				}
				nc, r = t, bufio.NewReader(t)
			}
		case "RCPT":
			user, _, _ := strings.Cut(strings.TrimPrefix(arg, "TO:<"), "@")
			ok = say(s.reply("RCPT "+user, s.reply(verb, "250 2.1.5 ok")))
		case "DATA":
			text := s.reply(verb, "354 go on")
			if ok = say(text); ok && strings.HasPrefix(text, "354") {
				ok = s.data(r) && say(s.reply("END", "250 2.0.0 taken"))
			}
		case "QUIT":
			say("221 2.0.0 bye")
			return
		default:
			ok = say(s.reply(verb, "250 2.0.0 ok"))
		}
	}
}

func (s *script) data(r *bufio.Reader) bool {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			s.mu.Lock()
			s.mails = append(s.mails, b.String())
			s.mu.Unlock()
			return true
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

// said returns what the server was told with this prefix.
func (s *script) said(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.heard), func(l string) bool { return !strings.HasPrefix(l, prefix) })
}

func (s *script) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

func (s *script) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// ca is a certificate authority of the tests.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func authority(t *testing.T) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// server returns the configuration of a server with a certificate for names.
func (a *ca) server(t *testing.T, names ...string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(10, 0, 0), DNSNames: names,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// crlf is a message as it goes over the wire, without dots doubled.
func crlf(s string) string { return string(bytes.ReplaceAll([]byte(s), []byte("\n"), []byte("\r\n"))) }
