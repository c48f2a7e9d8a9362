package mda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/mbox"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

// office plays parent: users have directories below dir, agents are goroutines.
type office struct {
	t       testing.TB
	dir     string
	conf    msg.AgentConf
	clock   clock.Clock
	command bool
	uid     func(user string) uint32
	refuse  func(m *msg.Agent) *mailerr.Error
	// agent, when set, is run instead of the real one.
	agent func(queue *imsg.Conn)

	mu       sync.Mutex
	spawned  int
	ended    []uint64
	agents   sync.WaitGroup
	unlocked int
}

func newOffice(t testing.TB, c msg.AgentConf) *office {
	c.UID = uint32(os.Getuid())
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	o := &office{t: t, dir: t.TempDir(), conf: c, clock: clock.NewSystem(), command: conf.Method(c.Method) == conf.MDA}
	o.uid = func(string) uint32 { return o.conf.UID }
	return o
}

func (o *office) home(user string) string { return filepath.Join(o.dir, user) }

func (o *office) Send(_ context.Context, m msg.Message) error {
	if e, ok := m.(*msg.AgentEnd); ok {
		o.mu.Lock()
		o.ended = append(o.ended, e.ID)
		o.mu.Unlock()
	}
	return nil
}
func (o *office) SendFile(context.Context, msg.Message, *os.File) error { return errors.New("unused") }

func (o *office) Call(_ context.Context, m msg.Message, reply msg.Parser) error {
	a := m.(*msg.Agent)
	r := reply.(*msg.AgentReply)
	if o.refuse != nil {
		if r.Err = o.refuse(a); r.Err != nil {
			r.Stat = r.Err.Text
			return nil
		}
	}
	uid := o.uid(a.User)
	*r = msg.AgentReply{UID: uid, GID: uid, Name: a.User, Home: o.home(a.User), RunHome: o.home(a.User), Command: o.command}
	return nil
}

func (o *office) CallFile(ctx context.Context, m msg.Message, reply msg.Parser) (*os.File, error) {
	if err := o.Call(ctx, m, reply); err != nil || reply.(*msg.AgentReply).Err != nil {
		return nil, err
	}
	o.mu.Lock()
	o.spawned++
	reply.(*msg.AgentReply).ID = uint64(o.spawned)
	o.mu.Unlock()
	ours, theirs, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	queue, agent, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	link, err := imsg.NewConn(ours)
	if err != nil {
		return nil, err
	}
	link.Put(imsg.Header{Type: uint16(msg.TypeAgentConf)}, &o.conf, nil)
	o.agents.Go(func() { o.link(link) })
	o.agents.Go(func() {
		if o.agent != nil {
			theirs.Close()
			c, err := imsg.NewConn(agent)
			if err != nil {
				o.t.Error(err)
				return
			}
			o.agent(c)
			c.Close()
			return
		}
		if err := Serve(context.Background(), theirs, agent); err != nil {
			o.t.Errorf("agent: %v", err)
		}
	})
	return queue, nil
}

// link serves mailboxes below dir.
func (o *office) link(link *imsg.Conn) {
	defer link.Close()
	for {
		f, err := link.Next()
		if err != nil {
			return
		}
		if msg.Type(f.Type) == msg.TypeMailboxDone {
			o.mu.Lock()
			o.unlocked++
			o.mu.Unlock()
			continue
		}
		var m msg.Mailbox
		if err := m.Parse(f.Body); err != nil {
			o.t.Error(err)
			return
		}
		var reply msg.MailboxReply
		box, err := mbox.Open(o.dir+"/"+m.User+".mbox", false)
		if err != nil {
			reply.Err = mailerr.Local(err)
		}
		link.Put(imsg.Header{Type: uint16(msg.TypeMailboxReply), Flags: imsg.FlagReply, Call: f.Call}, &reply, box)
	}
}

// pool returns a pool on the office that ends with the test.
func (o *office) pool(opt Options) *Pool {
	opt.Clock = o.clock
	p := NewPool(o, opt)
	o.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Close(ctx)
		o.agents.Wait()
	})
	return p
}

func newEnvelope(user string) *envelope.Envelope {
	return &envelope.Envelope{
		ID: mail.EnvelopeAt(1, 1), Action: "local", MDAUser: user,
		Sender: addr.Address{Local: "bob", Domain: "sender.example"},
		Rcpt:   addr.Address{Local: "info", Domain: "example.org"},
		Dest:   addr.Address{Local: user, Domain: "example.org"},
	}
}

const added = "Return-Path: <bob@sender.example>\nDelivered-To: info@example.org\n"

// deliver gives a delivery to the pool and waits for its result.
func deliver(p *Pool, e *envelope.Envelope, body string) Result {
	return wait(p, &Delivery{Gen: 1, Envelope: e, Size: int64(len(body)), Body: []byte(body)})
}

func wait(p *Pool, d *Delivery) Result {
	ch := make(chan Result, 1)
	d.Done = func(r Result) { ch <- r }
	p.Deliver(d)
	return <-ch
}

func contents(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	sort.Strings(all)
	return all
}

func expect(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := contents(t, dir); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%s holds %.300q, want %.300q", dir, got, want)
	}
}

func check(t *testing.T, what string, r Result, class mailerr.Class, stat string) {
	t.Helper()
	switch {
	case class == 0 && (r.Err != nil || r.Stat != "Delivered"):
		t.Errorf("%s: %q, %v", what, r.Stat, r.Err)
	case class != 0 && (r.Err == nil || r.Err.Class != class || !strings.Contains(r.Stat, stat)):
		t.Errorf("%s: %q, %v, want %v, %q", what, r.Stat, r.Err, class, stat)
	}
}

// failing is a body that cannot be read beyond n bytes.
type failing struct{ n int64 }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.n {
		return 0, io.ErrUnexpectedEOF
	}
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
