package queue

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/runq"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// daemon is the queue process with everything around it made up: the disk, the
// clock, lookup, dispatcher and the delivery agents.
type daemon struct {
	*Role
	t      *testing.T
	clock  *clock.Fake
	disk   *disk.Sim
	lookup *fakeLookup
	disp   *fakeDispatcher
	agents *fakeAgents
	log    *mlog.Memory
	cancel context.CancelFunc
	ended  chan error
}

// options of a test; the zero value is a healthy start on an empty disk.
type options struct {
	disk    *disk.Sim
	clock   *clock.Fake
	conf    func(*project.QueueConf)
	relayer Relayer
	leases  bool // relayer is the real one
	paused  []string
	grace   time.Duration
	segment int64
	log     *mlog.Memory                   // nil: one of its own
	agent   func(*mda.Delivery) mda.Result // nil: everything succeeds
	expand  func(*msg.Expand) *mailerr.Error
}

// noRelayer stands in where there is nothing that relays: mail waits.
type noRelayer struct{}

func (noRelayer) Dest(_, domain string) string { return domain }
func (noRelayer) Domain(dest string) string    { return dest }
func (noRelayer) Flush()                       {}
func (noRelayer) Close(context.Context)        {}
func (noRelayer) Relay(w *Relaying) {
	w.Done(Relayed{Err: mailerr.Temporary(451, 3, 2, "No relaying on this server", nil)})
}

func projection(change func(*project.QueueConf)) []byte {
	c := &project.QueueConf{
		ServerName: "mx.example.org", TTL: 4 * 24 * time.Hour, BounceWarn: []time.Duration{4 * time.Hour},
		MDA:       project.MDALimits{MaxSession: 50, MaxSessionPerUser: 7, TaskHiwat: 50, TaskLowat: 30, TaskRelease: 10},
		Scheduler: project.SchedulerLimits{MaxInflight: 5000},
		MTA:       []project.MTALimits{{TaskHiwat: 50, TaskLowat: 30, TaskRelease: 10}},
		Actions:   []project.QueueAction{{Name: "local", Method: conf.Maildir, TTL: 4 * 24 * time.Hour}},
	}
	if change != nil {
		change(c)
	}
	b, err := project.Encode(c)
	if err != nil {
		return nil
	}
	return b
}

// prepare makes the process without running it.
func prepare(t *testing.T, o options) *daemon {
	t.Helper()
	if o.disk == nil {
		o.disk = disk.NewSim()
	}
	if o.relayer == nil && !o.leases {
		o.relayer = noRelayer{}
	}
	if o.clock == nil {
		o.clock = clock.NewFake(start)
	}
	if o.log == nil {
		o.log = new(mlog.Memory)
	}
	d := &daemon{t: t, clock: o.clock, disk: o.disk, log: o.log, ended: make(chan error, 1)}
	d.lookup = &fakeLookup{d: d, refuse: o.expand}
	d.disp = &fakeDispatcher{intake: make(chan msg.Intake, 100), tasks: make(chan *msg.RelayTask, 1000)}
	d.agents = newAgents(o.agent)
	r, err := New(proc.Env{
		Role: proc.Queue, Clock: o.clock, Log: mlog.New(d.log, true), Paused: o.paused, Grace: o.grace,
		Peers: map[proc.Role]proc.Caller{proc.Lookup: d.lookup, proc.Dispatcher: d.disp},
		Conf:  proc.Conf{Gen: 1, Projection: projection(o.conf)},
	}, Options{Disk: func() (disk.FS, error) { return o.disk, nil }, Relayer: o.relayer})
	if err != nil {
		t.Fatal(err)
	}
	r.pool = d.agents
	r.segment = max(o.segment, 1<<20)
	d.Role = r
	return d
}

// run starts the process and waits until it takes mail.
func run(t *testing.T, o options) *daemon {
	t.Helper()
	d := prepare(t, o)
	d.begin()
	return d
}

func (d *daemon) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() { d.ended <- d.Run(ctx) }()
	select {
	case <-d.ready:
	case err := <-d.ended:
		d.t.Fatalf("Run: %v", err)
	}
	d.t.Cleanup(func() {
		cancel()
		if d.ended != nil {
			<-d.ended
		}
	})
}

// stop ends the process and returns what Run did.
func (d *daemon) stop() error {
	d.cancel()
	err := <-d.ended
	d.ended = nil
	return err
}

// restart ends the process, cleanly or by a crash of the machine, and starts it
// again on what the disk then has.
func (d *daemon) crash(choose disk.Choice, o options) *daemon {
	o.disk, o.clock = d.disk.Reboot(choose), d.clock
	return run(d.t, o)
}

