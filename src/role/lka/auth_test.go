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

// TestScram: the rest is package auth's.
func TestScram(t *testing.T) {
	r := newSystem(t, `
table users { "bob" = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }
table others { "bob" = "*" }
listen on 192.0.2.1
action "local" mbox
match for local action "local"
`).role()
	say := func(m *msg.Scram) *msg.Scrammed {
		t.Helper()
		m.Gen = 1
		got, fail := ask(t, t.Context(), r, proc.Dispatcher, m)
		if fail != nil {
			t.Fatal(fail)
		}
		return got.(*msg.Scrammed)
	}
	if !say(&msg.Scram{Table: "users"}).OK || say(&msg.Scram{Table: "others"}).OK || say(&msg.Scram{Table: "nosuch"}).Err == nil {
		t.Error("offered for the wrong tables")
	}
	const first = "n,,n=bob,r=abc"
	one := say(&msg.Scram{Table: "users", First: first})
	if one.User != "bob" || !strings.HasPrefix(one.Text, "r=abc") || !strings.HasSuffix(one.Text, ",s=c2FsdA==,i=4096") {
		t.Errorf("%+v", one)
	}
	nonce := strings.Split(one.Text, ",")[0]
	if two := say(&msg.Scram{Table: "users", First: first, Challenge: one.Text, Final: "c=biws," + nonce + ",p=AAAA"}); two.OK || two.Malformed || two.User != "bob" {
		t.Errorf("%+v", two)
	}
	if bad := say(&msg.Scram{Table: "users", First: "bob"}); !bad.Malformed {
		t.Errorf("%+v", bad)
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
