package rfc5322

import (
	"bytes"
	"strings"
	"testing"
)

func TestMasquerade(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"From: root@host.example", "From: bob@example.org"},
		{"From: root", "From: bob@example.org"},
		{"From:root", "From:bob@example.org"},
		{"From: Root <root@host.example>", "From: Root <bob@example.org>"},
		{"From: <>", "From: <bob@example.org>"},
		{`From: "a, b <c@d>" <root>`, `From: "a, b <c@d>" <bob@example.org>`},
		{"From: root (Charlie <c@d> Root)", "From: bob@example.org (Charlie <c@d> Root)"},
		{"From: (Root)root", "From: (Root)bob@example.org"},
		{"From: a@b, C <c@d>", "From: bob@example.org, C <bob@example.org>"},
		{"From: Long Name\n\t<root@host.example>", "From: Long Name\n\t<bob@example.org>"},
		{"From: friends: a@b;", "From: friends: a@b;"},
		{"From: Open <root", "From: Open <root"},
		{"From: ", "From: "},
		{"From:", "From:"},
		{"From: (just a comment)", "From: (just a comment)"},
		{`From: "open`, `From: "open`},
		{"To: root", "To: root@mx.example"},
		{"Sender: root", "Sender: root"},
		{"Reply-To: root@host.example", "Reply-To: root@host.example"},
	} {
		w := Rewriter{Domain: "mx.example", From: "bob@example.org"}
		var out []byte
		var err error
		for _, line := range strings.Split(tc.in, "\n") {
			if out, err = w.Line(out, []byte(line)); err != nil {
				t.Fatal(tc.in, err)
			}
		}
		if got := strings.TrimSuffix(string(w.End(out)), "\n"); got != tc.want {
			t.Errorf("%q:\ngot  %q\nwant %q", tc.in, got, tc.want)
		}
	}
}

// FuzzMasquerade holds that no line is added, and that the last one stays ended.
func FuzzMasquerade(f *testing.F) {
	f.Add([]byte(` "a, b <c@d>" <root>, (x)y`))
	f.Add([]byte(" a:b;, <c\n\t>,,"))
	f.Fuzz(func(t *testing.T, val []byte) {
		val = append(val, '\n')
		got := appendMasqueraded(nil, val, "FROM")
		if bytes.Count(got, []byte("\n")) > bytes.Count(val, []byte("\n")) || !bytes.HasSuffix(got, []byte("\n")) || len(got) > len(val)+4*(bytes.Count(val, []byte(","))+1) {
			t.Errorf("%q becomes %q", val, got)
		}
	})
}
