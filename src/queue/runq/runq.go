// Package runq is the run queue: which envelope is tried next, and when. It
// keeps nothing of a message but numbers, does no I/O, and asks for the time
// only through the clock that it is given.
//
// An envelope is pending until its moment comes, then ready in the line of its
// destination, then in flight until the caller tells how it went:
//
//	Insert → pending → ready → Next → in flight → Done
//	            ↑                         │
//	            └───────── Retry ─────────┘
//
// Destinations (a user, or a host to relay to) take turns, and each has its own
// bound on what is in flight: when hiwat is reached the rest of its line is held
// until lowat is, then release more go at a time. A slow or dead destination
// thus holds back its own mail alone.
//
// Ages are counted from the creation that the envelope tells, but only once,
// when it is inserted; from then on monotonic time counts, so that a step of the
// wall clock neither delays nor expires anything. An envelope that is already
// too old when it is inserted, after a long stop or under a clock that runs
// ahead, or when it is resumed, is tried once before it expires.
package runq

import (
	"math"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
)

// types counts the values of envelope.Type.
const types = 3

// Hold bounds what one destination may have in flight. Once Hiwat is reached
// nothing more starts until Lowat is; then Release may start, and so on until
// the line is empty. Release 0 lets all go, up to Hiwat.
type Hold struct {
	Hiwat, Lowat, Release int
}

// Config is what can change at reload.
type Config struct {
	// MaxInflight bounds what is in flight, for each type on its own, so that
	// remote mail cannot starve local mail.
	MaxInflight int
	// Hold tells the bounds of a destination. It must not call the Queue.
	Hold func(t envelope.Type, dest string) Hold
	// Warn lists the ages at which the sender is told of a delay.
	Warn []time.Duration
}

// Item is an envelope as the run queue wants to know it.
type Item struct {
	ID      mail.EnvelopeID
	Type    envelope.Type
	Dest    string // those with equal type and Dest share a Hold and take turns with others
	Created time.Time
	TTL     time.Duration
	Warned  time.Duration // the age that the last delay report told, 0: none
	Retry   uint16        // tries so far
}

// Job is work that Next hands out.
type Job struct {
	ID      mail.EnvelopeID
	Type    envelope.Type
	Dest    string
	Expired bool // do not deliver: its time is over
}

// Verdict tells what becomes of an envelope after a temporary failure.
type Verdict struct {
	// Removed: it was removed while in flight; the Queue has forgotten it.
	Removed bool
	Next    time.Time // wall time of the next try, or of expiry if that comes first
	// Warn is the age that a delay report should tell, 0: none is due. It
	// counts as told unless SetTold says otherwise.
	Warn   time.Duration
	Told   time.Duration // the age told last, Warn when that is not 0
	Before time.Duration // what was told before
}

type state uint8

const (
	free state = iota
	pending
	ready   // in the line of its destination
	expired // in the line of those that expired
	inflight
)

type flags uint8

const (
	suspended flags = 1 << iota
	removed         // while in flight
	overdue         // too old, but to be tried once before it expires
	taken           // in flight, and not counted for its destination any more
)

// entry is 64 bytes and without pointers: a million of them cost the collector
// nothing.
type entry struct {
	id     mail.EnvelopeID
	born   time.Duration // creation in monotonic time, often negative
	at     time.Duration // next try; of one in flight: its start
	expire time.Duration

	warned       uint32 // seconds
	heap         int32  // place in the heap, -1: none
	dest         int32
	prev, next   int32 // neighbours in a line; next also chains free entries
	sprev, snext int32 // envelopes of the same message
	retry        uint16
	state        state
	flags        flags
}

// Queue is the run queue. It is not safe for concurrent use.
type Queue struct {
	clock  clock.Clock
	conf   Config
	slab   slab
	heap   heap
	ids    map[mail.EnvelopeID]int32
	msgs   map[mail.MessageID]int32 // the first of its envelopes
	dests  []dest
	byKey  map[destKey]int32
	spare  []int32 // free places in dests
	rings  [types]ring
	late   line // of expired envelopes
	paused [types]bool

	inflight [types]int
	expiring int
	turn     int // the type that Next asks first
}

