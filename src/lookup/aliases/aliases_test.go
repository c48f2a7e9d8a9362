package aliases

import (
	"fmt"
	"strings"
	"testing"
)

// show writes values one by one, each with its kind.
func show(list []Value) string {
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%v %v", v.Kind, v)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{" , ,\t", ""},
		{"bob", "user bob"},
		{"Bob", "user bob"},
		{`\bob`, "user bob"},
		{"bob+tag, a.b-c_d", "user bob+tag; user a.b-c_d"},
		{"bob,carol@example.org", "user bob; address carol@example.org"},
		{"Carol+x@Example.Org", "address Carol+x@Example.Org"},
		{"o'brien@example.org, bob", "address o'brien@example.org; user bob"},
		{`"john doe"@example.org`, "address john doe@example.org"},
		{"a..b@example.org", "address a..b@example.org"},
		{"bob@example.org.", "address bob@example.org."},
		{"!#$%*?|^{}`~&@x", "address !#$%*?|^{}`~&@x"},
		{"/var/mail/x", "file /var/mail/x"},
		{"/a@b", "file /a@b"},
		{`"/with space"`, "file /with space"},
		{"|cat", "command |cat"},
		{`"|prog a, b"`, "command |prog a, b"},
		{`| prog 'a, b' , bob`, "command |prog 'a, b'; user bob"},
		{`|"/my prog" x`, `command |"/my prog" x`},
		{`"|prog \"a\" b"`, `command |prog "a" b`},
		{`|sed s/\\n//`, `command |sed s/\n//`},
		{":include:/etc/list", "include :include:/etc/list"},
		{"Include:/etc/list", "include :include:/etc/list"},
		{"error:550 no such user", "error error:550 no such user"},
		{":ERROR: 421 4.7.0 later", "error error:421 4.7.0 later"},
		{`"error:550 gone, for good"`, "error error:550 gone, for good"},
		{"bob # carol", "user bob"},
		{"bob #", "user bob"},
		{"# bob", ""},
		{"b#b@example.org", "address b#b@example.org"},
		{`"|prog #x"`, "command |prog #x"},
		{`bob\, carol`, "!"},
		{"bob carol", "!"},
		{"bob,,carol,", "user bob; user carol"},
		{`"bob`, "!"},
		{"'bob", "!"},
		{`bob\`, "!"},
		{"bob@", "!"},
		{"@example.org", "!"},
		{"b(b@x", "!"},
		{"bob@exa mple", "!"},
		{"bob@ex_ample", "address bob@ex_ample"},
		{"a@b@c", "!"},
		{"|", "!"},
		{`"|prog`, "!"},
		{`"|`, "!"},
		{`""`, "!"},
		{":include:relative", "!"},
		{"error:55 x", "!"},
		{"error:650 text", "!"},
		{"error:550  two", "!"},
		{"error:550", "!"},
		{"jürgen", "!"},
		{"a\x00b", "!"},
		{"|a\rb", "!"},
		{strings.Repeat("a", 255), "user " + strings.Repeat("a", 255)},
		{strings.Repeat("a", 256), "!"},
		{"/" + strings.Repeat("a", 1023), "!"},
		{strings.Repeat("a", 256) + "@b", "!"},
	} {
		list, err := Parse(tc.in)
		got := show(list)
		if err != nil {
			got = "!"
		}
		if got != tc.want {
			t.Errorf("Parse(%q) = %s (%v), want %s", tc.in, got, err, tc.want)
		}
	}
}

func TestParseForward(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"\n\n# nothing\n", ""},
		{"bob", "user bob"},
		{"# empty lines are ignored\n\nuser@example.com\t# this too\n\"|/bin/mda\"\n", "address user@example.com; command |/bin/mda"},
		{"user@example.com#right behind\r\n", "address user@example.com"},
		{"a, b\nc", "user a; user b; user c"},
		{"a, \\\n  b\\\n,c\nd\\", "user a; user b; user c; user d"},
		{"\"|prog \\# x\"", "command |prog # x"},
		{"bob, :include:/etc/passwd", "user bob"},
		{":include:/etc/passwd", ""},
		{"a\nb c\n", "!line 2: "},
		{"a\n\n\"b \\\nc\n", "!line 3: "},
		{strings.Repeat("a\n", 100), strings.TrimSuffix(strings.Repeat("user a; ", 100), "; ")},
		{strings.Repeat("a\n", 101), "!" + errMany.Error()},
		{strings.Repeat("#\n", 2048), "!" + errForward.Error()},
		{strings.Repeat("#\n", 2047), ""},
	} {
		list, err := ParseForward([]byte(tc.in))
		got := show(list)
		if err != nil {
			got = "!" + err.Error()
		}
		if got != tc.want && !(strings.HasPrefix(tc.want, "!") && strings.HasPrefix(got, tc.want)) {
			t.Errorf("ParseForward(%.60q) = %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestParseInclude(t *testing.T) {
	list, bad := ParseInclude([]byte("# list\na@x.org # one\nb c\n:include:/more\nd,\\\n e\n\"\n"))
	if got := show(list); got != "address a@x.org; user d; user e" {
		t.Errorf("values %s", got)
	}
	if len(bad) != 2 || !strings.HasPrefix(bad[0].Error(), "line 3: ") || !strings.HasPrefix(bad[1].Error(), "line 7: ") {
		t.Errorf("bad lines %v", bad)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"bob, carol@x", `"|a, b" , /c`, `\`, `"`, "'a'b'c'", ":include:/x", "error:550 a", "a\\\nb # c", "|a\\\\", `"|"`, "o'b,c'd", `"""`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func() ([]Value, error){
			func() ([]Value, error) { return Parse(s) },
			func() ([]Value, error) { return ParseForward([]byte(s)) },
			func() ([]Value, error) { list, _ := ParseInclude([]byte(s)); return list, nil },
		} {
			list, err := parse()
			if err != nil {
				continue
			}
			for _, v := range list {
				text := v.Text + v.Addr.Local + v.Addr.Domain
				if text == "" || len(text) > 2*255+maxText || strings.ContainsAny(text, "\r\n\x00") {
					t.Fatalf("%q gives %v %q", s, v.Kind, text)
				}
				if (v.Kind == File || v.Kind == Include) && v.Text[0] != '/' {
					t.Fatalf("%q gives the path %q", s, v.Text)
				}
				if v.Kind == Address && (v.Addr.Local == "" || v.Addr.Domain == "") {
					t.Fatalf("%q gives the address %#v", s, v.Addr)
				}
			}
		}
	})
}
