package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/smtp"
)

// memory is a Backend that keeps messages.
type memory struct {
	mu        sync.Mutex
	next      mail.MessageID
	open      map[mail.MessageID]*stored
	messages  []*stored
	discarded int
	done      chan struct{}  // receives once for each session that is over
	closed    *mailerr.Error // Begin's answer while intake is closed
	failing   *mailerr.Error // Commit's answer
	chunks    int
	name      Name
	asked     []string // "user password" that were verified
	broken    bool     // nobody can be verified
	proof     func(first, challenge, final string) Proof
}

type stored struct {
	id   mail.MessageID
	from addr.Address
	to   []addr.Address
	body strings.Builder
	// optional is Transaction.TLSOptional.
	optional bool
}

func newMemory() *memory {
	return &memory{next: 0x10000000, done: make(chan struct{}, 1<<16), open: make(map[mail.MessageID]*stored), name: Name{Host: "client.example.org", Forward: true}}
}

// Admit turns one address away.
func (m *memory) Admit(s *Session) *mailerr.Error {
	if s.Client.Addr.Addr() == netip.MustParseAddr("192.0.2.66") {
		return &mailerr.Error{Class: mailerr.Drop, Code: 421, Enhanced: mailerr.Enhanced{4, 7, 0}, Text: "Too many"}
	}
	return nil
}

// Hostname knows the server address of the header in the dialogues.
func (m *memory) Hostname(_ context.Context, s *Session) string {
	if s.Client.To == netip.MustParseAddr("192.0.2.1") {
		return "other.example.com"
	}
	return ""
}

func (m *memory) Lookup(context.Context, netip.Addr) Name { return m.name }

func (m *memory) Begin(context.Context) (mail.MessageID, *mailerr.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed != nil {
		return 0, m.closed
	}
	m.next++
	m.open[m.next] = &stored{id: m.next}
	return m.next, nil
}

// Authenticate knows users whose password is their name in capitals.
func (m *memory) Authenticate(_ context.Context, _ *Session, user, password string) (bool, *mailerr.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, user+" "+password)
	if m.broken {
		return false, mailerr.Local(errors.New("table gone"))
	}
	return strings.ToUpper(user) == password, nil
}

// OffersScram and Scram play back what a test wants.
func (m *memory) OffersScram(context.Context, *Session) bool { return m.proof != nil }

func (m *memory) Scram(_ context.Context, _ *Session, first, challenge, final string) (Proof, *mailerr.Error) {
	if first == "trouble" {
		return Proof{User: "bob"}, mailerr.Local(errors.New("table gone"))
	}
	return m.proof(first, challenge, final), nil
}

// MaySend lets users send as themselves at example.org.
func (m *memory) MaySend(_ context.Context, s *Session, from addr.Address) (bool, *mailerr.Error) {
	if from.Local == "trouble" {
		return false, mailerr.Local(errors.New("table gone"))
	}
	return from.String() == s.User+"@example.org", nil
}

func (m *memory) Rcpt(_ context.Context, _ *Session, _ *Transaction, r *smtp.Rcpt) (uint32, *mailerr.Error) {
	switch r.To.Local {
	case "nobody":
		return 0, &mailerr.Error{Class: mailerr.Perm, Code: 550, Text: "Invalid recipient"}
	case "later":
		return 0, &mailerr.Error{Class: mailerr.Temp, Code: 451, Text: "Temporary failure"}
	case "list":
		return 3, nil
	}
	return 1, nil
}

func (m *memory) Chunk(_ context.Context, t *Transaction, data []byte) *mailerr.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks++
	if len(data) > largeBody {
		return mailerr.Local(nil)
	}
	m.open[t.ID].body.Write(data)
	return nil
}

func (m *memory) Commit(_ context.Context, t *Transaction, body []byte) *mailerr.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing != nil {
		return m.failing
	}
	s := m.open[t.ID]
	delete(m.open, t.ID)
	s.body.Write(body)
	s.from, s.optional = t.Mail.From, t.TLSOptional
	for _, r := range t.Rcpts {
		s.to = append(s.to, r.To)
	}
	m.messages = append(m.messages, s)
	return nil
}

func (m *memory) Discard(id mail.MessageID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, id)
	m.discarded++
}

func (m *memory) Done(*Session) { m.done <- struct{}{} }

// accepted returns what was committed.
func (m *memory) accepted() []*stored {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*stored(nil), m.messages...)
}

// pending returns how many messages are neither committed nor discarded.
func (m *memory) pending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.open)
}

// rig is a server with its surroundings.
type rig struct {
	*Server
	mem   *memory
	clk   *clock.Fake
	log   *mlog.Memory
	ln    *Listener
	local netip.AddrPort // the address that clients seem to come from
	trace atomic.Bool
}

var birthday = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// outlast moves the clock on, step by step, until a session has ended.
func (r *rig) outlast(step time.Duration) {
	for {
		select {
		case <-r.mem.done:
			return
		default:
			r.clk.BlockUntil(1)
			r.clk.Advance(step)
		}
	}
}

// newRig starts a server; it is stopped when the test ends.
func newRig(t testing.TB) *rig {
	r := &rig{mem: newMemory(), clk: clock.NewFake(birthday), log: new(mlog.Memory)}
	var n uint64
	var mu sync.Mutex
	r.Server = New(Config{Backend: r.mem, Clock: r.clk, Log: mlog.New(r.log, true), NewID: func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n
	}, Trace: func(name string) bool { return name == "smtp" && r.trace.Load() }})
	r.ln = &Listener{Gen: 1, Identity: "l", Hostname: "mx.example.com",
		Settings: Settings{MaxMails: 100, MaxRcpt: 1000, MaxSize: 35 << 20}}
	r.local = netip.MustParseAddrPort("192.0.2.7:4321")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	t.Cleanup(func() {
		over, stop := context.WithCancel(context.Background())
		stop()
		r.Stop(over)
		cancel()
		<-ended
	})
	return r
}

// dial connects a client over a real socket.
func (r *rig) dial(t testing.TB) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := Client{Addr: r.local}
	if r.ln.Socket {
		c = Client{UID: 1000}
	}
	r.Serve(nc, r.ln, c)
	t.Cleanup(func() { client.Close() })
	return client
}
