package msg

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"opensmtpd/src/mailerr"
)

func querySamples() []Parser {
	return []Parser{
		&Query{Gen: 3, Service: 4, Match: true, Table: "bad", Key: "[2001:db8::1]"},
		&Query{},
		&Answer{Found: true, Value: "mx.example.org"},
		&Answer{Err: mailerr.Temporary(451, 4, 3, "Temporary failure", errors.New("table program died"))},
		&Program{Identity: "proc:rspamd"},
		&ProgramEnd{Identity: "proc:rspamd"},
	}
}

func emptyQuery(t Type) Parser {
	switch t {
	case TypeQuery:
		return new(Query)
	case TypeAnswer:
		return new(Answer)
	case TypeProgram:
		return new(Program)
	}
	return new(ProgramEnd)
}

func TestQueries(t *testing.T) {
	for _, m := range querySamples() {
		b := m.Append(nil)
		got := emptyQuery(m.Type())
		if err := got.Parse(b); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, got, cmpopts.IgnoreFields(mailerr.Error{}, "Cause")); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
		for n := range b {
			if err := emptyQuery(m.Type()).Parse(b[:n]); err == nil {
				t.Errorf("%T: %d of %d bytes are accepted", m, n, len(b))
			}
		}
	}
}

func FuzzQueries(f *testing.F) {
	for _, m := range querySamples() {
		f.Add(uint16(m.Type()), m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		m := emptyQuery(Type(typ))
		if m.Parse(b) != nil {
			return
		}
		again := emptyQuery(m.Type())
		if err := again.Parse(m.Append(nil)); err != nil {
			t.Fatalf("%#v does not survive: %v", m, err)
		}
		if !bytes.Equal(again.Append(nil), m.Append(nil)) {
			t.Fatalf("%#v changes", m)
		}
	})
}
