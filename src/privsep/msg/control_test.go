package msg

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func controlMessages() []Parser {
	return []Parser{
		&Control{},
		&Control{Verb: VerbRemove, UID: 1000, Operator: true, Args: []string{"all", ""}, Cursor: "17"},
		&ControlRows{},
		&ControlRows{Rows: [][]byte{[]byte(`{"a":1}`), []byte("{}")}, Raw: []byte("From: x\n"), Count: 9, Next: "8"},
		&LocalSession{UID: 1000, GID: 1001},
		&Stats{},
		&StatsReply{},
		&StatsReply{Counters: []Counter{{"mda.user", 3, 1}, {"smtp.session", 1 << 40, -1}}},
	}
}

func empty(t Type) Parser {
	switch t {
	case TypeControl:
		return new(Control)
	case TypeControlRow:
		return new(ControlRows)
	case TypeLocalSession:
		return new(LocalSession)
	case TypeStats:
		return new(Stats)
	}
	return new(StatsReply)
}

func TestControlMessages(t *testing.T) {
	for _, m := range controlMessages() {
		b := m.Append(nil)
		got := empty(m.Type())
		if err := got.Parse(b); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
		for n := range b {
			if err := empty(m.Type()).Parse(b[:n]); err == nil {
				t.Errorf("%T: %d of %d bytes are accepted", m, n, len(b))
			}
		}
	}
}

func FuzzControlMessages(f *testing.F) {
	for _, m := range controlMessages() {
		f.Add(uint16(m.Type()), m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		m := empty(Type(typ))
		if m.Parse(b) != nil {
			return
		}
		again := empty(m.Type())
		if err := again.Parse(m.Append(nil)); err != nil {
			t.Fatalf("%#v does not survive: %v", m, err)
		}
		if !bytes.Equal(again.Append(nil), m.Append(nil)) {
			t.Fatalf("%#v changes", m)
		}
	})
}
