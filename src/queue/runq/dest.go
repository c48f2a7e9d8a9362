package runq

import (
	"math"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
)

type destKey struct {
	typ envelope.Type
	key string
}

// dest is a destination for as long as an envelope for it is known.
type dest struct {
	key     string
	hold    Hold
	line    line
	refs    int // envelopes
	running int
	credit  int // how many may start while held
	typ     envelope.Type
	held    bool
	inRing  bool
}

// open tells whether one more may start.
func (d *dest) open() bool {
	return d.running < max(d.hold.Hiwat, 1) && (!d.held || d.credit > 0)
}

// started counts one that was just added to running.
func (d *dest) started() {
	if d.held {
		d.credit--
	}
	if d.running >= max(d.hold.Hiwat, 1) {
		d.held, d.credit = true, 0
	}
}

// adjust lets more start once lowat is reached; one that is idle is never held.
func (d *dest) adjust() {
	if !d.held {
		return
	}
	switch {
	case d.running == 0:
		d.held = false
	case d.running <= d.hold.Lowat:
		d.credit = d.hold.Release
		if d.credit <= 0 {
			d.credit = math.MaxInt
		}
	}
	if d.line.head < 0 && d.running <= d.hold.Lowat {
		d.held = false
	}
}

// enter returns the destination, with one reference more.
func (q *Queue) enter(t envelope.Type, key string) int32 {
	k := destKey{t, key}
	if i, ok := q.byKey[k]; ok {
		q.dests[i].refs++
		return i
	}
	d := dest{key: key, typ: t, hold: q.conf.Hold(t, key), line: emptyLine, refs: 1}
	var i int32
	if n := len(q.spare); n > 0 {
		i, q.spare = q.spare[n-1], q.spare[:n-1]
		q.dests[i] = d
	} else {
		i = int32(len(q.dests))
		q.dests = append(q.dests, d)
	}
	q.byKey[k] = i
	return i
}

// leave drops one reference. A destination that is still in a ring is freed
// when take meets it there.
func (q *Queue) leave(i int32) {
	d := &q.dests[i]
	d.refs--
	if d.refs > 0 || d.inRing {
		return
	}
	q.drop(i)
}

func (q *Queue) drop(i int32) {
	d := &q.dests[i]
	delete(q.byKey, destKey{d.typ, d.key})
	*d = dest{}
	q.spare = append(q.spare, i)
}

// line puts a destination that may start something into the ring of its type.
func (q *Queue) line(i int32) {
	d := &q.dests[i]
	if d.inRing || d.line.head < 0 || !d.open() {
		return
	}
	d.inRing = true
	q.rings[d.typ].push(i)
}

// unline takes an entry out of the line of its destination.
func (q *Queue) unline(i int32, e *entry) {
	d := &q.dests[e.dest]
	d.line.remove(&q.slab, i)
}

// take returns the first in the line of the destination whose turn it is, out
// of that line, or -1. The caller starts it, which puts the destination back at
// the end of the ring.
func (q *Queue) take(t int) int32 {
	r := &q.rings[t]
	for r.len > 0 {
		di := r.pop()
		d := &q.dests[di]
		d.inRing = false
		if d.refs == 0 {
			q.drop(di)
			continue
		}
		if i := d.line.head; i >= 0 && d.open() {
			d.line.remove(&q.slab, i)
			return i
		}
	}
	return -1
}

// ring is a queue of destinations that take turns.
type ring struct {
	buf   []int32
	first int
	len   int
}

func (r *ring) push(i int32) {
	if r.len == len(r.buf) {
		buf := make([]int32, max(16, 2*len(r.buf)))
		n := copy(buf, r.buf[r.first:])
		copy(buf[n:], r.buf[:r.first])
		r.buf, r.first = buf, 0
	}
	r.buf[(r.first+r.len)%len(r.buf)] = i
	r.len++
}

func (r *ring) pop() int32 {
	i := r.buf[r.first]
	r.first = (r.first + 1) % len(r.buf)
	r.len--
	return i
}

// join chains an entry to those of the same message.
func (q *Queue) join(i int32, e *entry) {
	m := e.id.Message()
	if first, ok := q.msgs[m]; ok {
		e.snext = first
		q.slab.at(first).sprev = i
	}
	q.msgs[m] = i
}

// forget removes an entry that is in no line and no heap.
func (q *Queue) forget(i int32, e *entry) {
	delete(q.ids, e.id)
	switch m := e.id.Message(); {
	case e.sprev >= 0:
		q.slab.at(e.sprev).snext = e.snext
	case e.snext >= 0:
		q.msgs[m] = e.snext
	default:
		delete(q.msgs, m)
	}
	if e.snext >= 0 {
		q.slab.at(e.snext).sprev = e.sprev
	}
	q.leave(e.dest)
	q.slab.release(i)
}

// siblings calls f for each envelope of a message; f may forget the one it is
// given.
func (q *Queue) siblings(m mail.MessageID, f func(i int32, e *entry)) {
	i, ok := q.msgs[m]
	for ok && i >= 0 {
		e := q.slab.at(i)
		next := e.snext
		f(i, e)
		i = next
	}
}
