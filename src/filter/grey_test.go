package filter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/smtp/server"
)

// asked is a Greylist that notes what it is asked.
type asked struct {
	answer greylist.Answer
	err    error
	rule   greylist.Rule
	try    []greylist.Try
}

func (a *asked) Allow(_ context.Context, r greylist.Rule, t greylist.Try) (greylist.Answer, error) {
	a.rule = r
	a.try = append(a.try, t)
	return a.answer, a.err
}

// greylisted is a rig with a greylist behind a condition.
func greylisted(t *testing.T, condition string, answer greylist.Answer, err error) (*rig, *asked) {
	r := newRig(t)
	a := &asked{answer: answer, err: err}
	r.grey = a
	f := builtinOf(t, "f rcpt-to "+condition+" greylist")
	f.Decide.Grey = conf.UsualGrey()
	r.filter(f)
	return r, a
}

const (
	again   = "451 4.7.1 Greylisted: this server does not know yours yet, please try again later"
	bounce  = "MAIL FROM:<>"
	enterit = "354 "
)

// What is greylisted, what a client hears, and what the log has.
func TestGreylist(t *testing.T) {
	pass := greylist.Answer{Pass: true}
	proven := greylist.Answer{Pass: true, Proven: netip.MustParsePrefix("192.0.2.0/24"), After: 25*time.Minute + time.Second}
	helo, mail, rcpt := session[0], session[1], session[2]
	for _, tc := range []struct {
		name   string
		answer greylist.Answer
		err    error
		lines  []string
		want   []string // the last replies
		asked  int
		log    string
	}{
		{"new", greylist.Answer{}, nil, []string{helo, mail, rcpt, "DATA"}, []string{again, "503"}, 1,
			`smtp failed-command command="RCPT TO:<bob@example.com>" result="` + again + `"`},
		{"known", pass, nil, session, []string{"250", "354", "250 2.0.0"}, 1, "smtp message"},
		{"proven", proven, nil, []string{helo, mail, rcpt}, []string{"250"}, 1,
			"smtp greylist filter=f result=passed network=192.0.2.0/24 after=1501s"},
		{"broken", pass, errors.New("no store"), []string{helo, mail, rcpt}, []string{"451 4.3.0 Temporary failure"}, 1, "filter: f: no store"},
		{"postmaster", greylist.Answer{}, nil, []string{helo, mail, "RCPT TO:<postmaster@example.com>"}, []string{again}, 1, again},
		{"callout", greylist.Answer{}, nil, []string{helo, bounce, rcpt, "QUIT"}, []string{"250", "221"}, 1, "reason=quit"},
		{"bounce", greylist.Answer{}, nil, []string{helo, bounce, rcpt, "DATA", "DATA"}, []string{again, again}, 1, `command="DATA" result="` + again},
		{"bounce in chunks", greylist.Answer{}, nil, []string{helo, bounce, rcpt, "BDAT 4 LAST\r\nab", "NOOP"}, []string{again, "250"}, 1,
			`command="BDAT 4 LAST" result="` + again},
		{"bounce that is known", pass, nil, []string{helo, bounce, rcpt, "DATA"}, []string{enterit}, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, a := greylisted(t, "!auth", tc.answer, tc.err)
			c := r.dial()
			got := c.play(tc.lines...)
			r.close(c)
			got = got[len(got)-len(tc.want):]
			if !slices.EqualFunc(got, tc.want, strings.HasPrefix) || len(a.try) != tc.asked {
				t.Errorf("got %q, asked %+v", got, a.try)
			}
			if !strings.Contains(r.log.String(), tc.log) {
				t.Errorf("no %s in\n%s", tc.log, r.log)
			}
			want := greylist.Try{Addr: netip.MustParseAddr("192.0.2.7"), Name: "client.example.org", From: "eve@example.org", To: "bob@example.com"}
			if tc.lines[1] == bounce {
				want.From = ""
			}
			if tc.name == "postmaster" {
				want.To = "postmaster@example.com"
			}
			if a.rule != greylist.Rule(conf.UsualGrey()) || a.try[0] != want {
				t.Errorf("asked %+v by %+v", a.try, a.rule)
			}
		})
	}
}

// TestGreylistMixed holds that a recipient who is greylisted takes nothing away from
// the others of a message.
func TestGreylistMixed(t *testing.T) {
	r, _ := greylisted(t, "!rcpt-to <mails>", greylist.Answer{}, nil)
	r.tables["mails"] = []string{"mailaddr bob@example.com"}
	c := r.dial()
	got := c.play(session[0], session[1], "RCPT TO:<ann@example.com>", session[2], "RCPT TO:<eve@example.com>", session[3], session[4])
	r.close(c)
	if want := []string{again, "250", again, enterit, "250 2.0.0"}; !slices.EqualFunc(got[3:], want, strings.HasPrefix) {
		t.Errorf("%q", got)
	}
	if log := r.log.String(); !strings.Contains(log, "nrcpt=1") || !strings.Contains(log, "to=<bob@example.com>") {
		t.Error(log)
	}
}

// TestGreylistPatience holds that to come again is no error: the server neither
// slows down, for which the clock of the test would have to be moved, nor hangs up.
func TestGreylistPatience(t *testing.T) {
	r, a := greylisted(t, "!auth", greylist.Answer{}, nil)
	lines := []string{session[0], session[1]}
	for i := range 500 {
		lines = append(lines, fmt.Sprintf("RCPT TO:<user%d@example.com>", i))
	}
	c := r.dial()
	got := c.play(append(lines, "RSET", session[1], "NOOP")...)
	r.close(c)
	for i, line := range got {
		if line == "" || strings.HasPrefix(line, "421") {
			t.Fatalf("reply %d is %q", i, line)
		}
	}
	if len(a.try) != 500 || !strings.HasPrefix(got[len(got)-1], "250") {
		t.Errorf("%d tries, at the end %q", len(a.try), got[len(got)-1])
	}
}

func TestTrusted(t *testing.T) {
	from := func(a, to string) server.Client {
		return server.Client{Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 1), To: netip.MustParseAddr(to)}
	}
	for _, tc := range []struct {
		s    *server.Session
		want bool
	}{
		{&server.Session{Client: from("192.0.2.1", "192.0.2.2"), Listener: &server.Listener{}}, false},
		{&server.Session{Client: from("192.0.2.1", "192.0.2.2"), Listener: &server.Listener{}, User: "bob"}, true},
		{&server.Session{Client: from("192.0.2.2", "192.0.2.2"), Listener: &server.Listener{}}, true},
		{&server.Session{Client: from("2001:db8::1", "2001:db8::1"), Listener: &server.Listener{}}, true},
		{&server.Session{Client: from("::1", "::1"), Listener: &server.Listener{}}, true},
		{&server.Session{Client: from("::ffff:127.0.0.1", "192.0.2.2"), Listener: &server.Listener{}}, true},
		{&server.Session{Listener: &server.Listener{Socket: true}}, true},
	} {
		if got := trusted(tc.s); got != tc.want {
			t.Errorf("%v %q: %v", tc.s.Client.Addr, tc.s.User, got)
		}
	}
}
