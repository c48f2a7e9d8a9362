package queue

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/runq"
)

const (
	// maxTask is how many recipients one task has; servers take at least as
	// many in a transaction (RFC 5321 section 4.5.3.1.8).
	maxTask = 100
	// maxAhead bounds what bodies take in dispatcher while they wait for a
	// session, in bytes. Those beyond are fetched when their turn comes.
	maxAhead = 1 << 20
	// maxInline is the largest body that goes with its task, in bytes.
	maxInline = 64 << 10
	// maxDown bounds the destinations for which envelopes are remembered, to be
	// tried as soon as they are back.
	maxDown = 10_000
	// maxRound is how many envelopes gather before they are sent although more
	// are due: a round has no end while mail comes in faster than it is handed on.
	maxRound = 1000
)

// leases gives envelopes to dispatcher and takes the results. It is the Relayer.
//
// Tasks are pushed, which costs a message one frame each way: the run queue
// bounds what waits in dispatcher for a destination (task-hiwat), and a task
// stops counting as soon as a session has it, so that nothing is held back from
// a server that takes mail.
type leases struct {
	role *Role
	peer proc.Caller
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	round   []*Relaying // due at once, not all here yet
	pending []*Relaying // to be sent
	sending bool        // a goroutine does
	tasks   map[uint64]*lease
	last    uint64
	ahead   int64              // bytes of bodies given ahead
	down    map[string]*fallen // destinations out of reach
	drained chan struct{}      // closed when no task is left; nil when nobody waits
	closed  bool
}

// lease is a task that dispatcher has.
type lease struct {
	dest  string
	items []*Relaying
	ahead int64
}

// fallen are envelopes of a destination that was out of reach.
type fallen struct{ ids []mail.EnvelopeID }

func newLeases(r *Role) *leases {
	l := &leases{role: r, peer: r.env.Peers[proc.Dispatcher], tasks: make(map[uint64]*lease), down: make(map[string]*fallen)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// handlers are the rows of messages about relaying; none for a nil l.
func (l *leases) handlers() []proc.Handler {
	if l == nil {
		return nil
	}
	return []proc.Handler{
		{From: proc.Dispatcher, Type: msg.TypeRelayTaken, Do: l.taken},
		{From: proc.Dispatcher, Type: msg.TypeRelayBody, Concurrent: true, Do: l.body},
		{From: proc.Dispatcher, Type: msg.TypeRelayResult, Do: l.result},
	}
}

// Dest implements Relayer: an action and a domain, or the action alone when all
// its mail goes to one place.
func (l *leases) Dest(action, domain string) string {
	a := l.role.conf.Load().actions[action]
	if a != nil && (a.RelayHost != "" || a.RelayTable) {
		domain = ""
	}
	return action + "\x00" + addr.Lower(domain)
}

// Domain implements Relayer. For a relay that the configuration names it is
// that host.
func (l *leases) Domain(dest string) string {
	action, domain, _ := strings.Cut(dest, "\x00")
	if a := l.role.conf.Load().actions[action]; a != nil && a.RelayHost != "" {
		return a.RelayHost
	}
	return domain
}

// Relay implements Relayer. Envelopes gather until Flush: those of one message
// become due together, and go in one task however soon the last ones were sent.
func (l *leases) Relay(w *Relaying) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.round = append(l.round, w)
		if len(l.round) >= maxRound {
			l.flush()
		}
	}
	l.mu.Unlock()
	if closed {
		w.Done(Relayed{Returned: true})
	}
}

// Flush implements Relayer.
func (l *leases) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

// flush has sent what has gathered, with the lock held.
func (l *leases) flush() {
	if len(l.round) == 0 {
		return
	}
	l.pending = append(l.pending, l.round...)
	l.round = nil
	if !l.sending {
		l.sending = true
		l.work.Go(l.send)
	}
}

// send sends what there is, then ends.
func (l *leases) send() {
	for {
		l.mu.Lock()
		list := l.pending
		l.pending = nil
		if len(list) == 0 {
			l.sending = false
			l.mu.Unlock()
			return
		}
		tasks := l.gather(list)
		l.mu.Unlock()
		for i := range tasks {
			if err := l.peer.Send(l.ctx, &tasks[i]); err != nil {
				l.giveUp(tasks[i].Task)
			}
		}
	}
}

// gather makes tasks of envelopes, with the lock held.
func (l *leases) gather(list []*Relaying) []msg.RelayTask {
	type key struct {
		message mail.MessageID
		dest    string
		gen     mail.Gen
	}
	var tasks []msg.RelayTask
	at := make(map[key]int)
	for _, w := range list {
		k := key{w.Envelope.ID.Message(), l.Dest(w.Envelope.Action, w.Envelope.Dest.Domain), w.Gen}
		i, ok := at[k]
		if !ok || len(tasks[i].Envelopes) == maxTask {
			i = len(tasks)
			at[k] = i
			l.last++
			tasks = append(tasks, l.task(l.last, w))
			l.tasks[l.last] = &lease{dest: k.dest, ahead: int64(len(tasks[i].Body))}
		}
		tasks[i].Envelopes = append(tasks[i].Envelopes, *w.Envelope)
		t := l.tasks[tasks[i].Task]
		t.items = append(t.items, w)
	}
	return tasks
}

