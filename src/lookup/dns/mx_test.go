package dns

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const mxZone = `
	two.example. 300 IN MX 20 b.two.example.
	two.example. 60 IN MX 10 a.two.example.
	a.two.example. 300 IN A 192.0.2.1
	a.two.example. 300 IN AAAA 2001:db8::1
	b.two.example. 300 IN A 192.0.2.2
	alias.example. 300 IN CNAME plain.example.
	plain.example. 300 IN A 192.0.2.3
	mxalias.example. 300 IN MX 10 alias.example.
	null.example. 300 IN MX 0 .
	local.example. 300 IN MX 10 localhost.
	some.example. 300 IN MX 0 .
	some.example. 300 IN MX 10 plain.example.
	dangling.example. 300 IN MX 10 nowhere.example.
	text.example. 300 IN TXT "no mail here"
	bad.example. 300 IN MX 10 a\ b.example.
	bad.example. 300 IN MX 20 plain.example.
	numeric.example. 300 IN MX 10 192.0.2.8.
	numeric.example. 300 IN MX 20 plain.example.
`

// shown is what was found, in one line.
func shown(list []MX, err error) string {
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "%d %s %v;", m.Pref, m.Name, m.Addrs)
	}
	return b.String()
}

func TestFind(t *testing.T) {
	s := newStub(t, mxZone)
	r, _ := resolver(t, server(s.addr), "192.0.2.77 inhosts.example\n")
	x := NewExchanger(r)
	for _, tc := range []struct {
		domain string
		host   bool
		want   string
	}{
		{"two.example", false, "10 a.two.example [2001:db8::1 192.0.2.1];20 b.two.example [192.0.2.2];"},
		{"TWO.example.", false, "10 a.two.example [2001:db8::1 192.0.2.1];20 b.two.example [192.0.2.2];"},
		{"plain.example", false, "0 plain.example [192.0.2.3];"},
		{"alias.example", false, "0 alias.example [192.0.2.3];"},
		{"mxalias.example", false, "10 alias.example [192.0.2.3];"},
		{"null.example", false, ErrNullMX.Error()},
		{"local.example", false, ErrNullMX.Error()},
		{"some.example", false, "10 plain.example [192.0.2.3];"},
		{"bad.example", false, "20 plain.example [192.0.2.3];"},
		{"numeric.example", false, "10 192.0.2.8 [192.0.2.8];20 plain.example [192.0.2.3];"},
		{"inhosts.example", false, "0 inhosts.example [192.0.2.77];"},
		{"nowhere.example", false, ErrNoDomain.Error()},
		{"two words", false, ErrBadName.Error()},
		{"[192.0.2.9]", false, "0 [192.0.2.9] [192.0.2.9];"},
		{"[IPv6:2001:db8::9]", false, "0 [IPv6:2001:db8::9] [2001:db8::9];"},
		{"a.two.example", true, "0 a.two.example [2001:db8::1 192.0.2.1];"},
		{"192.0.2.9", true, "0 192.0.2.9 [192.0.2.9];"},
	} {
		list, _, err := x.Find(t.Context(), tc.domain, tc.host)
		if got := shown(list, err); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.domain, got, tc.want)
		}
	}
	for _, domain := range []string{"dangling.example", "text.example"} {
		if list, _, err := x.Find(t.Context(), domain, false); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %s", domain, shown(list, err))
		}
	}
	if list, _, err := x.Find(t.Context(), "nowhere.example", true); !errors.Is(err, ErrNone) {
		t.Errorf("host: %s", shown(list, err))
	}
}

// Answers are kept as long as the shortest of their records, failures for a
// short while.
func TestFindIsCached(t *testing.T) {
	s := newStub(t, mxZone)
	r, c := resolver(t, server(s.addr), "")
	x := NewExchanger(r)
	find := func(domain string) (string, time.Duration) {
		list, ttl, err := x.Find(t.Context(), domain, false)
		return shown(list, err), ttl
	}
	first, ttl := find("two.example")
	if ttl != time.Minute {
		t.Errorf("holds for %v", ttl)
	}
	asked := s.count.Load()
	c.Advance(50 * time.Second)
	if again, ttl := find("two.example"); again != first || ttl != 10*time.Second || s.count.Load() != asked {
		t.Errorf("%s for %v, %d questions more", again, ttl, s.count.Load()-asked)
	}
	c.Advance(10 * time.Second)
	if again, _ := find("two.example"); again != first || s.count.Load() == asked {
		t.Errorf("%s, asked no more", again)
	}
	s.set(dns.RcodeServerFailure, false)
	if _, _, err := x.Find(t.Context(), "plain.example", false); !errors.Is(err, ErrTemp) {
		t.Errorf("server failure: %v", err)
	}
	s.set(dns.RcodeSuccess, false)
	c.Advance(tempTTL)
	if got, _ := find("plain.example"); got != "0 plain.example [192.0.2.3];" {
		t.Errorf("after the failure: %s", got)
	}
	x.Forget()
	if len(x.cache) != 0 {
		t.Error("something is remembered")
	}
}
