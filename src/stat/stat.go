// Package stat holds the counters of a process, which "smtpctl show stats" and
// "smtpctl monitor" show. Names are OpenSMTPD's where it has them.
package stat

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"opensmtpd/src/privsep/msg"
)

// The names that OpenSMTPD's users know. A gauge goes up and down; the others
// only grow.
const (
	SMTPSession      = "smtp.session" // gauge: open sessions
	SMTPSessionLocal = "smtp.session.local"
	SMTPSessionInet4 = "smtp.session.inet4"
	SMTPSessionInet6 = "smtp.session.inet6"
	SMTPTLS          = "smtp.tls"   // gauge: sessions after STARTTLS
	SMTPSMTPS        = "smtp.smtps" // gauge: sessions on smtps listeners

	Envelope         = "scheduler.envelope"          // gauge: envelopes in the queue
	EnvelopeIncoming = "scheduler.envelope.incoming" // gauge: of messages being received
	EnvelopeInflight = "scheduler.envelope.inflight" // gauge: being delivered
	EnvelopeExpired  = "scheduler.envelope.expired"
	EnvelopeRemoved  = "scheduler.envelope.removed"
	EnvelopeUpdated  = "scheduler.envelope.updated"
	DeliveryOK       = "scheduler.delivery.ok"
	DeliveryTempFail = "scheduler.delivery.tempfail"
	DeliveryPermFail = "scheduler.delivery.permfail"
	DeliveryLoop     = "scheduler.delivery.loop"
	QueueBounce      = "queue.bounce"

	BounceMessage  = "bounce.message"  // gauge: reports to be made
	BounceEnvelope = "bounce.envelope" // gauge: recipients that they are about
	BounceSession  = "bounce.session"  // gauge: reports being made

	MDAEnvelope = "mda.envelope" // gauge: deliveries to mailboxes under way
	MDAPending  = "mda.pending"  // gauge: of these, those that wait for an agent
	MDARunning  = "mda.running"  // gauge: those that an agent has
	MDAUser     = "mda.user"     // gauge: users who get them

	ControlSession = "control.session" // gauge
)

// Counter is one number. Its methods are for any goroutine and cost an atomic
// addition; hold on to it rather than look it up again.
type Counter struct {
	_        [64]byte // a line of the cache to itself: sessions on all cores add
	up, down atomic.Int64
}

// Add adds n, at least 0.
func (c *Counter) Add(n int64) { c.up.Add(n) }

// Sub takes n away, at least 0.
func (c *Counter) Sub(n int64) { c.down.Add(n) }

// Value returns what was added less what was taken away.
func (c *Counter) Value() int64 { return c.up.Load() - c.down.Load() }

// Set is the counters of one process. The zero Set is empty and ready.
type Set struct {
	mu sync.Mutex
	m  map[string]*Counter
}

// Counter returns the counter of that name, making it at the first call. A
// counter that was never asked for is not shown.
func (s *Set) Counter(name string) *Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.m[name]
	if c == nil {
		if s.m == nil {
			s.m = make(map[string]*Counter)
		}
		c = new(Counter)
		s.m[name] = c
	}
	return c
}

// Reply answers msg.Stats: every counter, sorted by name.
func (s *Set) Reply() *msg.StatsReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &msg.StatsReply{Counters: make([]msg.Counter, 0, len(s.m))}
	for name, c := range s.m {
		r.Counters = append(r.Counters, msg.Counter{Name: name, Up: c.up.Load(), Down: c.down.Load()})
	}
	slices.SortFunc(r.Counters, func(a, b msg.Counter) int { return strings.Compare(a.Name, b.Name) })
	return r
}
