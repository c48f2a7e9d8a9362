package runq

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
)

// modelEntry says what should be known of an envelope, in the plainest way.
type modelEntry struct {
	typ       envelope.Type
	born      time.Duration
	at        time.Duration
	expire    time.Duration
	retry     uint64
	flying    bool
	removed   bool
	suspended bool
	forced    bool // scheduled while suspended
	reprieve  bool
}

// model has no limits: whatever is due starts.
type model struct {
	c       *clock.Fake
	entries map[mail.EnvelopeID]*modelEntry
	paused  [types]bool
}

func (m *model) next(e *modelEntry) time.Duration {
	for n := e.retry; ; n++ {
		if at := e.born + base(e.typ)*time.Duration(n*n); at > m.c.Mono() {
			return at
		}
	}
}

// due returns what Next should hand out, and marks it so.
func (m *model) due() map[mail.EnvelopeID]bool {
	out := make(map[mail.EnvelopeID]bool)
	now := m.c.Mono()
	for id, e := range m.entries {
		if e.flying || e.suspended && !e.forced || m.paused[e.typ] {
			continue
		}
		if e.expire <= now && !e.reprieve {
			out[id] = true
		} else if e.at <= now {
			out[id] = false
		} else {
			continue
		}
		e.flying, e.forced = true, false
	}
	return out
}

// settle gives a pass to what grew too old while nothing could start it.
func (m *model) excuse(e *modelEntry) {
	if e.expire <= m.c.Mono() {
		e.reprieve, e.at = true, m.c.Mono()
	}
}

// TestModel runs random operations, without limits, against the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		q, c := newQueue(Config{})
		m := &model{c: c, entries: make(map[mail.EnvelopeID]*modelEntry)}
		ops := map[string]func(*rapid.T){
			"insert":   func(t *rapid.T) { m.insert(t, q) },
			"advance":  func(t *rapid.T) { c.Advance(drawDuration(t, "by")) },
			"jump":     func(t *rapid.T) { c.Jump(c.Now().Add(drawDuration(t, "to") - time.Hour)) },
			"run":      func(t *rapid.T) { m.run(t, q) },
			"finish":   func(t *rapid.T) { m.finish(t, q) },
			"remove":   func(t *rapid.T) { m.remove(t, q) },
			"suspend":  func(t *rapid.T) { m.suspend(t, q) },
			"resume":   func(t *rapid.T) { m.resume(t, q) },
			"schedule": func(t *rapid.T) { m.schedule(t, q) },
			"":         func(t *rapid.T) { m.check(t, q) },
		}
		rt.Repeat(ops)
	})
}

func drawDuration(t *rapid.T, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, 7200).Draw(t, label)) * time.Second
}

func drawSelection(t *rapid.T) Selection {
	switch rapid.IntRange(0, 4).Draw(t, "sel") {
	case 0:
		return Selection{}
	case 1, 2:
		return Selection{Message: mail.MessageID(rapid.Uint32Range(1, 4).Draw(t, "msg"))}
	}
	return Selection{Envelope: drawID(t)}
}

func drawID(t *rapid.T) mail.EnvelopeID {
	return evp(rapid.Uint32Range(1, 4).Draw(t, "msg"), rapid.Uint32Range(1, 4).Draw(t, "n"))
}

func (m *model) selected(sel Selection) []*modelEntry {
	var out []*modelEntry
	for id, e := range m.entries {
		if sel == (Selection{}) || sel.Envelope == id || sel.Message == id.Message() && sel.Envelope == 0 {
			out = append(out, e)
		}
	}
	return out
}

