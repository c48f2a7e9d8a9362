package greylist

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
)

// kept is a Store in memory.
type kept map[string][]byte

func (k kept) Put(key string, value []byte) {
	if value == nil {
		delete(k, key)
		return
	}
	k[key] = value
}

func rig(most int) (*List, *clock.Fake, kept) {
	c := clock.NewFake(time.Unix(1_700_000_000, 0))
	k := make(kept)
	return New(Options{Clock: c, Store: k, Triplets: most, Networks: most}), c, k
}

func usual() Rule { return Rule(conf.UsualGrey()) }

func try(a, from, to string) Try { return Try{Addr: netip.MustParseAddr(a), From: from, To: to} }

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "Bob@Example.ORG": "bob@example.org", "bob+tag@h": "bob@h", "+x@h": "+x@h",
		"list-bounce-12345-7@l.example2": "list-bounce-0-0@l.example2", "postmaster": "postmaster",
		"prvs=1a22b@h3": "prvs=0a0b@h3",
	} {
		if got := Plain(in); got != want {
			t.Errorf("Plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.77": "192.0.2.0/24", "::ffff:192.0.2.77": "192.0.2.0/24",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%lo": "fe80::/64",
	} {
		if got := Network(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("Network(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestParseNet(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::1/128", "192.0.2.7/24": "192.0.2.0/24", "::ffff:192.0.2.1": "192.0.2.1/32",
		"": "", "x": "", "fe80::1%lo": "", "::ffff:192.0.2.1/120": "", "192.0.2.0/33": "",
	} {
		got, err := ParseNet(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("ParseNet(%q) = %v, %v, want %q", in, got, err, want)
		}
	}
}

func TestAllow(t *testing.T) {
	l, c, _ := rig(10)
	r := usual()
	step := func(d time.Duration, want bool, what string, y Try) {
		t.Helper()
		c.Advance(d)
		if got := l.Allow(r, y); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	one := try("192.0.2.1", "a@b.example", "c@d.example")
	step(0, false, "first", one)
	step(r.Delay-time.Second, false, "too early", one)
	step(time.Second, false, "another recipient", try("192.0.2.1", "a@b.example", "e@d.example"))
	step(0, true, "after the delay, from a neighbour", try("192.0.2.9", "A@b.example", "c@D.example"))
	step(0, true, "proven", try("192.0.2.3", "x@y.example", "z@d.example"))
	step(r.Whitelist-time.Minute, true, "renewed", one)
	step(r.Whitelist-time.Minute, true, "renewed again", one)
	step(r.Whitelist+time.Minute, false, "not seen for too long", one)
	step(r.Expire+time.Second, false, "expired", one)
	step(r.Delay, true, "the second beginning", one)
	if !l.Allow(r, Try{From: "a@b", To: "c@d"}) {
		t.Error("a local process was greylisted")
	}
}

func TestByHand(t *testing.T) {
	l, c, k := rig(10)
	net := netip.MustParsePrefix("198.51.0.0/16")
	l.Whitelist(net)
	c.Advance(1000 * 24 * time.Hour)
	l.Sweep()
	y := try("198.51.100.1", "a@b", "c@d")
	if !l.Allow(usual(), y) {
		t.Error("a network entered by hand does not pass")
	}
	if !l.Remove(net) || l.Remove(net) {
		t.Error("it cannot be removed once")
	}
	if l.Allow(usual(), y) || len(k) != 1 {
		t.Errorf("it passes after that, or is kept: %q", k)
	}
}

// TestBound holds that the oldest triplets go first, and nothing is kept of them.
func TestBound(t *testing.T) {
	l, c, k := rig(3)
	for i := range 5 {
		l.Allow(usual(), try("192.0.2.1", "a@b", fmt.Sprintf("%c@d", 'a'+i)))
		c.Advance(time.Second)
	}
	got := l.Entries()
	if len(got) != 3 || len(k) != 3 || got[0].To != "c@d" {
		t.Errorf("%d entries, %d kept: %+v", len(got), len(k), got)
	}
	c.Advance(5 * time.Hour)
	l.Sweep()
	if len(k) != 0 {
		t.Errorf("kept after the end: %q", k)
	}
}

// TestRestart follows random tries with a simple model, and starts anew from what
// is kept at random moments.
func TestRestart(t *testing.T) {
	l, c, k := rig(1 << 20)
	r := Rule{Delay: 10 * time.Minute, Expire: time.Hour, Whitelist: 2 * time.Hour}
	first, white := make(map[string]time.Time), make(map[string]time.Time)
	rnd := rand.New(rand.NewPCG(1, 2))
	passed := 0
	for i := range 5000 {
		c.Advance(time.Duration(rnd.IntN(3000)) * time.Second)
		now := c.Now()
		net, to := fmt.Sprintf("10.0.%d", rnd.IntN(6)), fmt.Sprintf("%c@d", 'a'+rnd.IntN(2))
		want, key := false, net+to
		if until, ok := white[net]; ok && !now.After(until) {
			want = true
		} else if f, ok := first[key]; ok && now.Sub(f) <= r.Expire {
			want = now.Sub(f) >= r.Delay
		} else {
			first[key] = now
		}
		if want {
			passed++
			if until := now.Add(r.Whitelist); until.Sub(white[net]) >= r.Whitelist/renewPart {
				white[net] = until
			}
			if f, ok := first[key]; ok && now.Sub(f) <= r.Expire && now.Sub(f) >= r.Delay {
				delete(first, key)
			}
		}
		if got := l.Allow(r, try(net+".1", "s@s", to)); got != want {
			t.Fatalf("try %d of %s: %v, want %v", i, key, got, want)
		}
		if rnd.IntN(100) == 0 {
			l = New(l.o)
			if bad := l.Restore(k); bad != 0 {
				t.Fatalf("%d bad records", bad)
			}
		}
	}
	if passed < 100 || passed > 4900 {
		t.Errorf("%d passed: not much of a test", passed)
	}
}

func FuzzRestore(f *testing.F) {
	f.Add("192.0.2.0/24", []byte(`{"net":"192.0.2.0/24","first":1,"until":2}`))
	f.Add("x", []byte(`{"net":"192.0.2.1/24","to":"a@b"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		l, _, k := rig(4)
		k[key] = value
		if bad := l.Restore(kept{key: value}); bad+len(l.entries) != 1 {
			t.Errorf("%d bad, %d taken", bad, len(l.entries))
		}
		for _, e := range l.entries {
			e := e.Value.(*Entry)
			again, err := decode(e.encode())
			if err != nil || again.key() != e.key() {
				t.Errorf("does not come back: %+v, %v", again, err)
			}
		}
	})
}
