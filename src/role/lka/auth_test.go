package lka

import (
	"errors"
	"strings"
	"testing"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

func TestAuthenticate(t *testing.T) {
	s := newSystem(t, `
table users { "bob" = "$5$abcdefgh$/WbF7hh2Rqub2Pg0NDsoXLNAVk5LJNUZfpbNq5WvYn5", "off" = "*" }
listen on 192.0.2.1
action "local" mbox
match for local action "local"
-- users --
carol:1000:1000:/home/carol
`)
	r := s.role()
	const password = "Zürich pass: 1"
	for _, tc := range []struct {
		table, user, password string
		ok                    bool
		trouble               string
	}{
		{"users", "bob", password, true, ""},
		{"users", "bob", "x", false, ""},
		{"users", "off", "*", false, ""},
		{"users", "carol", password, false, ""},
		{"", "carol", password, true, ""},
		{"", "carol", "x", false, ""},
		{"", "bob", password, false, ""},
		{"", "trouble", password, false, "no shadow"},
		{"nosuch", "bob", password, false, "no such table"},
	} {
		m, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.Authenticate{Gen: 1, Table: tc.table, User: tc.user, Password: tc.password})
		if fail != nil {
			t.Fatal(fail)
		}
		got := m.(*msg.Authenticated)
		if got.OK != tc.ok || (got.Err == nil) != (tc.trouble == "") || got.Err != nil && !strings.Contains(got.Err.Cause.Error(), tc.trouble) {
			t.Errorf("%+v: %v, %v", tc, got.OK, got.Err)
		}
	}
	s.parent = errors.New("gone")
	m, _ := ask(t, t.Context(), r, proc.Dispatcher, &msg.Authenticate{Gen: 1, User: "carol", Password: password})
	if got := m.(*msg.Authenticated); got.OK || got.Err == nil {
		t.Errorf("without parent: %+v", got)
	}
}

// account plays parent for SystemAuth.
func (p parentPeer) account(m *msg.SystemAuth) msg.Authenticated {
	if m.User == "trouble" {
		return msg.Authenticated{Err: mailerr.Local(errors.New("no shadow"))}
	}
	_, known := p.users[m.User]
	return msg.Authenticated{OK: known && m.Password == "Zürich pass: 1"}
}