func (m *model) insert(t *rapid.T, q *Queue) {
	id := drawID(t)
	it := Item{
		ID: id, Type: envelope.Type(rapid.IntRange(0, types-1).Draw(t, "type")),
		Dest:    rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "dest"),
		Created: m.c.Now().Add(-drawDuration(t, "age")),
		TTL:     drawDuration(t, "ttl"),
		Retry:   rapid.Uint16Range(0, 5).Draw(t, "retry"),
	}
	_, known := m.entries[id]
	if q.Insert(it) == known {
		t.Fatalf("Insert(%v) with known=%v", id, known)
	}
	if known {
		return
	}
	e := &modelEntry{typ: it.Type, born: m.c.Mono() - m.c.Now().Sub(it.Created), retry: uint64(it.Retry)}
	e.expire = e.born + it.TTL
	e.at = e.born + base(e.typ)*time.Duration(e.retry*e.retry)
	m.excuse(e)
	m.entries[id] = e
	m.run(t, q) // a reprieve is bounded in time; the model does not know the bound
}

func (m *model) run(t *rapid.T, q *Queue) {
	want := m.due()
	got := make(map[mail.EnvelopeID]bool)
	for _, j := range drain(q) {
		if _, twice := got[j.ID]; twice {
			t.Fatalf("%v handed out twice", j.ID)
		}
		got[j.ID] = j.Expired
	}
	if !maps.Equal(got, want) {
		t.Fatalf("Next gave %v, want %v", got, want)
	}
}

func (m *model) finish(t *rapid.T, q *Queue) {
	id := drawID(t)
	e := m.entries[id]
	if e == nil || !e.flying {
		return
	}
	e.flying = false
	if rapid.Bool().Draw(t, "done") {
		if q.Done(id) != e.removed {
			t.Fatalf("Done(%v) with removed=%v", id, e.removed)
		}
		delete(m.entries, id)
		return
	}
	v := q.Retry(id)
	if v.Removed != e.removed {
		t.Fatalf("Retry(%v) = %+v with removed=%v", id, v, e.removed)
	}
	if e.removed {
		delete(m.entries, id)
		return
	}
	e.retry++
	e.at = m.next(e)
	if e.reprieve {
		e.reprieve, e.expire = false, m.c.Mono()
	}
	if got, want := v.Next.Sub(m.c.Now()), min(e.at, e.expire)-m.c.Mono(); got != want {
		t.Fatalf("next in %v, want %v", got, want)
	}
}

func (m *model) remove(t *rapid.T, q *Queue) {
	sel := drawSelection(t)
	want := 0
	for id, e := range m.entries {
		if !slices.Contains(m.selected(sel), e) || e.removed {
			continue
		}
		if !e.flying {
			delete(m.entries, id)
			want++
		} else if q.slab.at(q.ids[id]).heap != expiringMark {
			e.removed = true
			want++
		}
	}
	if gone, flying := q.Remove(sel); len(gone)+len(flying) != want {
		t.Fatalf("Remove(%v) = %v, %v, want %d", sel, gone, flying, want)
	}
}

func (m *model) suspend(t *rapid.T, q *Queue) {
	m.run(t, q)
	sel := drawSelection(t)
	want := 0
	for _, e := range m.selected(sel) {
		if !e.suspended && !e.removed {
			e.suspended = true
			want++
		}
	}
	if got := q.Suspend(sel); got != want {
		t.Fatalf("Suspend(%v) = %d, want %d", sel, got, want)
	}
}

func (m *model) resume(t *rapid.T, q *Queue) {
	m.run(t, q)
	sel := drawSelection(t)
	want := 0
	for _, e := range m.selected(sel) {
		if e.suspended {
			e.suspended = false
			want++
			if !e.flying {
				m.excuse(e)
			}
		}
	}
	if got := q.Resume(sel); got != want {
		t.Fatalf("Resume(%v) = %d, want %d", sel, got, want)
	}
	m.run(t, q)
}

func (m *model) schedule(t *rapid.T, q *Queue) {
	m.run(t, q)
	sel := drawSelection(t)
	want := 0
	for _, e := range m.selected(sel) {
		if !e.flying {
			e.at, e.forced = m.c.Mono(), true
			m.excuse(e)
			want++
		}
	}
	if got := q.Schedule(sel); got != want {
		t.Fatalf("Schedule(%v) = %d, want %d", sel, got, want)
	}
	m.run(t, q)
}

