package addr

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestParsePath(t *testing.T) {
	l255, l256 := strings.Repeat("a", 255), strings.Repeat("a", 256)
	label := strings.Repeat("d", 63)
	d255 := label + "." + label + "." + label + "." + label
	for _, tc := range []struct {
		in   string
		want Address
		rest string
		err  error
	}{
		{"<>", Address{}, "", nil},
		{"<> SIZE=3", Address{}, " SIZE=3", nil},
		{"<a@b>", Address{"a", "b"}, "", nil},
		{"<a@b>x", Address{"a", "b"}, "x", nil},
		{"<John.Doe+tag@Example.ORG> A=>", Address{"John.Doe+tag", "Example.ORG"}, " A=>", nil},
		{"<!#$%&'*+-/=?^_`{|}~@example.org>", Address{"!#$%&'*+-/=?^_`{|}~", "example.org"}, "", nil},
		{`<"john doe"@example.org>`, Address{"john doe", "example.org"}, "", nil},
		{`<"a\"b\\c>@d"@example.org>y`, Address{`a"b\c>@d`, "example.org"}, "y", nil},
		{`<"postmaster">`, Address{Local: "postmaster"}, "", nil},
		{"<PostMaster>", Address{Local: "PostMaster"}, "", nil},
		{"<user>", Address{Local: "user"}, "", ErrNoDomain},
		{"<@one,@two.example:user@dom>", Address{"user", "dom"}, "", nil},
		{"<@one:postmaster>", Address{Local: "postmaster"}, "", nil},
		{"<a@[192.0.2.1]>", Address{"a", "[192.0.2.1]"}, "", nil},
		{"<a@[IPv6:2001:db8::1]>", Address{"a", "[IPv6:2001:db8::1]"}, "", nil},
		{"<a@[ipv6:::1]>", Address{"a", "[ipv6:::1]"}, "", nil},
		{"<a@[::1]>", Address{"a", "[::1]"}, "", nil},
		{"<" + l255 + "@" + d255 + ">", Address{l255, d255}, "", nil},

		{"<" + l256 + "@d>", Address{}, "", ErrLong},
		{"<a@" + d255 + "d>", Address{}, "", ErrLong},
		{"<a@" + label + "d>", Address{}, "", ErrSyntax},
		{"<jürgen@example.org>", Address{"jürgen", "example.org"}, "", ErrUTF8},
		{"<a@bücher.example> X", Address{"a", "bücher.example"}, " X", ErrUTF8},
		{"<a@Bücher.Example>", Address{"a", "Bücher.Example"}, "", ErrUTF8},
		{"<\"j ü\"@example.org>", Address{"j ü", "example.org"}, "", ErrUTF8},
		{"<用户@例子.example>", Address{"用户", "例子.example"}, "", ErrUTF8},
		{"<jürgen>", Address{Local: "jürgen"}, "", ErrNoDomain},
		{"<@bücher.example:a@b>", Address{}, "", ErrSyntax},
		{"<a@ｅxample.org>", Address{}, "", ErrSyntax},          // full width: IDNA maps it to e
		{"<a@bu\u0308cher.example>", Address{}, "", ErrSyntax}, // not composed
		{"<a@ü..example>", Address{}, "", ErrSyntax},
		{"<a@-ü.example>", Address{}, "", ErrSyntax},
		{"<a@ü\u200b.example>", Address{}, "", ErrSyntax},
		{"<j\xfcrgen@example.org>", Address{}, "", ErrSyntax},
		{"<a\xff@b>", Address{}, "", ErrSyntax},
		{"<a@b\x80>", Address{}, "", ErrSyntax},
		{"", Address{}, "", ErrSyntax},
		{"a@b", Address{}, "", ErrSyntax},
		{"<a@b", Address{}, "", ErrSyntax},
		{"<a@>", Address{}, "", ErrSyntax},
		{"<@>", Address{}, "", ErrSyntax},
		{"<@b>", Address{}, "", ErrSyntax},
		{"<@b:>", Address{}, "", ErrSyntax},
		{"<@b,a@c>", Address{}, "", ErrSyntax},
		{"<@b,:a@c>", Address{}, "", ErrSyntax},
		{"<x:y>", Address{}, "", ErrSyntax},
		{"<x:y@z>", Address{}, "", ErrSyntax},
		{"<a@b@c>", Address{}, "", ErrSyntax},
		{"<a@b@>", Address{}, "", ErrSyntax},
		{"<a b@c>", Address{}, "", ErrSyntax},
		{"<.a@c>", Address{}, "", ErrSyntax},
		{"<a.@c>", Address{}, "", ErrSyntax},
		{"<a..b@c>", Address{}, "", ErrSyntax},
		{"<a@c.>", Address{}, "", ErrSyntax},
		{"<a@.c>", Address{}, "", ErrSyntax},
		{"<a@-c>", Address{}, "", ErrSyntax},
		{"<a@c d>", Address{}, "", ErrSyntax},
		{"<a@b;c>", Address{}, "", ErrSyntax},
		{"<a@[fe80::1%eth0]>", Address{}, "", ErrSyntax},
		{"<a@[IPv6:192.0.2.1]>", Address{}, "", ErrSyntax},
		{"<a@[]>", Address{}, "", ErrSyntax},
		{"<a@[192.0.2.1>", Address{}, "", ErrSyntax},
		{"<a@192.0.2.1]>", Address{}, "", ErrSyntax},
		{`<"a@b>`, Address{}, "", ErrSyntax},
		{`<""@b>`, Address{}, "", ErrSyntax},
		{`<"a"b@c>`, Address{}, "", ErrSyntax},
		{`<a"b"@c>`, Address{}, "", ErrSyntax},
		{"<\"a\tb\"@c>", Address{}, "", ErrSyntax},
		{"<a\x00@c>", Address{}, "", ErrSyntax},
		{"<;sleep 66;>", Address{}, "", ErrSyntax},
	} {
		got, rest, err := ParsePath(tc.in)
		if got != tc.want || rest != tc.rest && err == nil || err != tc.err {
			t.Errorf("ParsePath(%q) = %#v, %q, %v; want %#v, %q, %v", tc.in, got, rest, err, tc.want, tc.rest, tc.err)
		}
	}
}

