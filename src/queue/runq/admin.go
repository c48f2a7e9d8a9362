package runq

import (
	"slices"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
)

// Selection is what an administrator's command is about: one envelope, all of a
// message, or, when both are zero, everything.
type Selection struct {
	Envelope mail.EnvelopeID
	Message  mail.MessageID
}

// Info is what is known of an envelope in the queue.
type Info struct {
	ID        mail.EnvelopeID
	Type      envelope.Type
	Inflight  bool
	Suspended bool
	Held      bool      // due, and waiting for its destination
	When      time.Time // of the next try, or of the start when in flight
	Retry     uint16
}

// Counts tells how many envelopes are where.
type Counts struct {
	Envelopes, Messages    int
	Inflight               [types]int // by envelope.Type
	Expiring, Destinations int
}

// Counts returns the present numbers.
func (q *Queue) Counts() Counts {
	return Counts{
		Envelopes: len(q.ids), Messages: len(q.msgs),
		Inflight: q.inflight, Expiring: q.expiring, Destinations: len(q.byKey),
	}
}

// Info returns what is known of one envelope. One that was removed in flight is
// not known any more.
func (q *Queue) Info(id mail.EnvelopeID) (Info, bool) {
	i, ok := q.ids[id]
	if !ok {
		return Info{}, false
	}
	e := q.slab.at(i)
	if e.flags&removed != 0 {
		return Info{}, false
	}
	return Info{
		ID: e.id, Type: q.dests[e.dest].typ, Retry: e.retry,
		Inflight:  e.state == inflight,
		Suspended: e.flags&suspended != 0,
		Held:      e.state == ready,
		When:      q.wall(e.at, q.clock.Mono()),
	}, true
}

// Alone tells whether a message has no more than one envelope left.
func (q *Queue) Alone(m mail.MessageID) bool {
	i, ok := q.msgs[m]
	return !ok || q.slab.at(i).snext < 0
}

// IDs returns the selected envelopes in ascending order.
func (q *Queue) IDs(sel Selection) []mail.EnvelopeID {
	var ids []mail.EnvelopeID
	q.each(sel, func(_ int32, e *entry) {
		if e.flags&removed == 0 {
			ids = append(ids, e.id)
		}
	})
	slices.Sort(ids)
	return ids
}

// each calls f for the selected entries; f may forget the one it is given.
func (q *Queue) each(sel Selection, f func(i int32, e *entry)) {
	switch {
	case sel.Envelope != 0:
		if i, ok := q.ids[sel.Envelope]; ok {
			f(i, q.slab.at(i))
		}
	case sel.Message != 0:
		q.siblings(sel.Message, f)
	default:
		for _, i := range q.ids {
			f(i, q.slab.at(i))
		}
	}
}

// Schedule makes the selected envelopes due now and returns how many. Those in
// flight do not count; a suspended one is tried once and stays suspended.
func (q *Queue) Schedule(sel Selection) int {
	n := 0
	q.each(sel, func(i int32, e *entry) {
		switch e.state {
		case pending:
			e.at = q.clock.Mono()
			e.excuse(e.at)
			q.ready(i, e)
			n++
		case ready: // to the head of its line
			d := &q.dests[e.dest]
			d.line.remove(&q.slab, i)
			d.line.pushFront(&q.slab, i)
			n++
		}
	})
	return n
}

// excuse lets an entry that an administrator kept from being tried until it was
// too old have one try.
func (e *entry) excuse(now time.Duration) {
	if e.expire <= now {
		e.reprieve(now + excused)
		e.at = now
	}
}

// excused is how long an excused entry may wait for its try.
const excused = time.Hour

// Remove takes the selected envelopes out for good and returns them. Those that
// are in flight are told in flying; they will not come back whatever their
// result, and Done or Retry must still be called for them.
func (q *Queue) Remove(sel Selection) (gone, flying []mail.EnvelopeID) {
	q.each(sel, func(i int32, e *entry) {
		switch {
		case e.flags&removed != 0 || e.state == inflight && e.heap == expiringMark:
		case e.state == inflight:
			e.flags |= removed
			flying = append(flying, e.id)
		default:
			gone = append(gone, e.id)
			q.detach(i, e)
			q.forget(i, e)
		}
	})
	return gone, flying
}

// detach takes an entry that is not in flight out of heap and lines.
func (q *Queue) detach(i int32, e *entry) {
	q.heap.remove(i)
	switch e.state {
	case ready:
		q.unline(i, e)
	case expired:
		q.late.remove(&q.slab, i)
	}
	e.state = pending
}

// Suspend keeps the selected envelopes from being tried, and from expiring,
// until Resume. One in flight is not interrupted. It returns how many changed.
func (q *Queue) Suspend(sel Selection) int {
	n := 0
	q.each(sel, func(i int32, e *entry) {
		if e.flags&(suspended|removed) != 0 {
			return
		}
		e.flags |= suspended
		n++
		if e.state != inflight {
			q.detach(i, e)
		}
	})
	return n
}

// Resume undoes Suspend and returns how many changed.
func (q *Queue) Resume(sel Selection) int {
	n := 0
	q.each(sel, func(i int32, e *entry) {
		if e.flags&suspended == 0 {
			return
		}
		e.flags &^= suspended
		n++
		if e.state == pending {
			e.excuse(q.clock.Mono())
			q.heap.fix(i, q.key(e))
		}
	})
	return n
}

// Pause stops everything of a type from starting, and from expiring.
func (q *Queue) Pause(t envelope.Type) { q.paused[t] = true }

// Unpause undoes Pause.
func (q *Queue) Unpause(t envelope.Type) { q.paused[t] = false }

// Paused tells whether a type is paused.
func (q *Queue) Paused(t envelope.Type) bool { return q.paused[t] }
