package dispatcher

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// world plays lookup and queue.
type world struct {
	mu        sync.Mutex
	next      mail.MessageID
	expanded  []msg.Expand
	committed []msg.Commit
	bodies    map[mail.MessageID]string
	discarded []mail.MessageID
	fail      *mailerr.Error // of every call to queue
	full      *mailerr.Error // of commits
	silent    bool           // names are not answered
	asked     int            // names
	secrets   []msg.Authenticate
	sign      pki.Oracle // what crypto does; nil: it is not asked
}

func (w *world) Send(_ context.Context, m msg.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := m.(type) {
	case *msg.BodyChunk:
		w.bodies[m.Message] += string(m.Data)
	case *msg.Discard:
		w.discarded = append(w.discarded, m.Message)
	default:
		return errors.New("unexpected message")
	}
	return nil
}

func (w *world) Call(ctx context.Context, m msg.Message, reply msg.Parser) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := m.(type) {
	case *msg.ReserveIDs:
		if w.fail != nil {
			return w.fail
		}
		r := reply.(*msg.ReservedIDs)
		for range m.N {
			w.next++
			r.IDs = append(r.IDs, w.next)
		}
	case *msg.RDNS:
		return w.name(ctx, reply.(*msg.RDNSReply))
	case *msg.Sign:
		sig, err := w.sign(ctx, m)
		reply.(*msg.Signed).Signature = sig
		return err
	case *msg.Expand:
		w.expanded = append(w.expanded, *m)
		r := reply.(*msg.Expanded)
		r.Added = 1
		if m.Rcpt.Local == "nobody" {
			*r = msg.Expanded{Err: &mailerr.Error{Class: mailerr.Perm, Code: 550, Text: "Invalid recipient"}}
		}
	case *msg.Authenticate:
		w.secrets = append(w.secrets, *m)
		*reply.(*msg.Authenticated) = msg.Authenticated{OK: m.Password == "secret"}
		if m.User == "trouble" {
			*reply.(*msg.Authenticated) = msg.Authenticated{Err: mailerr.Local(errors.New("table gone"))}
		}
	case *msg.Query:
		*reply.(*msg.Answer) = msg.Answer{Found: m.Key == "bob", Value: map[string]string{"senders": "bob@example.org, @bob.example"}[m.Table]}
	case *msg.Commit:
		if w.full != nil {
			return w.full
		}
		w.bodies[m.Message] += string(m.Body)
		c := *m
		c.Body = nil
		w.committed = append(w.committed, c)
	default:
		return errors.New("unexpected call")
	}
	return nil
}

func (w *world) name(ctx context.Context, r *msg.RDNSReply) error {
	w.asked++
	if w.silent {
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return ctx.Err()
	}
	r.Name, r.Forward = "client.example.org", true
	return nil
}

func (w *world) CallFile(context.Context, msg.Message, msg.Parser) (*os.File, error) {
	return nil, errors.New("not used")
}

func (w *world) SendFile(context.Context, msg.Message, *os.File) error { return errors.New("not used") }

// rig is a dispatcher whose other processes are played.
type rig struct {
	*Role
	t    *testing.T
	w    *world
	clk  *clock.Fake
	log  *mlog.Memory
	stop func()
}

// listen returns a listener's address and its descriptor, as parent hands it.
func listen(t *testing.T) (string, *os.File) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), f
}

// generationOf makes a configuration with the listeners ids, opening those in
// fresh, and returns their addresses.
func generationOf(t *testing.T, gen mail.Gen, hostname string, ids []string, fresh ...string) (proc.Conf, map[string]string) {
	t.Helper()
	p := project.DispatcherConf{ServerName: hostname, MaxMessageSize: 1 << 20, MaxMails: 100, MaxRcpt: 1000}
	for _, id := range ids {
		p.Listeners = append(p.Listeners, project.Listener{Identity: id, Hostname: hostname, Tag: "tag-" + id, Addr: netip.MustParseAddrPort("127.0.0.1:25")})
	}
	p.Listeners = append(p.Listeners, project.Listener{Identity: "socket", Socket: true, Local: true, Hostname: hostname})
	b, err := project.Encode(&p)
	if err != nil {
		t.Fatal(err)
	}
	c := proc.Conf{Gen: gen, Projection: b}
	at := make(map[string]string)
	for _, id := range fresh {
		addr, f := listen(t)
		at[id] = addr
		c.Files = append(c.Files, proc.File{Identity: id, File: f})
	}
	return c, at
}

// newRig runs a dispatcher with one listener "a" until the test ends.
func newRig(t *testing.T, tune ...func(*proc.Env)) (*rig, string) {
	t.Helper()
	c, at := generationOf(t, 1, "mx.example.com", []string{"a"}, "a")
	w := &world{next: 0x20000000, bodies: make(map[mail.MessageID]string)}
	clk := clock.NewFake(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	log := new(mlog.Memory)
	env := proc.Env{
		Role: proc.Dispatcher, Clock: clk, Log: mlog.New(log, true), Conf: c, Grace: 4 * time.Second,
		Peers: map[proc.Role]proc.Caller{proc.Lookup: w, proc.Queue: w, proc.Crypto: w},
	}
	for _, f := range tune {
		f(&env)
	}
	role, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- role.Run(ctx) }()
	var once sync.Once
	r := &rig{Role: role, t: t, w: w, clk: clk, log: log}
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(r.stop)
	return r, at["a"]
}

// request is what a handler is given.
type request struct {
	from  proc.Role
	m     msg.Message
	file  *os.File
	reply msg.Message
	err   *mailerr.Error
}

func (q *request) From() proc.Role                     { return q.from }
func (q *request) Type() msg.Type                      { return q.m.Type() }
func (q *request) Body() []byte                        { return q.m.Append(nil) }
func (q *request) Parse(m msg.Parser) error            { return m.Parse(q.Body()) }
func (q *request) File() *os.File                      { return q.file }
func (q *request) Row(msg.Message)                     {}
func (q *request) Reply(m msg.Message)                 { q.reply = m }
func (q *request) ReplyFile(m msg.Message, _ *os.File) { q.reply = m }
func (q *request) Fail(err *mailerr.Error)             { q.err = err }

// deliver gives a message to the handler of its row.
func (r *rig) deliver(q *request) *request {
	r.t.Helper()
	for _, h := range r.Handlers() {
		if h.From == q.from && h.Type == q.m.Type() {
			h.Do(context.Background(), q)
			return q
		}
	}
	r.t.Fatalf("no row for %T from %s", q.m, q.from)
	return nil
}
