package sendmail

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
)

func lists() []struct{ in, want string } {
	return []struct{ in, want string }{
		{"", ""},
		{"root", "root"},
		{"root@example.org", "root@example.org"},
		{"a, b@c ,, d@e;", "a|b@c|d@e"},
		{"Joe User <joe@example.org>, \"Doe, Jane\" <jane@example.org>", "joe@example.org|jane@example.org"},
		{"joe@example.org (Joe (the) \\) User), jane (x)", "joe@example.org|jane"},
		{"(only a comment)", ""},
		{"friends: a@b, C <c@d>; e@f", "a@b|c@d|e@f"},
		{"undisclosed-recipients:;", ""},
		{"undisclosed-recipients: ;, x@y", "x@y"},
		{"<@a.org,@b.org:joe@c.org>", "joe@c.org"},
		{"\"john doe\"@example.org", "\"john doe\"@example.org"},
		{"\"a\\\"b@c\"@d", "\"a\\\"b@c\"@d"},
		{"joe @ example . org", "joe@example.org"},
		{"joe@[192.0.2.1], x@[IPv6:2001:db8::1]", "joe@[192.0.2.1]|x@[IPv6:2001:db8::1]"},
		{"<>", ""},
		{"J\xc3\xb6rg <j@x.org>", "j@x.org"},
		{"a@b\r\n\t, c@d\n", "a@b|c@d"},
		{"root|/bin/sh", "root|/bin/sh"},
		{"<a@b> trailing words", "a@b"},
		{"two words", "error"},
		{"two words, x@y", "error"},
		{"\"open", "error"},
		{"(open", "error"},
		{"<open", "error"},
		{"a>b", "error"},
		{"<a><b>", "error"},
		{"<<a>", "error"},
		{"<a:b>", "error"},
		{"a\x00b", "error"},
		{"\"a\r\nRCPT TO:<x>\"@b", "error"},
		{"\"a\\\nb\"@c", "error"},
		{"a\\b", "error"},
		{"x@[1.2.3.4", "error"},
	}
}

func TestParseList(t *testing.T) {
	for _, tc := range lists() {
		list, err := parseList(tc.in)
		got := strings.Join(list, "|")
		if err != nil {
			got = "error"
		}
		if got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestQualify(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a@h", "a@b": "a@b", `"a@b"`: `"a@b"@h`, `"a"@b`: `"a"@b`,
	} {
		if got := qualify(in, "h"); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzParseList holds that nothing harmful comes out, and that what net/mail
// understands is understood alike.
func FuzzParseList(f *testing.F) {
	for _, tc := range lists() {
		f.Add(tc.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		list, err := parseList(in)
		for _, a := range list {
			if a == "" || strings.ContainsAny(a, "\r\n\x00") || strings.ContainsAny(unquoted(a), "<> \t(),;") {
				t.Fatalf("%q yields %q", in, a)
			}
		}
		std, stdErr := mail.ParseAddressList(in)
		if stdErr != nil || strings.Contains(in, "[") || strings.ContainsAny(in, "=") {
			return // literals and encoded words are where net/mail goes its own way
		}
		if err != nil {
			t.Fatalf("%q: %v, but net/mail reads it", in, err)
		}
		var ours, theirs []string
		for _, a := range list {
			parsed, err := mail.ParseAddress("<" + a + ">")
			if err != nil {
				t.Fatalf("%q yields %q: %v", in, a, err)
			}
			ours = append(ours, parsed.Address)
		}
		for _, a := range std {
			theirs = append(theirs, a.Address)
		}
		if !slices.Equal(ours, theirs) {
			t.Fatalf("%q: %q, net/mail says %q", in, ours, theirs)
		}
	})
}

// unquoted returns what of an address stands outside of quotes and brackets.
func unquoted(a string) string {
	var b strings.Builder
	var closing byte
	for i := 0; i < len(a); i++ {
		switch c := a[i]; {
		case closing != 0 && c == '\\':
			i++
		case closing != 0:
			if c == closing {
				closing = 0
			}
		case c == '"':
			closing = '"'
		case c == '[':
			closing = ']'
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
