package mda

import (
	"context"
	"runtime"
	"sync"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

const (
	// userTTL is how long it is believed what parent said of a user.
	userTTL = 5 * time.Second
	// maxUsers bounds what is remembered of users.
	maxUsers = 4096
	// resolvers is how many questions about users are under way at once.
	resolvers = 32
)

// Pool hands deliveries to agents, which it asks parent for.
type Pool struct {
	parent proc.Caller
	o      Options
	ctx    context.Context // of calls to parent
	cancel context.CancelFunc
	asking chan struct{} // a token for each question about a user
	wg     sync.WaitGroup

	mu      sync.Mutex
	closing bool
	users   map[userKey]*user
	slots   map[slotKey]*slot

	// Permits for agents: who has one, who waits for one.
	agents  int
	perUser map[uint32]int
	waiting []*slot

	turns turns // of those who write to the disk

	// Commands that run, and slots that wait for one to end.
	commands   int
	commandsOf map[uint32]int
	blocked    map[*slot]struct{}

	pending int           // deliveries not done
	drained chan struct{} // closed when pending is 0 while closing
	tending bool          // the goroutine that ends idle agents runs
}

type userKey struct {
	gen          mail.Gen
	action, name string
}

// user is what parent said of a delivery user.
type user struct {
	known   bool
	reply   msg.AgentReply
	until   time.Duration
	waiting []*Delivery
}

// NewPool returns a pool. It starts nothing before the first delivery.
func NewPool(parent proc.Caller, o Options) *Pool {
	if o.AgentsPerUser <= 0 {
		o.AgentsPerUser = 2
	}
	if o.Idle <= 0 {
		o.Idle = 5 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 330 * time.Second
	}
	if o.Writers <= 0 {
		o.Writers = max(1, runtime.NumCPU()/2)
	}
	o.Limits = o.Limits.defaults()
	p := &Pool{
		parent: parent, o: o, asking: make(chan struct{}, resolvers),
		users: make(map[userKey]*user), slots: make(map[slotKey]*slot),
		turns:   turns{most: o.Writers},
		perUser: make(map[uint32]int), commandsOf: make(map[uint32]int), blocked: make(map[*slot]struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

func (l Limits) defaults() Limits {
	if l.MaxSession <= 0 {
		l.MaxSession = 50
	}
	if l.MaxSessionPerUser <= 0 {
		l.MaxSessionPerUser = 7
	}
	return l
}

// SetLimits obeys a new configuration from the next delivery on.
func (p *Pool) SetLimits(l Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Limits = l.defaults()
	p.grant()
	p.unblock()
}

// Deliver takes a delivery and returns at once. How many may be waiting is up
// to the caller (the run queue holds back per destination).
func (p *Pool) Deliver(d *Delivery) {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		d.Done(shutdown)
		return
	}
	p.pending++
	k := userKey{d.Gen, d.Envelope.Action, d.Envelope.MDAUser}
	u := p.users[k]
	switch {
	case u == nil || u.known && u.until < p.o.Clock.Mono():
		p.forgetUsers()
		u = &user{waiting: []*Delivery{d}}
		p.users[k] = u
		p.wg.Go(func() { p.resolve(k, u) })
	case !u.known:
		u.waiting = append(u.waiting, d)
	default:
		p.enqueue(k, u, d)
	}
	p.mu.Unlock()
}

// forgetUsers makes room for another user.
func (p *Pool) forgetUsers() {
	if len(p.users) < maxUsers {
		return
	}
	for k, u := range p.users {
		if u.known {
			delete(p.users, k)
		}
	}
}

// resolve asks parent who a user is and hands on what waited for that.
func (p *Pool) resolve(k userKey, u *user) {
	p.asking <- struct{}{}
	err := p.parent.Call(p.ctx, &msg.Agent{Gen: k.gen, Action: k.action, User: k.name}, &u.reply)
	<-p.asking
	res := answered(&u.reply, err)
	p.mu.Lock()
	waiting := u.waiting
	u.waiting = nil
	if p.closing && res.Err == nil {
		res = shutdown
	}
	if res.Err != nil {
		if p.users[k] == u {
			delete(p.users, k)
		}
		p.mu.Unlock()
		p.finish(waiting, res)
		return
	}
	u.known, u.until = true, p.o.Clock.Mono()+userTTL
	for _, d := range waiting {
		p.enqueue(k, u, d)
	}
	p.mu.Unlock()
}

// answered returns what a reply of parent, or its failure, means for deliveries;
// no Err when they can go on.
func answered(r *msg.AgentReply, err error) Result {
	if err == nil {
		return Result{r.Err, r.Stat}
	}
	e := mailerr.From(err)
	return Result{e, "Error (" + e.Text + ")"}
}

// finish reports deliveries that are over.
func (p *Pool) finish(list []*Delivery, r Result) {
	for _, d := range list {
		d.Done(r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done(len(list))
}

// done counts n deliveries as reported; p.mu is held.
func (p *Pool) done(n int) {
	p.pending -= n
	if p.pending == 0 && p.drained != nil {
		close(p.drained)
		p.drained = nil
	}
}

// Close takes no more deliveries, waits for those under way until ctx ends, then
// fails the rest for now, and returns when all agents were let go.
func (p *Pool) Close(ctx context.Context) {
	p.mu.Lock()
	p.closing = true
	var begun []*Delivery // of those that were not
	for _, s := range p.slots {
		begun = append(begun, s.takeQueue()...)
	}
	p.waiting = nil
	drained := make(chan struct{})
	if p.pending > 0 {
		p.drained = drained
	} else {
		close(drained)
	}
	p.mu.Unlock()
	p.cancel() // nobody is asked any more
	p.finish(begun, shutdown)
	select {
	case <-drained:
	case <-ctx.Done():
	}
	p.mu.Lock()
	for _, s := range p.slots {
		s.end()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
