package msg

import (
	"errors"
	"net/netip"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// relaySamples holds the messages of relaying, full and empty.
func relaySamples() []Parser {
	full := mailerr.Temporary(451, 4, 1, "Network error on destination MXs", errors.New("connection refused"))
	e := envelope.Envelope{
		ID: mail.EnvelopeAt(7, 0), Type: envelope.MTA, Action: "out", Dest: addr.Cut("a@far.example"), Rcpt: addr.Cut("a@far.example"),
		Created: time.Unix(1e9, 0), TTL: time.Hour,
	}
	return []Parser{
		&RelayTask{Task: 1 << 40, Gen: 3, Size: 5, Inline: true, Body: []byte("body\n"), Envelopes: []envelope.Envelope{e, e}},
		&RelayTask{Task: 1, Size: 1 << 40, Envelopes: []envelope.Envelope{e}},
		&RelayTaken{Task: 9},
		&RelayBody{Task: 9, Offset: 1 << 40},
		&RelayBodyReply{Data: []byte("body\n")},
		&RelayBodyReply{Err: full},
		&RelayResult{Task: 9, Unreachable: true, Results: []RelayOutcome{
			{Envelope: e.ID, Err: full, Line: "451 no"}, {Envelope: e.ID, Line: "250 ok", NoDSN: true}, {Returned: true},
		}},
		&MX{Domain: "far.example", Host: true},
		&MXReply{Err: full, TTL: time.Minute},
		&MXReply{TTL: time.Hour, Hosts: []MXHost{
			{Name: "mx.far.example", Pref: 10, Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}, Local: []bool{false, true}},
			{Name: "gone.far.example", Pref: 65535},
		}},
		&RelayLookup{Gen: 1, Service: RelayHost, Table: "hosts", Key: "far.example"},
		&RelayLookupReply{Found: true, Value: "joe", Password: "secret"},
		&RelayLookupReply{Err: full},
	}
}