// request is a message to the process.
type request struct {
	role  proc.Role
	typ   msg.Type
	body  []byte
	reply chan msg.Message
	fail  chan *mailerr.Error
}

func newRequest(from proc.Role, m msg.Message) *request {
	return &request{from, m.Type(), m.Append(nil), make(chan msg.Message, 1), make(chan *mailerr.Error, 1)}
}

func (q *request) From() proc.Role                 { return q.role }
func (q *request) Type() msg.Type                  { return q.typ }
func (q *request) Body() []byte                    { return q.body }
func (q *request) Parse(m msg.Parser) error        { return m.Parse(q.body) }
func (q *request) File() *os.File                  { return nil }
func (q *request) Row(msg.Message)                 {}
func (q *request) Reply(m msg.Message)             { q.reply <- m }
func (q *request) ReplyFile(msg.Message, *os.File) {}
func (q *request) Fail(err *mailerr.Error)         { q.fail <- err }

// send hands a message to its handler, as the process that may send it.
func (d *daemon) send(m msg.Message) *request {
	d.t.Helper()
	for _, h := range d.Handlers() {
		if h.Type == m.Type() {
			q := newRequest(h.From, m)
			h.Do(context.Background(), q)
			return q
		}
	}
	d.t.Fatalf("no handler for %T", m)
	return nil
}

// reserve gets one identifier.
func (d *daemon) reserveOne() mail.MessageID {
	d.t.Helper()
	q := d.send(&msg.ReserveIDs{N: 1})
	select {
	case m := <-q.reply:
		return m.(*msg.ReservedIDs).IDs[0]
	case err := <-q.fail:
		d.t.Fatal(err)
	}
	return 0
}

// committed waits for the answer to a commit.
func (q *request) committed() *mailerr.Error {
	select {
	case m := <-q.reply:
		return m.(*msg.Committed).Err
	case err := <-q.fail:
		return err
	}
}

// mailFor is an envelope as lookup makes it.
func (d *daemon) mailFor(id mail.MessageID, n uint32, user string) envelope.Envelope {
	to := addr.Address{Local: user, Domain: "example.org"}
	return envelope.Envelope{
		ID: mail.EnvelopeAt(id, n), Type: envelope.MDA, Action: "local", SMTPName: "mx.example.org",
		Sender: addr.Cut("sender@example.org"), Rcpt: to, Dest: to, MDAUser: user,
		Created: d.clock.Now(), TTL: 4 * 24 * time.Hour,
	}
}

const text = "From: sender@example.org\nMessage-ID: <1@example.org>\n\nhello\n"

// submit sends a message through the front door and wants it accepted.
func (d *daemon) submit(envs ...func(*envelope.Envelope)) mail.MessageID {
	d.t.Helper()
	id := d.reserveOne()
	if err := d.submitAs(id, envs...); err != nil {
		d.t.Fatal(err)
	}
	return id
}

func (d *daemon) submitAs(id mail.MessageID, envs ...func(*envelope.Envelope)) *mailerr.Error {
	for i, change := range envs {
		e := d.mailFor(id, uint32(i), fmt.Sprint("user", i))
		change(&e)
		d.send(&msg.AddEnvelope{Envelope: e})
	}
	return d.send(&msg.Commit{Message: id, Envelopes: uint32(len(envs)), Size: uint64(len(text)), Body: []byte(text)}).committed()
}

func plain(*envelope.Envelope) {}

// fakeLookup answers Expand: a local part that begins with "no" is refused,
// another becomes one envelope, sent before the reply.
type fakeLookup struct {
	proc.Caller
	d      *daemon
	refuse func(*msg.Expand) *mailerr.Error

	mu    sync.Mutex
	asked []msg.Expand
}

func (l *fakeLookup) Call(ctx context.Context, m msg.Message, reply msg.Parser) error {
	x := m.(*msg.Expand)
	l.mu.Lock()
	l.asked = append(l.asked, *x)
	l.mu.Unlock()
	out := reply.(*msg.Expanded)
	if l.refuse != nil {
		if out.Err = l.refuse(x); out.Err != nil {
			if out.Err.Class == mailerr.Temp {
				return out.Err // as a peer that is gone
			}
			return nil
		}
	}
	if strings.HasPrefix(x.Rcpt.Local, "nowhere") {
		return nil
	}
	e := l.d.mailFor(x.Message, 0, x.Rcpt.Local)
	e.Flags, e.Sender, e.Rcpt = x.Flags, x.Sender, x.Rcpt
	out.Added, out.Dests = 1, []addr.Address{e.Dest}
	l.d.send(&msg.AddEnvelope{Envelope: e})
	return nil
}

type fakeDispatcher struct {
	proc.Caller
	intake chan msg.Intake
	tasks  chan *msg.RelayTask
}

