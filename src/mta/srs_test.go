package mta

import (
	"strings"
	"testing"
	"time"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mail/srs"
)

// The sender is rewritten when an action says so and somebody is forwarded to,
// never for a bounce.
func TestSRS(t *testing.T) {
	for _, tc := range []struct {
		srs          bool
		sender, rcpt string // rcpt: whom the mail was for
		rewritten    bool
	}{
		{true, "joe@far.example", "fwd@here.example", true},
		{true, "joe@far.example", "b@far.example", false},
		{true, "joe@far.example", "", false},
		{true, "", "fwd@here.example", false},
		{false, "joe@far.example", "fwd@here.example", false},
	} {
		s := &script{}
		w := newWorld(t, false, func(p *project.DispatcherConf) {
			p.SRSKey, p.SRSTTL = "secret", 4*24*time.Hour
			p.Relays[0].SRS = tc.srs
		})
		w.domain("far.example", "10 mx.far.example 192.0.2.1")
		w.server("192.0.2.1:25", s.serve)
		task := w.task("b@far.example")
		task.Envelopes[0].Sender, task.Envelopes[0].Rcpt = addr.Cut(tc.sender), addr.Cut(tc.rcpt)
		if got := outcomes(w.send(task)); got != "ok 250 2.0.0 taken\n" {
			t.Errorf("%+v: %s", tc, got)
		}
		said := s.said("MAIL")[0]
		from, _, _ := strings.Cut(strings.TrimPrefix(said, "MAIL FROM:<"), ">")
		if !tc.rewritten {
			if from != tc.sender {
				t.Errorf("%+v: %s", tc, said)
			}
			continue
		}
		back, err := (&srs.Rewriter{Key: "secret", TTL: 4 * 24 * time.Hour}).Reverse(addr.Cut(from), time.Now())
		if err != nil || back.String() != tc.sender || addr.Cut(from).Domain != "here.example" {
			t.Errorf("%+v: %s comes back as %s, %v", tc, said, back, err)
		}
		if len(w.log.With("from=<"+from+"> to=<b@far.example> rcpt=<fwd@here.example>")) != 1 {
			t.Errorf("%+v: logged %q", tc, w.log.With("mta delivery"))
		}
	}
}
