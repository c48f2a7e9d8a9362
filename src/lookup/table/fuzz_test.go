package table

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"opensmtpd/src/mail/addr"
)

func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"", "a b\n", "# @list\na b\n", "[::1] x\n", "a: b, \\\n  c\n#\\\nd e", "a\\\n\\\n\\\nb: c\\", "k :include:/x", "\x00", "[", "a #b\nc", "\\", "\\\n", "a\\\n:b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseText(bytes.Clone(text))
		if err != nil {
			return
		}
		for i := range s.ents[:min(len(s.ents), 50)] {
			key := s.key(i)
			if got := s.find(key); got != i {
				t.Fatalf("%q: entry %d, key %q, is found as %d", text, i, key, got)
			}
			if strings.ContainsAny(key+s.value(i), "\n\x00") {
				t.Fatalf("%q: entry %q → %q", text, key, s.value(i))
			}
			for _, service := range []Service{Domain, NetAddr, Regex, MailAddr} {
				s.best(service, key, "+")
			}
		}
	})
}

func label(t *rapid.T, name string) string {
	return rapid.SampledFrom([]string{"a", "b", "A", "ab", "*", "*b", "a*", ""}).Draw(t, name)
}

// A domain matches a set when, and only when, one of the entries says so.
func TestDomainIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var keys []string
		for i := range rapid.IntRange(0, 8).Draw(t, "entries") {
			keys = append(keys, label(t, fmt.Sprint("l", i))+"."+label(t, fmt.Sprint("m", i)))
		}
		key := strings.ReplaceAll(label(t, "x")+"."+label(t, "y")+"."+label(t, "z"), "*", "q")
		want := slices.ContainsFunc(keys, func(k string) bool { return addr.Glob(k, key) })
		if got := list(keys...).now.Load().best(Domain, key, "+") >= 0; got != want {
			t.Fatalf("%q in %q: %v, want %v", key, keys, got, want)
		}
	})
}

// slowMail is the definition of a mailaddr match, one entry at a time.
func slowMail(entry, key string) bool {
	e, k := addr.Cut(entry), addr.Cut(key)
	switch {
	case e.IsZero():
		return true
	case k.IsZero():
		return false
	case e.Domain != "" && (k.Domain == "" || !addr.Glob(e.Domain, k.Domain)):
		return false
	case e.Local == "":
		return true
	}
	if !strings.Contains(e.Local, "+") {
		k.Local, _, _ = strings.Cut(k.Local, "+")
	}
	return strings.EqualFold(e.Local, k.Local)
}

func TestMailAddrIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.SampledFrom([]string{"", "u", "V", "u+t", "v+T", "w"})
		domain := rapid.SampledFrom([]string{"", "a", "b.a", "*", "*.a", "*a", "b*", "b*a"})
		var keys []string
		for i := range rapid.IntRange(0, 8).Draw(t, "entries") {
			l, d := local.Draw(t, fmt.Sprint("l", i)), domain.Draw(t, fmt.Sprint("d", i))
			switch {
			case d != "" || l == "":
				keys = append(keys, l+"@"+d)
			default:
				keys = append(keys, l)
			}
		}
		k := local.Draw(t, "local")
		key := "@"
		if d := rapid.SampledFrom([]string{"", "a", "b.a", "c.b.a", "ba", "bca"}).Draw(t, "domain"); k != "" {
			key = addr.Address{Local: k, Domain: d}.String()
		}
		want := slices.ContainsFunc(keys, func(e string) bool { return slowMail(e, key) })
		if got := list(keys...).now.Load().best(MailAddr, key, "+") >= 0; got != want {
			t.Fatalf("%q in %q: %v, want %v", key, keys, got, want)
		}
	})
}

func TestNetAddrIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		octet := rapid.SampledFrom([]byte{0, 10, 127, 128, 255})
		addrOf := func(name string) netip.Addr {
			var b [16]byte
			for i := range 4 {
				b[i] = octet.Draw(t, name)
			}
			if rapid.Bool().Draw(t, name+" is v4") {
				return netip.AddrFrom4([4]byte(b[:4]))
			}
			b[0] = 0x20
			return netip.AddrFrom16(b)
		}
		var nets []netip.Prefix
		var keys []string
		for i := range rapid.IntRange(0, 6).Draw(t, "entries") {
			a := addrOf(fmt.Sprint("n", i))
			p := netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
			nets = append(nets, p)
			text := p.String()
			if a.Is6() && rapid.Bool().Draw(t, "brackets") {
				text = "[" + text + "]"
			}
			keys = append(keys, text)
		}
		a := addrOf("key")
		want := slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
		if got := list(keys...).now.Load().best(NetAddr, AddrKey(a), "+") >= 0; got != want {
			t.Fatalf("%v in %v: %v, want %v", a, keys, got, want)
		}
	})
}

func bigFile() []byte {
	var b bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintf(&b, "user%d@example%d.org\tuser%d\n", i, i%1000, i)
	}
	return b.Bytes()
}

// BenchmarkLoad is for the figure in the design: 1,000,000 entries in at most
// 2 s and 200 MiB.
func BenchmarkLoad(b *testing.B) {
	text := bigFile()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := parseText(bytes.Clone(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	s, err := parseText(bigFile())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("found", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.find("user777777@example777.org")
		}
	})
	b.Run("mailaddr absent", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.best(MailAddr, "nobody+tag@example.net", "+")
		}
	})
}

// A Union says of each table what the table says itself.
func TestUnionIsItsTables(t *testing.T) {
	pools := map[Service][]string{
		String:   {"a", "A", "b", "ab"},
		Domain:   {"a", "b.a", "*", "*.a", "*a", "b*a", "B.A"},
		MailAddr: {"u", "u+t", "@a", "@*", "@*.a", "u@a", "U@*a", "u@b*a", "@", "u+t@a"},
		NetAddr:  {"local", "10.0.0.0/8", "10/8", "10.0.0.1", "0.0.0.0/0", "[::1]", "::/0", "[::]/0", "fe80::1%x", "[fe80::1%x]", "bad"},
	}
	keys := map[Service][]string{
		String:   {"a", "AB", "c", ""},
		Domain:   {"a", "b.a", "ba", "c.b.a", "", "x"},
		MailAddr: {"u@a", "u+t@b.a", "v@c", "@", "u", "u+t@ba", "x@bca"},
		NetAddr:  {"local", "10.0.0.1", "10.2.0.1", "[::1]", "[fe80::1%x]", "[fe80::1%y]", "1.2.3.4"},
	}
	rapid.Check(t, func(t *rapid.T) {
		service := rapid.SampledFrom([]Service{String, Domain, MailAddr, NetAddr}).Draw(t, "service")
		var tables []*Static
		for range rapid.IntRange(0, 5).Draw(t, "tables") {
			tables = append(tables, list(rapid.SliceOfN(rapid.SampledFrom(pools[service]), 0, 5).Draw(t, "entries")...))
		}
		u := NewUnion(service, tables)
		key := rapid.SampledFrom(keys[service]).Draw(t, "key")
		got := make([]bool, len(tables))
		u.Match(key, func(n int) { got[n] = true })
		for n, tbl := range tables {
			want, err := tbl.Match(t.Context(), service, key)
			if err != nil || got[n] != want {
				t.Fatalf("%v %q in %q: the union says %v, the table %v, %v", service, key, tbl.Keys(), got[n], want, err)
			}
		}
	})
}
