package lka

import (
	"testing"

	"opensmtpd/src/lookup/table"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

func TestQuery(t *testing.T) {
	r := newSystem(t, `
table users { "joe" = "joe:$2b$10$secret" }
table nets { 192.0.2.0/24, "[2001:db8::/32]" }
listen on 127.0.0.1 auth <users>
table names { "192.0.2.1" = "mx1.example.org" }
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
		{table.String, false, "users", "joe", false, "", "451 4.3.0 Temporary failure"},
		{table.Alias, false, "users", "joe", false, "", "451 4.3.0 Temporary failure"},
		{table.String, true, "users", "joe", true, "", ""},
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
	m, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.RelayLookup{Gen: 1, Service: msg.RelaySecret, Table: "users", Key: "joe"})
	if fail != nil || m.(*msg.RelayLookupReply).Err == nil || m.(*msg.RelayLookupReply).Password != "" {
		t.Errorf("a relay is told the hash of a user: %+v, %v", m, fail)
	}
}
