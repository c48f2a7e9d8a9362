package filter

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/smtp/server"
)

// asked is a Greylist that notes what it is asked.
type asked struct {
	yes  bool
	err  error
	rule greylist.Rule
	try  []greylist.Try
}

func (a *asked) Allow(_ context.Context, r greylist.Rule, t greylist.Try) (bool, error) {
	a.rule = r
	a.try = append(a.try, t)
	return a.yes, a.err
}

// What is greylisted, and what a client hears.
func TestGreylist(t *testing.T) {
	for _, tc := range []struct {
		name  string
		yes   bool
		err   error
		lines []string
		want  string
		asked bool
	}{
		{"new", false, nil, session[:3], "451 4.7.1 Greylisted", true},
		{"known", true, nil, session[:3], "250", true},
		{"broken", true, errors.New("x"), session[:3], "451 4.7.1 Greylisted", true},
		{"null sender", false, nil, []string{session[0], "MAIL FROM:<>", session[2]}, "451 4.7.1", true},
		{"callout", false, nil, []string{session[0], "MAIL FROM:<>", "RCPT TO:<Postmaster@example.com>"}, "250", false},
		{"postmaster", false, nil, []string{session[0], session[1], "RCPT TO:<postmaster@example.com>"}, "451 4.7.1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			a := &asked{yes: tc.yes, err: tc.err}
			r.grey = a
			f := builtinOf(t, "f rcpt-to !auth greylist")
			f.Decide.Grey = conf.UsualGrey()
			r.filter(f)
			c := r.dial()
			got := c.play(tc.lines...)
			r.close(c)
			if !strings.HasPrefix(got[3], tc.want) || (len(a.try) == 1) != tc.asked {
				t.Errorf("got %q, asked %+v", got[3], a.try)
			}
			if tc.asked && (a.rule != greylist.Rule(conf.UsualGrey()) || a.try[0].Addr.String() != "192.0.2.7" || !strings.HasSuffix(a.try[0].To, "@example.com")) {
				t.Errorf("asked %+v by %+v", a.try, a.rule)
			}
		})
	}
}

func TestTrusted(t *testing.T) {
	from := func(a string) server.Client {
		return server.Client{Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 1)}
	}
	for _, tc := range []struct {
		s    *server.Session
		want bool
	}{
		{&server.Session{Client: from("192.0.2.1"), Listener: &server.Listener{}}, false},
		{&server.Session{Client: from("192.0.2.1"), Listener: &server.Listener{}, User: "bob"}, true},
		{&server.Session{Client: from("::1"), Listener: &server.Listener{}}, true},
		{&server.Session{Client: from("::ffff:127.0.0.1"), Listener: &server.Listener{}}, true},
		{&server.Session{Listener: &server.Listener{Socket: true}}, true},
	} {
		if got := trusted(tc.s); got != tc.want {
			t.Errorf("%v %q: %v", tc.s.Client.Addr, tc.s.User, got)
		}
	}
}
