package greylist

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
)

// kept is what a List has asked to be kept.
type kept map[string][]byte

// take keeps what has changed.
func (k kept) take(l *List) {
	for {
		some := l.Changes(3)
		for _, v := range some {
			if v.Value == nil {
				delete(k, v.Key)
			} else {
				k[v.Key] = v.Value
			}
		}
		if len(some) == 0 {
			return
		}
	}
}

// values are what is kept, in the order of a map.
func (k kept) values() []Kept {
	var out []Kept
	for key, value := range k {
		out = append(out, Kept{key, value})
	}
	return out
}

func rig(most int) (*List, *clock.Fake) {
	c := clock.NewFake(time.Unix(1_700_000_000, 0))
	return New(Options{Clock: c, Triplets: most, Networks: most, Site: most}), c
}

func usual() Rule { return Rule(conf.UsualGrey()) }

func try(a, from, to string) Try { return Try{Addr: netip.MustParseAddr(a), From: from, To: to} }

func (l *List) everything() []Entry { return l.Entries(Place{}, 1<<30) }

func TestAllow(t *testing.T) {
	l, c := rig(10)
	r := usual()
	step := func(d time.Duration, want bool, what string, y Try) {
		t.Helper()
		c.Advance(d)
		if got := l.Allow(r, y); got.Pass != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	one := try("192.0.2.1", "a@b.example", "c@d.example")
	step(0, false, "first", one)
	step(r.Delay-time.Second, false, "too early", one)
	step(time.Second, false, "another recipient", try("192.0.2.1", "a@b.example", "e@d.example"))
	step(0, false, "the number of a recipient counts", try("192.0.2.1", "a@b.example", "c1@d.example"))
	step(0, true, "after the delay, from a neighbour", try("192.0.2.9", "A@b.example", "c@D.example"))
	step(0, true, "proven", try("192.0.2.3", "x@y.example", "z@d.example"))
	step(r.Whitelist-time.Minute, true, "renewed", one)
	step(time.Hour, true, "renewed a little", one)
	step(r.Whitelist-time.Minute, true, "renewed again", one)
	step(r.Whitelist+time.Minute, false, "not seen for too long", one)
	step(r.Expire+time.Second, false, "expired", one)
	step(r.Delay, true, "the second beginning", one)
	if !l.Allow(r, Try{From: "a@b", To: "c@d"}).Pass {
		t.Error("a local process was greylisted")
	}
}

// TestProven holds what is said of a network that proves itself.
func TestProven(t *testing.T) {
	l, c := rig(10)
	y := try("2001:db8::7", "", "c@d")
	c.Advance(300 * time.Millisecond)
	l.Allow(usual(), y)
	c.Advance(usual().Delay)
	if l.Allow(usual(), y).Pass {
		t.Error("rounding has cut the delay short")
	}
	c.Advance(time.Second)
	if a := l.Allow(usual(), y); a.Proven.String() != "2001:db8::/64" || a.After < usual().Delay || a.After > usual().Delay+2*time.Second {
		t.Errorf("%+v", a)
	}
	if a := l.Allow(usual(), y); !a.Pass || a.Proven.IsValid() {
		t.Errorf("once more: %+v", a)
	}
}

// TestNewRule holds that a rule that was changed counts for what is remembered.
func TestNewRule(t *testing.T) {
	l, c := rig(10)
	y := try("192.0.2.1", "a@b", "c@d")
	l.Allow(usual(), y)
	c.Advance(time.Second)
	quick := Rule{Delay: time.Second, Expire: time.Hour, Whitelist: time.Minute}
	if !l.Allow(quick, y).Pass {
		t.Error("the shorter delay does not count")
	}
	l.Allow(usual(), y)
	l.Allow(quick, y) // the last who sees it
	c.Advance(time.Minute + time.Second)
	if l.Allow(usual(), y).Pass {
		t.Error("the shorter whitelist does not count")
	}
}

func TestClockSetBack(t *testing.T) {
	l, c := rig(10)
	y := try("192.0.2.1", "a@b", "c@d")
	l.Allow(usual(), y)
	c.Jump(c.Now().Add(-24 * time.Hour))
	l.Allow(usual(), y)
	c.Advance(usual().Delay)
	if !l.Allow(usual(), y).Pass {
		t.Error("a first try of the future keeps a client out")
	}
}

func nets(list []Entry) string {
	var out []string
	for i := range list {
		out = append(out, list[i].Net.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestByHand(t *testing.T) {
	l, c := rig(10)
	enter := func(s string, by string, added bool) {
		t.Helper()
		net, err := ParseNet(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, new, err := l.Whitelist(net); got.String() != by || new != added || err != nil {
			t.Errorf("whitelist %s: by %v, %v, %v", s, got, new, err)
		}
	}
	enter("198.51.3.4/16", "198.51.0.0/16", true)
	enter("198.51.0.0/16", "198.51.0.0/16", false)
	enter("198.51.100.7", "198.51.0.0/16", false)
	enter("198.50.0.0/15", "198.50.0.0/15", true)
	enter("2001:db8::1", "2001:db8::1/128", true)
	c.Advance(1000 * 24 * time.Hour)
	l.Sweep()
	y := try("198.51.100.1", "a@b", "c@d")
	if !l.Allow(usual(), y).Pass || !l.Allow(usual(), try("2001:db8::1", "a@b", "c@d")).Pass || l.Allow(usual(), try("2001:db8::2", "a@b", "c@d")).Pass {
		t.Error("networks entered by hand")
	}
	if got := nets(l.Remove(netip.MustParsePrefix("198.51.100.0/24"), 10)); got != "198.50.0.0/15 198.51.0.0/16" {
		t.Errorf("removed %s", got)
	}
	if got := l.Remove(netip.MustParsePrefix("198.51.100.0/24"), 10); len(got) != 0 {
		t.Errorf("removed once more: %v", got)
	}
	if l.Allow(usual(), y).Pass {
		t.Error("it passes after that")
	}
	for i := range MaxByHand {
		if _, _, err := l.Whitelist(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32)); (err != nil) != (i == MaxByHand-1) {
			t.Fatalf("network %d: %v", i, err)
		}
	}
}

// TestRemoveForgets holds that who is removed is a stranger again, whatever he has
// tried before.
func TestRemoveForgets(t *testing.T) {
	r := usual()
	for _, byHand := range []bool{false, true} {
		l, c := rig(1000)
		net := netip.MustParsePrefix("2001:db8:0:1::/64")
		one, other, neighbour := try("2001:db8:0:1::1", "a@b", "c@d"), try("2001:db8:0:1::1", "a@b", "e@d"), try("2001:db8:0:2::1", "a@b", "c@d")
		for _, y := range []Try{one, other, neighbour} {
			l.Allow(r, y)
		}
		c.Advance(r.Delay)
		if byHand {
			l.Whitelist(net)
		}
		if !l.Allow(r, one).Pass {
			t.Fatal("it does not pass")
		}
		l.Remove(net, 10)
		if l.Allow(r, one).Pass || l.Allow(r, other).Pass {
			t.Errorf("by hand: %v: it passes by what it has tried before", byHand)
		}
		if !l.Allow(r, neighbour).Pass {
			t.Errorf("by hand: %v: the neighbour is forgotten", byHand)
		}
	}
}

// TestRemove holds that after it nothing passes, whether it has proven itself or
// was entered, and that much of it goes in steps.
func TestRemove(t *testing.T) {
	l, c := rig(1000)
	for i := range 20 {
		y := try(fmt.Sprintf("10.0.%d.1", i), "a@b", "c@d")
		l.Allow(usual(), y)
		c.Advance(usual().Delay)
		l.Allow(usual(), y)
	}
	l.Whitelist(netip.MustParsePrefix("10.0.3.0/24"))
	l.Whitelist(netip.MustParsePrefix("10.1.0.0/16"))
	if got := nets(l.Remove(netip.MustParsePrefix("10.0.3.77/32"), 10)); got != "10.0.3.0/24" {
		t.Errorf("removed %s", got)
	}
	for _, want := range []int{8, 8, 3, 0} {
		if got := l.Remove(netip.MustParsePrefix("10.0.0.0/16"), 8); len(got) != want {
			t.Errorf("removed %s, want %d", nets(got), want)
		}
	}
	if got := nets(l.everything()); got != "10.1.0.0/16" {
		t.Errorf("left: %s", got)
	}
}

// TestBound holds that the oldest triplets go first, and nothing is kept of them.
func TestBound(t *testing.T) {
	l, c := rig(3)
	k := make(kept)
	for i := range 5 {
		l.Allow(usual(), try("192.0.2.1", "a@b", fmt.Sprintf("%c@d", 'a'+i)))
		c.Advance(time.Second)
		k.take(l)
	}
	got := l.everything()
	if len(got) != 3 || len(k) != 3 || got[0].To != "c@d" {
		t.Errorf("%d entries, %d kept: %+v", len(got), len(k), got)
	}
	c.Advance(5 * time.Hour)
	l.Sweep()
	if k.take(l); len(k) != 0 {
		t.Errorf("kept after the end: %q", k)
	}
}

// TestSite holds that who has an IPv4 network, or 65,536 of IPv6, drives out his
// own alone.
func TestSite(t *testing.T) {
	for _, flood := range []func(i int) Try{
		func(i int) Try { return try("192.0.2.1", fmt.Sprintf("%c@b%d", 'a'+i%26, i), "c@d") },
		func(i int) Try { return try(fmt.Sprintf("2001:db8:0:%x::1", i), "a@b", "c@d") },
	} {
		c := clock.NewFake(time.Unix(1_700_000_000, 0))
		l := New(Options{Clock: c, Triplets: 100, Networks: 100, Site: 10})
		proven, early := try("198.51.100.1", "a@b", "c@d"), try("203.0.113.1", "a@b", "c@d")
		l.Allow(usual(), proven)
		c.Advance(usual().Delay)
		l.Allow(usual(), proven)
		l.Allow(usual(), early)
		for i := range 1000 {
			l.Allow(usual(), flood(i))
		}
		if n := len(l.everything()); n != 12 {
			t.Errorf("%d entries", n)
		}
		c.Advance(usual().Delay)
		for i := range 1000 {
			l.Allow(usual(), flood(i))
		}
		if !l.Allow(usual(), proven).Pass || !l.Allow(usual(), early).Pass {
			t.Error("who was there before was driven out")
		}
		if n := len(l.everything()); n > 23 || len(l.sites) > 3 {
			t.Errorf("%d entries of %d sites", n, len(l.sites))
		}
	}
}

// TestEntries holds that a listing in steps has all, though what was listed goes
// and what was not is seen again.
func TestEntries(t *testing.T) {
	l, c := rig(1000)
	for i := range 30 {
		y := try(fmt.Sprintf("10.0.%d.1", i), "a@b", "c@d")
		l.Allow(usual(), y)
		if i%2 == 0 {
			c.Advance(usual().Delay)
			l.Allow(usual(), y)
		}
	}
	l.Whitelist(netip.MustParsePrefix("10.1.0.0/16"))
	seen := make(map[string]bool)
	var at Place
	for {
		some := l.Entries(at, 4)
		if len(some) == 0 {
			break
		}
		for i := range some {
			seen[some[i].key] = true
			at = some[i].Place()
		}
		if again, err := ParsePlace(at.String()); err != nil || again != at {
			t.Errorf("%v comes back as %v, %v", at, again, err)
		}
		if len(seen) == 8 {
			l.Remove(netip.MustParsePrefix("10.0.0.0/24"), 1)
			l.Allow(usual(), try("10.0.16.1", "a@b", "c@d"))
		}
	}
	for key, e := range l.entries {
		if !seen[key] && !e.over(c.Now()) {
			t.Errorf("not listed: %+v", l.entries[key])
		}
	}
	for _, bad := range []string{"x", "1", "3.1", "-1.1", "1."} {
		if p, err := ParsePlace(bad); err == nil {
			t.Errorf("%q is place %v", bad, p)
		}
	}
}

// TestRestart follows random tries with a simple model, and starts anew from what
// is kept at random moments.
func TestRestart(t *testing.T) {
	l, c := rig(1 << 20)
	k := make(kept)
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
			if now.After(white[net]) { // proven: what else it tried is forgotten
				maps.DeleteFunc(first, func(key string, _ time.Time) bool {
					return strings.HasPrefix(key, net+"a") || strings.HasPrefix(key, net+"b")
				})
			}
			white[net] = now.Add(r.Whitelist)
		}
		if got := l.Allow(r, try(net+".1", "s@s", to)); got.Pass != want {
			t.Fatalf("try %d of %s: %v, want %v", i, key, got, want)
		}
		switch rnd.IntN(20) {
		case 0: // what was renewed by little is not kept
			for net := range white {
				if e := l.entries[keyOf(netip.MustParsePrefix(net+".0/24"), "", "")]; e != nil {
					white[net] = time.Unix(e.told, 0)
				}
			}
			k.take(l)
			l = New(l.o)
			if bad := l.Restore(k.values()); bad != 0 {
				t.Fatalf("%d bad values", bad)
			}
		case 1:
			l.Sweep()
		}
	}
	if passed < 100 || passed > 4900 {
		t.Errorf("%d passed: not much of a test", passed)
	}
}

// TestChanges does random things with little room and holds that what is kept is
// what is there, and that nothing is said of what came and went meanwhile.
func TestChanges(t *testing.T) {
	c := clock.NewFake(time.Unix(1_700_000_000, 0))
	l := New(Options{Clock: c, Triplets: 8, Networks: 4, Site: 3})
	k := make(kept)
	rnd := rand.New(rand.NewPCG(3, 4))
	r := Rule{Delay: 2 * time.Second, Expire: 20 * time.Second, Whitelist: 60 * time.Second}
	for i := range 20_000 {
		net := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rnd.IntN(6)), 0}), 24)
		switch rnd.IntN(12) {
		case 0:
			c.Advance(time.Duration(rnd.IntN(30)) * time.Second)
		case 1:
			l.Whitelist(net)
		case 2, 3:
			l.Remove(net, 2)
		case 4:
			l.Sweep()
		case 5:
			k.take(l)
			for key := range k {
				if l.entries[key] == nil {
					t.Fatalf("step %d: kept, but not there", i)
				}
			}
			if len(k) != len(l.entries) {
				t.Fatalf("step %d: %d kept of %d", i, len(k), len(l.entries))
			}
		case 6:
			k.take(l)
			l = New(l.o)
			l.Restore(k.values())
			k.take(l) // what is over
		default:
			l.Allow(r, try(net.Addr().String(), string(rune('a'+rnd.IntN(5)))+"@s", "c@d"))
		}
	}
	k.take(l)
	for i := range 100_000 {
		l.Allow(r, try("10.9.9.9", fmt.Sprintf("x@%d", i), "c@d"))
	}
	if len(l.changed) > 8+len(k) {
		t.Errorf("%d changes to be told", len(l.changed))
	}
}

