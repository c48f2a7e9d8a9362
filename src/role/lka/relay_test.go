package lka

import (
	"net/netip"
	"testing"

	"opensmtpd/src/lookup/dns"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

const relayConf = `
table secrets { label = "joe:pass:word" }
table hosts { "smtp://one.example", "smtp://two.example" }
table routes { "far.example" = "smtp://three.example" }
table names { "192.0.2.1" = "out.example.org", "2001:db8::1" = "six.example.org" }
table sources { 192.0.2.1, 2001:db8::1 }
action "out" relay host "smtp+tls://label@relay.example" auth <secrets>
action "in turn" relay host <hosts>
action "by domain" relay domain <routes>
action "from" relay src <sources> helo-src <names>
match from any for any action "out"
`

func TestRelayLookup(t *testing.T) {
	r := newSystem(t, relayConf).role()
	for _, tc := range []struct {
		service              msg.RelayService
		table, key           string
		found                bool
		value, password, err string
	}{
		{msg.RelaySecret, "secrets", "label", true, "joe", "pass:word", ""},
		{msg.RelaySecret, "secrets", "nobody", false, "", "", ""},
		{msg.RelayHost, "routes", "FAR.example", true, "smtp://three.example", "", ""},
		{msg.RelayHost, "routes", "near.example", false, "", "", ""},
		{msg.RelayHost, "hosts", "", true, "smtp://one.example", "", ""},
		{msg.RelayHost, "hosts", "", true, "smtp://two.example", "", ""},
		{msg.RelayHost, "hosts", "", true, "smtp://one.example", "", ""},
		{msg.RelayHelo, "names", "192.0.2.1", true, "out.example.org", "", ""},
		{msg.RelayHelo, "names", "2001:db8::1", true, "six.example.org", "", ""},
		{msg.RelayHelo, "names", "192.0.2.2", false, "", "", ""},
		{msg.RelayHelo, "names", "rubbish", false, "", "", "451 4.3.0 Temporary failure"},
		{msg.RelaySource, "sources", "", true, "192.0.2.1", "", ""},
		{msg.RelaySource, "sources", "", true, "2001:db8::1", "", ""},
		{msg.RelaySource, "no such table", "", false, "", "", "451 4.3.0 Temporary failure"},
	} {
		m, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.RelayLookup{Gen: 1, Service: tc.service, Table: tc.table, Key: tc.key})
		if fail != nil {
			t.Fatal(fail)
		}
		got := m.(*msg.RelayLookupReply)
		err := ""
		if got.Err != nil {
			err = got.Err.Reply()
		}
		if got.Found != tc.found || got.Value != tc.value || got.Password != tc.password || err != tc.err {
			t.Errorf("%+v: %+v, %v", tc, got, err)
		}
	}
}

// What hosts(5) knows needs no DNS; addresses of this machine are told.
func TestMX(t *testing.T) {
	r := newSystem(t, relayConf).role()
	for domain, want := range map[string]msg.MXHost{
		"localhost":   {Name: "localhost", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Local: []bool{true}},
		"[192.0.2.1]": {Name: "[192.0.2.1]", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Local: []bool{true}},
		// Loopback is here whatever address of it, and so is what connects to it.
		"[127.9.9.9]":   {Name: "[127.9.9.9]", Addrs: []netip.Addr{netip.MustParseAddr("127.9.9.9")}, Local: []bool{true}},
		"[0.0.0.0]":     {Name: "[0.0.0.0]", Addrs: []netip.Addr{netip.MustParseAddr("0.0.0.0")}, Local: []bool{true}},
		"[IPv6:::]":     {Name: "[IPv6:::]", Addrs: []netip.Addr{netip.MustParseAddr("::")}, Local: []bool{true}},
		"[192.0.2.200]": {Name: "[192.0.2.200]", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.200")}, Local: []bool{false}},
	} {
		m, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.MX{Domain: domain, Host: true})
		if fail != nil {
			t.Fatal(fail)
		}
		got := m.(*msg.MXReply)
		if got.Err != nil || len(got.Hosts) != 1 || got.Hosts[0].Name != want.Name || got.Hosts[0].Addrs[0] != want.Addrs[0] || got.Hosts[0].Local[0] != want.Local[0] {
			t.Errorf("%s: %+v", domain, got)
		}
	}
}

func TestMXErrors(t *testing.T) {
	for err, want := range map[error]string{
		dns.ErrNoDomain: "550 5.1.2 Domain does not exist",
		dns.ErrNullMX:   "556 5.1.10 Domain does not accept mail",
		dns.ErrBadName:  "550 5.1.2 Invalid domain name",
		dns.ErrNone:     "451 4.4.4 No MX found for domain",
		dns.ErrTemp:     "451 4.4.3 Temporary failure in MX lookup",
	} {
		if got := mxError(err, false).Reply(); got != want {
			t.Errorf("%v: %s", err, got)
		}
	}
	if got := mxError(dns.ErrNone, true).Reply(); got != "451 4.4.4 Host not found" {
		t.Error(got)
	}
}
