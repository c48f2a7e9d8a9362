// Package mta takes mail to other servers. Its nouns are those of smtpctl(8):
//
//	relay      a destination under an action: what waits for it, and its servers
//	connector  a relay from one of our source addresses
//	host       a server's address; source: one of ours
//	route      a source and a host: whether it works, and how much it bears
//	session    one connection
//
// A task (envelopes of one message) is submitted, joins the line of its relay,
// and is taken by a session; what becomes of each envelope is told to Queue. A
// relay asks for its servers once, then opens connections while more tasks wait
// than sessions are free, by preference of MX, over routes that work, within
// `mta limit`. When no route works everything that waits fails for now.
//
// One mutex guards all of that; sessions hold it only to fetch and to report.
package mta

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/stat"
)

// Queue is where the mail comes from. Its methods may be called from any
// goroutine.
type Queue interface {
	// Taken tells that a session has begun with a task.
	Taken(task uint64)
	// Body returns at most msg.MaxRelayBody bytes of a task's message, from
	// offset on; fewer only at the end. buf may be used for it.
	Body(ctx context.Context, task, offset uint64, buf []byte) ([]byte, error)
	// Result tells what became of every envelope of a task. It is called once
	// for each task.
	Result(*msg.RelayResult)
}

// Lookup answers questions. Its methods wait, and end with ctx.
type Lookup interface {
	MX(context.Context, *msg.MX) (*msg.MXReply, error)
	Table(context.Context, *msg.RelayLookup) (*msg.RelayLookupReply, error)
	// Name is the name of an address by DNS, "" when it has none.
	Name(context.Context, netip.Addr) string
}

// Options are what an MTA works with.
type Options struct {
	Clock  clock.Clock
	Log    *mlog.Logger
	Queue  Queue
	Lookup Lookup
	NewID  func() uint64 // of sessions
	// Dial connects from an address, or from any when it is not valid. nil: TCP.
	Dial func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error)
	// Stats, when it is not nil, counts sessions, tasks and the like.
	Stats *stat.Set
}

// MTA relays mail. Run must be running for anything to happen.
type MTA struct {
	Options
	count counters
	work  sync.WaitGroup // sessions and look-ups

	wake chan struct{} // tells Run that there is an earlier alarm

	mu       sync.Mutex      // of what follows
	ctx      context.Context // of sessions
	cancel   context.CancelFunc
	asking   context.Context // of look-ups for relays
	hush     context.CancelFunc
	conf     *Config
	relays   map[relayKey]*relay
	domains  map[string]*counter
	hosts    map[netip.AddrPort]*host
	sources  map[netip.Addr]*source
	routes   map[routeKey]*route
	sessions map[*session]struct{}
	last     uint64 // number of the last relay or route
	stats    hoststats
	alarms   alarms
	stopping bool
	later    []func() // reports to be made without the lock
}

// unlock ends the use of what mu guards, and makes the reports that came of it.
func (m *MTA) unlock() {
	later := m.later
	m.later = nil
	m.mu.Unlock()
	for _, f := range later {
		f()
	}
}

// New returns an MTA that works by conf until Configure.
func New(o Options, conf *Config) *MTA {
	if o.Dial == nil {
		o.Dial = dial
	}
	if o.Stats == nil {
		o.Stats = new(stat.Set)
	}
	m := &MTA{
		Options: o, conf: conf, wake: make(chan struct{}, 1),
		relays: make(map[relayKey]*relay), domains: make(map[string]*counter),
		hosts: make(map[netip.AddrPort]*host), sources: make(map[netip.Addr]*source),
		routes: make(map[routeKey]*route), sessions: make(map[*session]struct{}),
	}
	m.count.init(o.Stats)
	m.stats.init()
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.asking, m.hush = context.WithCancel(m.ctx)
	return m
}

// counters are what "smtpctl show stats" shows, with OpenSMTPD's names.
type counters struct {
	session, task, running, envelope, relay, route, host, source, domain, connector *stat.Counter
}

func (c *counters) init(s *stat.Set) {
	c.session, c.task, c.envelope = s.Counter("mta.session"), s.Counter("mta.task"), s.Counter("mta.envelope")
	c.relay, c.route, c.host = s.Counter("mta.relay"), s.Counter("mta.route"), s.Counter("mta.host")
	c.source, c.domain = s.Counter("mta.source"), s.Counter("mta.domain")
	c.running, c.connector = s.Counter("mta.task.running"), s.Counter("mta.connector")
}

// Configure takes a new configuration. What has begun goes on under the old one.
func (m *MTA) Configure(conf *Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conf = conf
}

