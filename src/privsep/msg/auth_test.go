package msg

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"opensmtpd/src/mailerr"
)

func authSamples() []Parser {
	return []Parser{
		&Authenticate{Gen: 3, Session: 7, Table: "users", User: "bob@example.org", Password: "a:b\\ \xff"},
		&Authenticate{},
		&Authenticated{OK: true},
		&Authenticated{},
		&Authenticated{Err: mailerr.Local(errors.New("table users: gone"))},
		&Scram{Gen: 3, Table: "users", First: "n,,n=bob,r=x", Challenge: "r=xy,s=,i=1", Final: "c=biws,r=xy,p="},
		&Scrammed{OK: true, User: "bob", Text: "v="},
		&Scrammed{Malformed: true},
		&Scrammed{Err: mailerr.Local(errors.New("gone"))},
		&SystemAuth{User: "bob", Password: "secret"},
	}
}

func emptyAuth(t Type) Parser {
	switch t {
	case TypeAuthenticate:
		return new(Authenticate)
	case TypeAuthenticated:
		return new(Authenticated)
	case TypeScram:
		return new(Scram)
	case TypeScrammed:
		return new(Scrammed)
	}
	return new(SystemAuth)
}

func TestAuthMessages(t *testing.T) {
	for _, m := range authSamples() {
		b := m.Append(nil)
		got := emptyAuth(m.Type())
		if err := got.Parse(b); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, got, cmpopts.IgnoreFields(mailerr.Error{}, "Cause")); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
		for n := range b {
			if err := emptyAuth(m.Type()).Parse(b[:n]); err == nil {
				t.Errorf("%T: %d of %d bytes are accepted", m, n, len(b))
			}
		}
	}
}

// TestAuthenticatedIsClear: an answer that says both yes and "I do not know" is
// no yes.
func TestAuthenticatedIsClear(t *testing.T) {
	b := (&Authenticated{OK: true, Err: mailerr.Local(nil)}).Append(nil)
	var m Authenticated
	if err := m.Parse(b); err == nil || m.OK {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzAuthMessages(f *testing.F) {
	for _, m := range authSamples() {
		f.Add(uint16(m.Type()), m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		m := emptyAuth(Type(typ))
		if m.Parse(b) != nil {
			return
		}
		again := emptyAuth(m.Type())
		if err := again.Parse(m.Append(nil)); err != nil {
			t.Fatalf("%#v does not survive: %v", m, err)
		}
		if !bytes.Equal(again.Append(nil), m.Append(nil)) {
			t.Fatalf("%#v changes", m)
		}
	})
}