// TestLongAddresses holds that they are told apart, and not kept whole.
func TestLongAddresses(t *testing.T) {
	l, _ := rig(10)
	long := strings.Repeat("ü&", 120)
	l.Allow(usual(), Try{Addr: netip.MustParseAddr("192.0.2.1"), From: long + "@a", To: long + "a@d", Name: strings.Repeat("n.", 127)})
	l.Allow(usual(), Try{Addr: netip.MustParseAddr("192.0.2.1"), From: long + "@a", To: long + "b@d", Name: strings.Repeat("n.", 127)})
	k := make(kept)
	if k.take(l); len(k) != 2 {
		t.Errorf("%d kept", len(k))
	}
	for key, value := range k {
		if len(key)+len(value) > 1024 {
			t.Errorf("%d bytes: %s", len(value), value)
		}
	}
	again, _ := rig(10)
	if bad := again.Restore(k.values()); bad != 0 || len(again.entries) != 2 {
		t.Errorf("%d bad, %d there", bad, len(again.entries))
	}
}

// TestFlood tries many triplets of as many networks, and says what the memory of
// one is that is remembered.
func TestFlood(t *testing.T) {
	const most = 10_000
	c := clock.NewFake(time.Unix(1_700_000_000, 0))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	l := New(Options{Clock: c, Triplets: most, Networks: most, Site: 1000})
	size, told := 0, 0
	for i := range 5 * most {
		a := netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1})
		l.Allow(usual(), Try{Addr: a, Name: "mail.client.example", From: "sender@client.example", To: "recipient@example.org"})
		if i%most == 0 {
			c.Advance(time.Second)
			for some := l.Changes(256); len(some) > 0; some = l.Changes(256) {
				for _, v := range some {
					size += len(v.Key) + len(v.Value)
				}
				told += len(some)
			}
		}
	}
	n := len(l.everything())
	each := int(heap()-before) / n
	t.Logf("%d remembered, %d bytes of memory each; %d values of %d bytes kept", n, each, told, size/told)
	if n != most || each > 1000 {
		t.Errorf("%d remembered, %d bytes each", n, each)
	}
	runtime.KeepAlive(l)
}