// Run looks after what must happen at a time, until ctx ends. Sessions go on
// until Stop.
func (m *MTA) Run(ctx context.Context) {
	for {
		m.mu.Lock()
		m.alarms.ring(m.Clock.Mono())
		at, some := m.alarms.next()
		m.unlock()
		var bell <-chan struct{}
		cancel := func() {}
		if some {
			bell, cancel = m.Clock.After(at - m.Clock.Mono())
		}
		select {
		case <-bell:
		case <-m.wake:
		case <-ctx.Done():
			cancel()
			return
		}
		cancel()
	}
}

// at calls f at a moment on the monotonic clock, with the lock held.
func (m *MTA) at(when time.Duration, f func()) {
	if !m.alarms.add(when, f) {
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Stop returns what waits to Queue, lets sessions end the message that they are
// at, and gives up those that have not when ctx ends. Run may end after it.
func (m *MTA) Stop(ctx context.Context) {
	m.mu.Lock()
	m.stopping = true
	var left []*task
	for _, r := range m.relays {
		left = append(left, r.line...)
		r.line = nil
		for _, s := range r.idle {
			close(s.next)
		}
		r.idle = nil
	}
	m.mu.Unlock()
	m.hush()
	for _, t := range left {
		m.giveBack(t)
	}
	stop := context.AfterFunc(ctx, m.abandon)
	m.mu.Lock()
	starting := make([]*session, 0, len(m.sessions))
	for s := range m.sessions {
		if !s.ready {
			starting = append(starting, s)
		}
	}
	m.mu.Unlock()
	for _, s := range starting {
		s.cut(errStopping)
	}
	m.work.Wait()
	stop()
	m.cancel()
}

// abandon ends everything at once.
func (m *MTA) abandon() {
	m.cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.sessions {
		s.cut(errStopping)
	}
}

// Submit takes a task. It does not wait.
func (m *MTA) Submit(t *msg.RelayTask) {
	m.count.task.Add(1)
	m.count.envelope.Add(int64(len(t.Envelopes)))
	m.mu.Lock()
	stopping, conf := m.stopping, m.conf
	m.mu.Unlock()
	job := &task{RelayTask: *t}
	if stopping {
		m.giveBack(job)
		return
	}
	act := conf.Actions[t.Envelopes[0].Action]
	if act == nil {
		m.refuse(job, "-", mailerr.Temporary(451, 3, 5, "Action is gone from the configuration", nil), false)
		return
	}
	act = act.forms[policyOf(&t.Envelopes[0])]
	job.sender = act.sender(t.Envelopes[0].Sender)
	if domain := forwarder(t); act.SRS && conf.SRS != nil && domain != "" {
		job.sender = conf.SRS.Forward(job.sender, domain, m.Clock.Now())
	}
	m.route(conf, act, job)
}

// giveBack returns a task that was not tried.
func (m *MTA) giveBack(t *task) {
	res := &msg.RelayResult{Task: t.Task}
	for i := range t.Envelopes {
		res.Results = append(res.Results, msg.RelayOutcome{Envelope: t.Envelopes[i].ID, Returned: true})
	}
	m.done(t, res)
}

// refuse fails a whole task without a session.
func (m *MTA) refuse(t *task, where string, err *mailerr.Error, unreachable bool) {
	res := &msg.RelayResult{Task: t.Task, Unreachable: unreachable}
	for i := range t.Envelopes {
		e := &t.Envelopes[i]
		line := err.Text
		m.Log.MTADelivery(&mlog.Relayed{
			ID: e.ID, From: t.sender.SMTP(), To: e.Dest.SMTP(), Rcpt: e.Rcpt.SMTP(), Relay: where,
			Delay: m.Clock.Now().Sub(e.Created), Result: result(err), Stat: line,
		})
		res.Results = append(res.Results, msg.RelayOutcome{Envelope: e.ID, Err: err, Line: line})
	}
	m.done(t, res)
}

func (m *MTA) done(t *task, res *msg.RelayResult) {
	m.count.task.Sub(1)
	m.count.envelope.Sub(int64(len(t.Envelopes)))
	m.Queue.Result(res)
}

// result is a class in the words of the log.
func result(err *mailerr.Error) string {
	switch {
	case err == nil:
		return "Ok"
	case err.Class == mailerr.Perm:
		return "PermFail"
	}
	return "TempFail"
}

// task is one message for one destination.
type task struct {
	msg.RelayTask
	sender addr.Address
	tries  int // sessions that lost it before it was begun
}

// dial connects by TCP. The system's own keep-alive is off: a session is never
// silent for long.
func dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// newID is the number of something in the order of its making.
func (m *MTA) newID() uint64 {
	m.last++
	return m.last
}

func (m *MTA) sessionID() mail.SessionID { return mail.SessionID(m.NewID()) }