func (p *fakeDispatcher) Send(_ context.Context, m msg.Message) error {
	switch m := m.(type) {
	case *msg.Intake:
		p.intake <- *m
	case *msg.RelayTask:
		c := new(msg.RelayTask)
		if err := c.Parse(m.Append(nil)); err != nil {
			return err
		}
		p.tasks <- c
	}
	return nil
}

// fakeAgents deliver at once, or keep what a test wants to finish itself.
type fakeAgents struct {
	decide func(*mda.Delivery) mda.Result
	came   chan *mda.Delivery // every delivery, with its body read
	limits mda.Limits
	held   chan *mda.Delivery
	under  sync.WaitGroup // those that are, or were, held
}

// holdIt as the Stat of a decision keeps a delivery in held.
const holdIt = "hold"

func newAgents(decide func(*mda.Delivery) mda.Result) *fakeAgents {
	if decide == nil {
		decide = func(*mda.Delivery) mda.Result { return delivered }
	}
	return &fakeAgents{decide: decide, came: make(chan *mda.Delivery, 10000), held: make(chan *mda.Delivery, 10000)}
}

var delivered = mda.Result{Stat: "Delivered"}

func tempFail(line string) mda.Result {
	return mda.Result{Err: mailerr.Temporary(451, 3, 0, line, nil), Stat: "Error (" + line + ")"}
}

func permFail(line string) mda.Result {
	return mda.Result{Err: mailerr.Permanent(550, 2, 2, line, nil), Stat: "Error (" + line + ")"}
}

func (a *fakeAgents) Deliver(d *mda.Delivery) {
	c := *d
	e := *d.Envelope
	c.Envelope = &e
	if c.Body == nil && c.Reader != nil && c.Size < 1<<20 {
		c.Body = make([]byte, c.Size)
		if _, err := c.Reader.ReadAt(c.Body, 0); err != nil {
			c.Body = nil
		}
	}
	res := a.decide(&c)
	if res.Stat != holdIt {
		a.came <- &c
		d.Done(res)
		return
	}
	a.under.Add(1)
	h := *d
	h.Done = func(res mda.Result) {
		d.Done(res)
		a.under.Done()
	}
	a.held <- &h
	a.came <- &c
}

func (a *fakeAgents) SetLimits(l mda.Limits) { a.limits = l }

// Load is that of agents who have half of what they hold.
func (a *fakeAgents) Load() (all, running, users int) { return len(a.held), len(a.held) / 2, 1 }

// Close waits for what is under way, and fails what is still held when ctx ends.
func (a *fakeAgents) Close(ctx context.Context) {
	over := make(chan struct{})
	go func() {
		a.under.Wait()
		close(over)
	}()
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	for len(a.held) > 0 {
		(<-a.held).Done(mda.Result{Err: mailerr.Temporary(451, 3, 2, "Shutting down", nil), Stat: "Shutting down"})
	}
	<-over
}

// next waits for the next delivery.
func (a *fakeAgents) next() *mda.Delivery { return <-a.came }

// idle waits until nothing is in flight and no report is being made or gathers.
func (d *daemon) idle() {
	d.turn()
	d.until(func() bool {
		if len(d.reports.open) > 0 {
			d.clock.Advance(gather)
		}
		c := d.rq.Counts()
		return c.Inflight == [3]int{} && c.Expiring == 0 && d.reports.running == 0 && len(d.reports.due) == 0
	})
}

// turn returns when all that was due when it was called has been begun.
func (d *daemon) turn() {
	for range 2 { // the first may have been under way already
		select {
		case <-d.pumped:
		default:
		}
		d.poke()
		<-d.pumped
	}
}

// until waits until cond, asked with the lock held, is true. Whatever changes
// pokes Run.
func (d *daemon) until(cond func() bool) {
	for {
		d.mu.Lock()
		ok := cond()
		d.mu.Unlock()
		if ok {
			return
		}
		<-d.pumped
	}
}

// updates waits until the store was told n times of a new state.
func (d *daemon) updates(n int64) {
	d.until(func() bool { return d.count.updated.Value() >= n })
}

// live returns the envelopes that the store has once all is written.
func (d *daemon) live() []mail.EnvelopeID {
	if err := d.store.Flush(context.Background()); err != nil {
		d.t.Fatal(err)
	}
	return stored(d.store)
}

func stored(s *store.Store) []mail.EnvelopeID {
	var ids []mail.EnvelopeID
	s.Each(func(sum store.Summary) bool {
		ids = append(ids, sum.ID)
		return true
	})
	slices.Sort(ids)
	return ids
}

func (d *daemon) info(id mail.EnvelopeID) (runq.Info, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rq.Info(id)
}
