package queue

import (
	"testing"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/journal"
)

// An update that is written while its envelope becomes a file stays in force: the
// file holds the state before it.
func TestSpooledAfterUpdate(t *testing.T) {
	x := newIndex()
	seg := &journal.Segment{Epoch: 7}
	id := mail.EnvelopeID(1)<<32 | 5
	before := ref{seg: seg, off: 100, n: 10}
	x.messages[1] = &message{id: 1, at: ref{seg: seg}, envs: []entry{{Summary{ID: id}, before}}}
	after := ref{seg: seg, off: 200, n: 10}
	if !x.update(Summary{ID: id, Retry: 1}, after) {
		t.Fatal("the envelope does not live")
	}
	m := x.spooled(1, []moved{{5, 7, 100}})
	if e := m.find(id); !m.spooled || e.at != after || e.Retry != 1 {
		t.Errorf("the update is gone: %+v", e)
	}
	if m = x.spooled(1, []moved{{5, 7, 200}}); m.find(id).at != (ref{}) {
		t.Errorf("the state that was written is not taken from the file: %+v", m.find(id))
	}
	if x.update(Summary{ID: id + 1}, after) || x.complete(id+1, 7) != nil || x.spooled(2, nil) != nil {
		t.Error("something unknown was changed")
	}
}

// Identifiers are held until the segment that completes them goes.
func TestHold(t *testing.T) {
	x := newIndex()
	x.hold(1, 7)
	x.hold(1, 8) // replayed
	x.hold(2, 8)
	x.release(8)
	if _, ok := x.held[1]; !ok {
		t.Error("released too early")
	}
	x.release(7)
	if len(x.held) != 0 || len(x.byEpoch) != 0 {
		t.Errorf("still held: %v", x.held)
	}
}

// Payloads survive the way to bytes and back, and cut ones are refused.
func TestPayloads(t *testing.T) {
	h := head{id: 3, envelopes: 2, size: 4, done: []mail.EnvelopeID{1 << 32, 2 << 32}, body: []byte("body")}
	b := h.append(nil)
	got, err := parseHead(b)
	if err != nil || got.id != 3 || got.envelopes != 2 || len(got.done) != 2 || string(got.body) != "body" || got.file {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := parseHead(b[:n]); err == nil {
			t.Errorf("a message record of %d of %d bytes was accepted", n, len(b))
		}
	}
	gaps, ids, err := parseDiscard(appendDiscard(nil, []gap{{1, 2}}, []mail.MessageID{9}))
	if err != nil || len(gaps) != 1 || gaps[0] != (gap{1, 2}) || len(ids) != 1 || ids[0] != 9 {
		t.Errorf("%v %v %v", gaps, ids, err)
	}
	for _, v := range []state{{"k", "key", []byte("value")}, {"k", "key", []byte{}}, {"k", "key", nil}} {
		got, err := parseState(v.append(nil))
		if err != nil || got.kind != v.kind || got.key != v.key || string(got.value) != string(v.value) || (got.value == nil) != (v.value == nil) {
			t.Errorf("%+v became %+v, %v", v, got, err)
		}
	}
}

// FuzzPayloads: no bytes make a reader of payloads panic.
func FuzzPayloads(f *testing.F) {
	h := head{id: 3, envelopes: 2, size: 4, done: []mail.EnvelopeID{1 << 32}, body: []byte("body")}
	f.Add(h.append(nil))
	f.Add(appendSpooled(nil, 1, []moved{{1, 2, 3}}))
	f.Add(appendDiscard(nil, []gap{{1, 2}}, []mail.MessageID{9}))
	f.Add((&state{"kind", "key", []byte("value")}).append(nil))
	m := message{id: 1, envs: []entry{{Summary: Summary{ID: 1 << 32, Action: "a", Domain: "b", User: "c"}}}}
	f.Add(m.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHead(b); err == nil && len(h.body) > len(b) {
			t.Error("a body out of nowhere")
		}
		if _, envs, err := parseSpooled(b); err == nil && len(envs)*movedSize > len(b) {
			t.Error("envelopes out of nowhere")
		}
		if gaps, ids, err := parseDiscard(b); err == nil && len(gaps)*16+len(ids)*4 > len(b) {
			t.Error("identifiers out of nowhere")
		}
		if s, err := parseState(b); err == nil && len(s.key)+len(s.kind)+len(s.value) > len(b) {
			t.Error("a value out of nowhere")
		}
		d := decoder{b: b}
		if m, _ := d.message(); len(m.envs) > len(b)/8 {
			t.Error("envelopes out of nowhere")
		}
	})
}
