package msg

import (
	"errors"
	"testing"

	"opensmtpd/src/mailerr"
)

// authSamples holds the messages of authentication, full and empty.
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

// TestAuthenticatedIsClear: an answer that says both yes and "I do not know" is
// no yes.
func TestAuthenticatedIsClear(t *testing.T) {
	b := (&Authenticated{OK: true, Err: mailerr.Local(nil)}).Append(nil)
	var m Authenticated
	if err := m.Parse(b); err == nil || m.OK {
		t.Errorf("%+v, %v", m, err)
	}
}