func FuzzRestore(f *testing.F) {
	good := keyOf(netip.MustParsePrefix("192.0.2.0/24"), "", "")
	f.Add(good, []byte(`{"net":"192.0.2.0/24","first":1,"until":1900000000}`))
	f.Add(good, []byte(`{"net":"192.0.2.0/24","first":1,"until":2}`))
	f.Add("0123456789abcdef", []byte(`{"net":"192.0.2.0/24","to":"a@b","until":1900000000}`))
	f.Add("x", []byte(`{"net":"192.0.2.1/24","to":"a@b"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		l, c := rig(4)
		k := kept{key: value}
		if bad := l.Restore(k.values()); bad+len(l.entries) > 1 {
			t.Errorf("%d bad, %d taken", bad, len(l.entries))
		}
		if k.take(l); len(k) != len(l.entries) {
			t.Errorf("%d kept of %d", len(k), len(l.entries))
		}
		for _, e := range l.entries {
			again, err := decode(&Kept{e.key, e.encode()})
			if err != nil || again.Net != e.Net || again.To != e.To || again.Until != e.Until {
				t.Errorf("does not come back: %+v, %v", again, err)
			}
			l.Allow(usual(), Try{Addr: e.Net.Addr(), From: "a@b", To: "c@d"})
		}
		c.Advance(usual().Whitelist)
		l.Sweep()
	})
}