// task begins a task with the message of w.
func (l *leases) task(id uint64, w *Relaying) msg.RelayTask {
	t := msg.RelayTask{Task: id, Gen: w.Gen, Size: uint64(w.Size)}
	if w.Body != nil && len(w.Body) <= maxInline && l.ahead+int64(len(w.Body)) <= maxAhead {
		t.Inline, t.Body = true, w.Body
		l.ahead += int64(len(w.Body))
	}
	return t
}

// giveUp takes back a task that could not be given.
func (l *leases) giveUp(id uint64) {
	t := l.end(id)
	if t == nil {
		return
	}
	for _, w := range t.items {
		w.Done(Relayed{Returned: true})
	}
}

// end forgets a task.
func (l *leases) end(id uint64) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tasks[id]
	if t == nil {
		return nil
	}
	delete(l.tasks, id)
	l.ahead -= t.ahead
	if len(l.tasks) == 0 && l.drained != nil {
		close(l.drained)
		l.drained = nil
	}
	return t
}

// taken is told that a session has begun with a task.
func (l *leases) taken(_ context.Context, q proc.Request) {
	var m msg.RelayTaken
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	l.mu.Lock()
	t := l.tasks[m.Task]
	if t != nil {
		l.ahead -= t.ahead
		t.ahead = 0
	}
	l.mu.Unlock()
	if t == nil {
		return
	}
	l.role.mu.Lock()
	for _, w := range t.items {
		l.role.rq.Taken(w.Envelope.ID)
	}
	l.role.mu.Unlock()
	l.role.poke()
}

// body gives a piece of a message.
func (l *leases) body(_ context.Context, q proc.Request) {
	var m msg.RelayBody
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	l.mu.Lock()
	t := l.tasks[m.Task]
	l.mu.Unlock()
	if t == nil {
		q.Fail(mailerr.Local(fmt.Errorf("task %d is not under way", m.Task)))
		return
	}
	w := t.items[0]
	if m.Offset > uint64(w.Size) {
		q.Fail(mailerr.Local(fmt.Errorf("message %v has %d bytes, %d asked for", w.Envelope.ID.Message(), w.Size, m.Offset)))
		return
	}
	n := min(w.Size-int64(m.Offset), msg.MaxRelayBody)
	if w.Body != nil {
		q.Reply(&msg.RelayBodyReply{Data: w.Body[m.Offset:][:n]})
		return
	}
	b := make([]byte, n)
	if got, err := w.Reader.ReadAt(b, int64(m.Offset)); err != nil && (err != io.EOF || int64(got) < n) {
		q.Fail(mailerr.Local(err))
		return
	}
	q.Reply(&msg.RelayBodyReply{Data: b})
}

// result takes what became of a task. An envelope of which nothing is said was
// not tried.
func (l *leases) result(_ context.Context, q proc.Request) {
	var m msg.RelayResult
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	t := l.end(m.Task)
	if t == nil {
		return
	}
	said := make(map[mail.EnvelopeID]*msg.RelayOutcome, len(m.Results))
	for i := range m.Results {
		said[m.Results[i].Envelope] = &m.Results[i]
	}
	unreachable, taken := m.Unreachable, false
	for _, w := range t.items {
		o := said[w.Envelope.ID]
		if o == nil || o.Returned {
			w.Done(Relayed{Returned: true})
			continue
		}
		taken = taken || o.Err == nil
		id := w.Envelope.ID
		w.Done(Relayed{Err: o.Err, Line: o.Line, NoDSN: o.NoDSN, Unreachable: unreachable})
		if m.Unreachable && o.Err != nil && o.Err.Class == mailerr.Temp {
			l.remember(t.dest, id)
		}
		unreachable = false // once for all
	}
	if taken {
		l.back(t.dest)
	}
}

// remember notes an envelope that is to be tried when its destination is back:
// as many as `mta max-deferred` says; the others wait for their moment.
func (l *leases) remember(dest string, id mail.EnvelopeID) {
	most := l.role.conf.Load().conf.MTAMaxDeferred
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.down[dest]
	if f == nil {
		if len(l.down) >= maxDown {
			return
		}
		f = new(fallen)
		l.down[dest] = f
	}
	if len(f.ids) < most {
		f.ids = append(f.ids, id)
	}
}

// back makes due what failed because a destination was out of reach, now that
// it takes mail.
func (l *leases) back(dest string) {
	l.mu.Lock()
	f := l.down[dest]
	delete(l.down, dest)
	l.mu.Unlock()
	if f == nil {
		return
	}
	l.role.mu.Lock()
	for _, id := range f.ids {
		if i, ok := l.role.rq.Info(id); ok && i.Type == envelope.MTA && !i.Suspended && !i.Inflight {
			l.role.rq.Schedule(runq.Selection{Envelope: id})
		}
	}
	l.role.mu.Unlock()
	l.role.poke()
}

// Close implements Relayer. Dispatcher has given back what it had when it ended;
// what is left is taken back.
func (l *leases) Close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	pending := append(l.pending, l.round...)
	l.pending, l.round = nil, nil
	var drained chan struct{}
	if len(l.tasks) > 0 {
		drained = make(chan struct{})
		l.drained = drained
	}
	l.mu.Unlock()
	for _, w := range pending {
		w.Done(Relayed{Returned: true})
	}
	if drained != nil {
		select {
		case <-drained:
		case <-ctx.Done():
		}
	}
	l.stop()
	l.work.Wait()
	l.mu.Lock()
	left := make([]uint64, 0, len(l.tasks))
	for id := range l.tasks {
		left = append(left, id)
	}
	l.mu.Unlock()
	for _, id := range left {
		l.giveUp(id)
	}
}
