package lka

import (
	"testing"

	"opensmtpd/src/lookup/table"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

func TestQuery(t *testing.T) {
	r := newSystem(t, `
table nets { 192.0.2.0/24, "[2001:db8::/32]" }
listen on 192.0.2.1
table names { "192.0.2.1" = "mx1.example.org" }
table users { "joe" = "joe:$2b$10$secret" }
action "local" mbox
match for local action "local"
match from src <nets> for any reject
`).role()
	for _, tc := range []struct {
		service    table.Service
		match      bool
		table, key string
		found      bool
		value, err string
	}{
		{table.NetAddr, true, "nets", "192.0.2.77", true, "", ""},
		{table.NetAddr, true, "nets", "[2001:db8::1]", true, "", ""},
		{table.NetAddr, true, "nets", "192.0.3.1", false, "", ""},
		{table.AddrName, false, "names", "192.0.2.1", true, "mx1.example.org", ""},
		{table.AddrName, false, "names", "192.0.2.2", false, "", ""},
		{table.AddrName, true, "names", "192.0.2.1", true, "", ""},
		{table.Credentials, false, "users", "joe", false, "", "451 4.3.0 Temporary failure"},
		{table.Auth, true, "users", "joe", false, "", "451 4.3.0 Temporary failure"},
		{table.String, true, "no such table", "x", false, "", "451 4.3.0 Temporary failure"},
	} {
		m, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.Query{Gen: 1, Service: uint8(tc.service), Match: tc.match, Table: tc.table, Key: tc.key})
		if fail != nil {
			t.Fatal(fail)
		}
		got := m.(*msg.Answer)
		err := ""
		if got.Err != nil {
			err = got.Err.Reply()
		}
		if got.Found != tc.found || got.Value != tc.value || err != tc.err {
			t.Errorf("%+v: %+v, %v", tc, got, err)
		}
	}
}