// New returns an empty queue.
func New(c clock.Clock, conf Config) *Queue {
	q := &Queue{
		clock: c,
		conf:  checked(conf),
		ids:   make(map[mail.EnvelopeID]int32),
		msgs:  make(map[mail.MessageID]int32),
		byKey: make(map[destKey]int32),
		late:  emptyLine,
	}
	q.heap.q = q
	return q
}

// SetConfig replaces the configuration; what is in flight stays so.
func (q *Queue) SetConfig(conf Config) {
	q.conf = checked(conf)
	for i := range q.dests {
		d := &q.dests[i]
		if d.refs > 0 {
			d.hold = q.conf.Hold(d.typ, d.key)
			d.adjust()
			q.line(int32(i))
		}
	}
}

// Insert adds an envelope; one that is already known is left as it is.
func (q *Queue) Insert(it Item) bool {
	if _, known := q.ids[it.ID]; known || it.Type >= types {
		return false
	}
	now := q.clock.Mono()
	age := min(max(q.clock.Now().Sub(it.Created), 0), maxAge)
	ttl := min(max(it.TTL, 0), maxAge)
	i := q.slab.alloc()
	e := q.slab.at(i)
	*e = entry{
		id: it.ID, born: now - age, retry: it.Retry, state: pending,
		warned: uint32(min(max(it.Warned, 0)/time.Second, math.MaxUint32)),
		heap:   -1, prev: -1, next: -1, sprev: -1, snext: -1,
	}
	e.at = e.born + backoff(it.Type, uint64(it.Retry))
	e.expire = e.born + ttl
	if e.expire <= now {
		e.reprieve(now + max(ttl, time.Second))
		e.at = min(e.at, now)
	}
	e.dest = q.enter(it.Type, it.Dest)
	q.ids[it.ID] = i
	q.join(i, e)
	q.heap.push(i, q.key(e))
	return true
}

// Next returns the next thing to do, and marks it as in flight until Done or
// Retry is called for it.
func (q *Queue) Next() (Job, bool) {
	q.ripen()
	now := q.clock.Mono()
	if q.late.head >= 0 && q.expiring < q.conf.MaxInflight {
		return q.expireNext(now), true
	}
	for n := range types {
		t := (q.turn + n) % types
		if q.paused[t] || q.inflight[t] >= q.conf.MaxInflight {
			continue
		}
		if i := q.take(t); i >= 0 {
			q.turn = (t + 1) % types
			return q.start(i, now), true
		}
	}
	return Job{}, false
}

// Wake returns the monotonic moment at which Next has to be asked again, if
// nothing else happens before.
func (q *Queue) Wake() (time.Duration, bool) {
	if len(q.heap.order) == 0 {
		return 0, false
	}
	return q.key(q.slab.at(q.heap.order[0])), true
}

// Done ends the flight of an envelope that needs no further try; the Queue
// forgets it. It tells whether the envelope had been removed meanwhile.
func (q *Queue) Done(id mail.EnvelopeID) (wasRemoved bool) {
	i, e := q.flying(id)
	if e == nil {
		return false
	}
	wasRemoved = e.flags&removed != 0
	q.land(e)
	q.forget(i, e)
	return wasRemoved
}

// Retry ends the flight of an envelope that failed for now. For one that is not
// in flight it reports Removed.
func (q *Queue) Retry(id mail.EnvelopeID) Verdict {
	i, e := q.flying(id)
	if e == nil {
		return Verdict{Removed: true}
	}
	q.land(e)
	if e.flags&removed != 0 {
		q.forget(i, e)
		return Verdict{Removed: true}
	}
	now := q.clock.Mono()
	if e.retry < math.MaxUint16 {
		e.retry++
	}
	e.tried(now)
	e.at = q.moment(e, now)
	e.state = pending
	if e.flags&suspended == 0 {
		q.heap.push(i, q.key(e))
	}
	v := Verdict{Next: q.wall(min(e.at, e.expire), now), Before: time.Duration(e.warned) * time.Second}
	v.Warn = q.warning(e)
	v.Told = time.Duration(e.warned) * time.Second
	return v
}

// SetTold sets the age that the last delay report told, when a report that Retry
// asked for could not be made.
func (q *Queue) SetTold(id mail.EnvelopeID, age time.Duration) {
	if i, ok := q.ids[id]; ok {
		q.slab.at(i).warned = uint32(age / time.Second)
	}
}