func (m *model) check(t *rapid.T, q *Queue) {
	flying := 0
	var seen []mail.EnvelopeID
	for id, e := range m.entries {
		if e.flying {
			flying++
		}
		if !e.removed {
			seen = append(seen, id)
		}
		if i, ok := q.Info(id); ok != !e.removed || ok && (i.Inflight != e.flying || i.Suspended != e.suspended) {
			t.Fatalf("Info(%v) = %+v, %v, want %+v", id, i, ok, e)
		}
	}
	c := q.Counts()
	if c.Envelopes != len(m.entries) || c.Expiring+c.Inflight[0]+c.Inflight[1]+c.Inflight[2] != flying {
		t.Fatalf("Counts() = %+v, want %d envelopes, %d in flight", c, len(m.entries), flying)
	}
	slices.Sort(seen)
	if got := q.IDs(Selection{}); !slices.Equal(got, seen) {
		t.Fatalf("IDs = %v, want %v", got, seen)
	}
	if err := consistent(q); err != nil {
		t.Fatal(err)
	}
}

// consistent checks what must always hold inside.
func consistent(q *Queue) error {
	for n, i := range q.heap.order {
		e := q.slab.at(i)
		if int(e.heap) != n || q.heap.keys[n] != q.key(e) {
			return fmt.Errorf("heap place %d: %+v, key %v", n, e, q.heap.keys[n])
		}
		if n > 0 && q.heap.keys[(n-1)/4] > q.heap.keys[n] {
			return fmt.Errorf("heap out of order at %d", n)
		}
	}
	running := make(map[int32]int)
	for _, i := range q.ids {
		if e := q.slab.at(i); e.state == inflight && e.heap != expiringMark {
			running[e.dest]++
		}
	}
	for i := range q.dests {
		if d := &q.dests[i]; d.running != running[int32(i)] {
			return fmt.Errorf("destination %q counts %d running, want %d", d.key, d.running, running[int32(i)])
		}
	}
	return nil
}

// TestLimits holds that no bound is ever passed and that everything is tried in
// the end, whatever ends when.
func TestLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hold := Hold{
			Hiwat:   rapid.IntRange(0, 6).Draw(t, "hiwat"),
			Lowat:   rapid.IntRange(0, 6).Draw(t, "lowat"),
			Release: rapid.IntRange(0, 4).Draw(t, "release"),
		}
		limit := rapid.IntRange(1, 8).Draw(t, "max-inflight")
		q, c := newQueue(Config{MaxInflight: limit, Hold: func(envelope.Type, string) Hold { return hold }})
		n := rapid.IntRange(1, 60).Draw(t, "envelopes")
		for i := range uint32(n) {
			it := local(c, evp(i+1, 1), rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "dest"))
			it.Type = envelope.Type(rapid.IntRange(0, types-1).Draw(t, "type"))
			q.Insert(it)
		}
		var flying []mail.EnvelopeID
		for n > 0 {
			for _, j := range drain(q) {
				flying = append(flying, j.ID)
			}
			withinLimits(t, q, limit, max(hold.Hiwat, 1))
			if len(flying) == 0 {
				t.Fatalf("%d are left and none starts", n)
			}
			i := rapid.IntRange(0, len(flying)-1).Draw(t, "ends")
			q.Done(flying[i])
			flying = slices.Delete(flying, i, i+1)
			n--
		}
		if c := q.Counts(); c.Envelopes+c.Messages != 0 {
			t.Fatalf("left: %+v", c)
		}
	})
}

func withinLimits(t *rapid.T, q *Queue, limit, hiwat int) {
	for typ, n := range q.Counts().Inflight {
		if n > limit {
			t.Fatalf("type %d has %d in flight", typ, n)
		}
	}
	for _, i := range q.byKey {
		if d := &q.dests[i]; d.running > hiwat {
			t.Fatalf("%q has %d in flight", d.key, d.running)
		}
	}
	if err := consistent(q); err != nil {
		t.Fatal(err)
	}
}