// TestCVE_2020_7247 holds that no byte whatever makes a path without a domain
// pass.
func TestCVE_2020_7247(t *testing.T) {
	for c := 0; c < 256; c++ {
		b := string([]byte{byte(c)})
		locals := []string{b, b + b, "x" + b}
		if b != "@" {
			locals = append(locals, "x"+b+"y") // with '@' that is an address
		}
		for _, local := range locals {
			for _, path := range []string{"<" + local + ">", "<" + local + "@>"} {
				if a, _, err := ParsePath(path); err == nil && !a.IsZero() {
					t.Errorf("ParsePath(%q) = %#v, want an error", path, a)
				}
			}
		}
	}
}

func TestSMTP(t *testing.T) {
	for _, tc := range []struct {
		a    Address
		want string
	}{
		{Address{}, ""},
		{Address{Local: "postmaster"}, "postmaster"},
		{Address{"a.b", "c"}, "a.b@c"},
		{Address{"a b", "c"}, `"a b"@c`},
		{Address{`a"\`, "c"}, `"a\"\\"@c`},
		{Address{"a.", "c"}, `"a."@c`},
	} {
		if got := tc.a.SMTP(); got != tc.want {
			t.Errorf("%#v.SMTP() = %q, want %q", tc.a, got, tc.want)
		}
	}
}

func TestCompare(t *testing.T) {
	a := Address{"User", "Example.Org"}
	if !a.Equal(Address{"uSER", "eXAMPLE.oRG"}) || a.Equal(Address{"user2", "example.org"}) {
		t.Error("Equal does not fold, or folds too much")
	}
	if EqualDomain("k.example", "\u212a.example") {
		t.Error("the Kelvin sign equals k")
	}
	if got := a.Lower(); got != (Address{"user", "example.org"}) {
		t.Errorf("Lower() = %v", got)
	}
	if got := Lower("ÄBC"); got != "Äbc" {
		t.Errorf("Lower(ÄBC) = %q", got)
	}
	for in, want := range map[string]Address{
		"user": {Local: "user"}, "u@d": {"u", "d"}, "@d": {Domain: "d"}, "@": {}, "a@b@c": {"a@b", "c"}, "": {},
	} {
		if got := Cut(in); got != want {
			t.Errorf("Cut(%q) = %#v, want %#v", in, got, want)
		}
	}
}

func TestSplitTag(t *testing.T) {
	for _, tc := range []struct {
		local, delim, user, tag string
		found                   bool
	}{
		{"user+tag", "+", "user", "tag", true},
		{"user+a+b", "+", "user", "a+b", true},
		{"user-a", "+", "user-a", "", false},
		{"user-a", "-", "user", "a", true},
		{"user+", "+", "user", "", true},
		{"+tag", "+", "", "tag", true},
		{"user+tag", "", "user+tag", "", false},
	} {
		user, tag, found := SplitTag(tc.local, tc.delim)
		if user != tc.user || tag != tc.tag || found != tc.found {
			t.Errorf("SplitTag(%q, %q) = %q, %q, %v", tc.local, tc.delim, user, tag, found)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"**", "abc", true},
		{"a", "A", true}, {"a", "b", false}, {"a*", "", false},
		{"*.example", "a.b.example", true}, {"*.example", "example", false}, {"*.example", ".example", true},
		{"*.Example.org", "mail.EXAMPLE.org", true},
		{"mail.*.org", "mail.a.org.b.org", true}, {"mail.*.org", "mail.org", false},
		{"*a*b*c", "aabbcc", true}, {"*a*b*c", "acb", false},
		{"a*a", "a", false}, {"a*a", "aa", true},
	} {
		if got := Glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("Glob(%q, %q) = %v", tc.pattern, tc.s, got)
		}
	}
}

// slowGlob is the definition, exponential and plain.
func slowGlob(p, s string) bool {
	if p == "" {
		return s == ""
	}
	if p[0] == '*' {
		return slowGlob(p[1:], s) || s != "" && slowGlob(p, s[1:])
	}
	return s != "" && lower(p[0]) == lower(s[0]) && slowGlob(p[1:], s[1:])
}

func TestGlobIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringOfN(rapid.SampledFrom([]rune("ab.*")), 0, 10, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("abB.")), 0, 14, -1).Draw(t, "s")
		if got, want := Glob(p, s), slowGlob(p, s); got != want {
			t.Fatalf("Glob(%q, %q) = %v, want %v", p, s, got, want)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{
		"<>", "<a@b>", `<"a b\""@c> X`, "<@a,@b:c@d>", "<a@[IPv6:::1]>", "<postmaster>", "<;sleep 66;>", "<ü@ü>", "<a@xn--bcher-kva.example>", "<\"", "<@:", "<a@b", "<\"\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, rest, err := ParsePath(s)
		if err != nil {
			if !errors.Is(err, ErrNoDomain) && !errors.Is(err, ErrUTF8) && !a.IsZero() {
				t.Fatalf("%q: %v with %#v", s, err, a)
			}
			if !errors.Is(err, ErrUTF8) {
				return
			}
		}
		if errors.Is(err, ErrUTF8) == a.ASCII() || !utf8.ValidString(a.String()) {
			t.Fatalf("%q: %v with %#v", s, err, a)
		}
		if !strings.HasSuffix(s, ">"+rest) {
			t.Fatalf("%q: rest %q is not behind '>'", s, rest)
		}
		if strings.ContainsAny(a.Local+a.Domain, "\r\n\x00") || len(a.Local) > MaxLocal || len(a.Domain) > MaxDomain {
			t.Fatalf("%q gives %#v", s, a)
		}
		if a.Local == "" && a.Domain != "" {
			t.Fatalf("%q: a domain without a local part", s)
		}
		again, _, err := ParsePath("<" + a.SMTP() + ">")
		if err != nil && !errors.Is(err, ErrUTF8) || again != a {
			t.Fatalf("%q gives %#v, printed %q, read again %#v, %v", s, a, a.SMTP(), again, err)
		}
		if cut := Cut(a.String()); a.Domain != "" && cut != a {
			t.Fatalf("Cut(%q) = %#v, want %#v", a.String(), cut, a)
		}
	})
}

func TestForms(t *testing.T) {
	for _, tc := range []struct{ in, other string }{
		{"bücher.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "bücher.example"},
		{"XN--BCHER-KVA.Example", "bücher.example"},
		{"a@bücher.example", "a@xn--bcher-kva.example"},
		{"Ä+x@xn--bcher-kva.example", "Ä+x@bücher.example"},
		{"jürgen@example.org", ""},
		{"example.org", ""},
		{"a@example.org", ""},
		{"", ""},
		{"@", ""},
		{"xn--.example", ""},
		{"ü\xff.example", ""},
	} {
		if got := OtherForm(tc.in); got != tc.other {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.other)
		}
	}
}

// FuzzOtherForm holds that the two forms of a domain lead to each other; one that
// mixes them leads to both.
func FuzzOtherForm(f *testing.F) {
	for _, s := range []string{"bücher.example", "xn--bcher-kva.example", "a@例子.example", "xn--a", "xn--zca.example", "ß.example", "\u200d.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		other := OtherForm(s)
		if other == "" {
			return
		}
		if back := OtherForm(other); back == "" || OtherForm(back) != other {
			t.Errorf("%q, %q, %q, %q", s, other, back, OtherForm(back))
		}
	})
}