// Defer puts what waits in the line of a destination back to its next moment,
// without a try: the destination is known to be out of reach.
func (q *Queue) Defer(t envelope.Type, dest string) int {
	di, ok := q.byKey[destKey{t, dest}]
	if !ok {
		return 0
	}
	now, n := q.clock.Mono(), 0
	for {
		i := q.dests[di].line.head
		if i < 0 {
			return n
		}
		e := q.slab.at(i)
		q.unline(i, e)
		e.tried(now)
		e.state, e.at = pending, q.moment(e, now)
		if e.flags&suspended == 0 {
			q.heap.fix(i, q.key(e))
		} else {
			q.heap.remove(i)
		}
		n++
	}
}

// key is when the heap should bring e up.
func (q *Queue) key(e *entry) time.Duration {
	if e.state == ready {
		return e.expire
	}
	return min(e.at, e.expire)
}

// ripen moves those whose moment has come from the heap to the lines.
func (q *Queue) ripen() {
	now := q.clock.Mono()
	for len(q.heap.order) > 0 {
		i := q.heap.order[0]
		e := q.slab.at(i)
		if q.key(e) > now {
			return
		}
		if e.expire > now || q.paused[q.dests[e.dest].typ] {
			q.ready(i, e)
			continue
		}
		q.heap.remove(i)
		q.expireEntry(i, e)
	}
}

// ready puts a pending entry into its destination's line; the heap keeps it for
// its expiry, unless that has passed already: then start will see.
func (q *Queue) ready(i int32, e *entry) {
	if e.state == pending {
		e.state = ready
		d := &q.dests[e.dest]
		d.line.push(&q.slab, i)
		q.line(e.dest)
	}
	if e.expire > q.clock.Mono() {
		q.heap.fix(i, e.expire)
	} else {
		q.heap.remove(i)
	}
}

func (q *Queue) expireEntry(i int32, e *entry) {
	if e.state == ready {
		q.unline(i, e)
	}
	e.state = expired
	q.late.push(&q.slab, i)
}

func (q *Queue) expireNext(now time.Duration) Job {
	i := q.late.head
	e := q.slab.at(i)
	q.late.remove(&q.slab, i)
	e.state, e.at = inflight, now
	e.heap = expiringMark
	q.expiring++
	d := &q.dests[e.dest]
	return Job{ID: e.id, Type: d.typ, Dest: d.key, Expired: true}
}

// expiringMark in entry.heap tells an expired one in flight, which does not
// count for its destination.
const expiringMark = -2

// start marks the entry that take found as in flight.
func (q *Queue) start(i int32, now time.Duration) Job {
	e := q.slab.at(i)
	q.heap.remove(i)
	d := &q.dests[e.dest]
	if e.expire <= now { // its type was paused
		e.reprieve(now)
	}
	e.state, e.at = inflight, now
	d.running++
	d.started()
	q.inflight[d.typ]++
	q.line(e.dest)
	return Job{ID: e.id, Type: d.typ, Dest: d.key}
}

func (q *Queue) flying(id mail.EnvelopeID) (int32, *entry) {
	i, ok := q.ids[id]
	if !ok {
		return 0, nil
	}
	e := q.slab.at(i)
	if e.state != inflight {
		return 0, nil
	}
	return i, e
}

// land takes e out of what is in flight.
func (q *Queue) land(e *entry) {
	if e.heap == expiringMark {
		e.heap = -1
		q.expiring--
		return
	}
	d := &q.dests[e.dest]
	q.inflight[d.typ]--
	if e.flags&taken != 0 {
		e.flags &^= taken
		return
	}
	d.running--
	d.adjust()
	q.line(e.dest)
}

// Taken tells that an envelope in flight waits no longer, but is being worked
// on: it does not count for the Hold of its destination any more, which bounds
// what waits there.
func (q *Queue) Taken(id mail.EnvelopeID) {
	_, e := q.flying(id)
	if e == nil || e.flags&taken != 0 || e.heap == expiringMark {
		return
	}
	e.flags |= taken
	d := &q.dests[e.dest]
	d.running--
	d.adjust()
	q.line(e.dest)
}

// checked returns conf with what would stop everything set right.
func checked(conf Config) Config {
	conf.MaxInflight = max(conf.MaxInflight, 1)
	if conf.Hold == nil {
		conf.Hold = func(envelope.Type, string) Hold { return Hold{Hiwat: math.MaxInt32} }
	}
	return conf
}
