package rfc5322

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// run passes a message, lines ended by LF, through w.
func run(w *Rewriter, text string) (string, error) {
	var out []byte
	for line := range strings.Lines(text) {
		var err error
		if out, err = w.Line(out, []byte(strings.TrimSuffix(line, "\n"))); err != nil {
			return string(out), err
		}
	}
	return string(w.End(out)), nil
}

func TestRewrite(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"both missing", "A: b\n\nx\n", "A: b\nDate: D\nMessage-ID: M\n\nx\n"},
		{"date there", "dAtE: x\n\n", "dAtE: x\nMessage-ID: M\n\n"},
		{"id there", "Message-Id: x\n\n", "Message-Id: x\nDate: D\n\n"},
		{"ends in header", "A: b\n", "A: b\nDate: D\nMessage-ID: M\n"},
		{"empty", "", "Date: D\nMessage-ID: M\n"},
		{"body alone", "\nx\n", "Date: D\nMessage-ID: M\n\nx\n"},
		{"bcc", "Bcc: a\n b\nBCC:c\nA: b\n\nBcc: x\n", "A: b\nDate: D\nMessage-ID: M\n\nBcc: x\n"},
		{"bcc last", "A: b\nBcc: a\n", "A: b\nDate: D\nMessage-ID: M\n"},
		{"completed", "To: a\n\n", "To: a@h.example\nDate: D\nMessage-ID: M\n\n"},
		{"completed at the end", "To: a\n b", "To: a\n b@h.example\nDate: D\nMessage-ID: M\n"},
		{"in the body", "\nTo: a\n", "Date: D\nMessage-ID: M\n\nTo: a\n"},
	} {
		w := &Rewriter{Domain: "h.example", Date: "D", MessageID: "M"}
		if got, err := run(w, tc.in); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
	plain := "A: b\nC:d\n e\n\nbody\n"
	if got, err := run(&Rewriter{}, plain); err != nil || got != plain {
		t.Errorf("a zero Rewriter changed it: %q, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     error
	}{
		{"no header", "hello\n", ErrMalformed},
		{"folded first", " a\n", ErrMalformed},
		{"text after header", "A: b\nhello\n", ErrMalformed},
		{"longest name", strings.Repeat("n", maxName) + ":\n", nil},
		{"name too long", strings.Repeat("n", maxName+1) + ":\n", ErrMalformed},
		{"longest value", "To:" + strings.Repeat("v", maxValue) + "\n", nil},
		{"value too long", "To:" + strings.Repeat("v", maxValue+1) + "\n", ErrMalformed},
		{"folded value too long", "To:" + strings.Repeat("v", 40000) + "\n " + strings.Repeat("v", 40000) + "\n", ErrMalformed},
		{"other fields may be", "X:" + strings.Repeat("v", 2*maxValue) + "\n", nil},
		{"hops", strings.Repeat("Received: x\n", MaxHops-1), nil},
		{"loop", strings.Repeat("received: x\n", MaxHops), ErrLoop},
		{"other fields are no hops", strings.Repeat("X-Received: x\n", MaxHops+1), nil},
	} {
		if _, err := run(&Rewriter{Domain: "h"}, tc.in); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{" a", " a@h"},
		{"a", "a@h"},
		{" a@b", " a@b"},
		{" a,b", " a@h,b@h"},
		{" a, b@c,d ", " a@h, b@c,d@h "},
		{" A B <a>", " A B <a@h>"},
		{" <a >", " <a@h >"},
		{" <>", " <>"},
		{" < >", " < >"},
		{" ", " "},
		{"", ""},
		{",", ","},
		{" (c)", " (c)"},
		{"(c)", "(c)"},
		{" a (c)", " a@h (c)"},
		{" (c) a", " (c) a@h"},
		{" a (c (d), e)", " a@h (c (d), e)"},
		{` "a b"`, ` "a b"@h`},
		{` "a, b" <c>`, ` "a, b" <c@h>`},
		{` "x@y" <c>`, ` "x@y" <c@h>`},
		{` (x@y) c`, ` (x@y) c@h`},
		{` "a\"b" <c>`, ` "a\"b" <c>`}, // OpenSMTPD does not follow it, and leaves it
		{` "a`, ` "a`},
		{` a (b`, ` a (b`},
		{` <a`, ` <a`},
		{` g:;`, ` g:;`},
		{` g: a;`, ` g: a;`},
		{` g: a, b;, c`, ` g: a, b;, c@h`},
		{` a, g: b, c@d;`, ` a@h, g: b, c@d;`},
		{` a@[IPv6:::1], b`, ` a@[IPv6:::1], b@h`},
		{" a,\n\tb", " a@h,\n\tb@h"},
		{" A\n <a>,\n b\n c", " A\n <a@h>,\n b\n c@h"},
		{" ä", " ä@h"},
	} {
		if got := string(appendCompleted(nil, []byte(tc.in+"\n"), "h")); got != tc.want+"\n" {
			t.Errorf("%q became %q, want %q", tc.in, got, tc.want+"\n")
		}
	}
}

// TLS-Required has one value; what contradicts itself asks for nothing.
func TestTLSOptional(t *testing.T) {
	for in, want := range map[string]bool{
		"":                                       false,
		"TLS-Required: No\n\n":                   true,
		"tls-required:no \t\n\n":                 true,
		"A: b\nTLS-REQUIRED: NO\n\nx\n":          true,
		"TLS-Required: No":                       true,
		"TLS-Required: Yes\n\n":                  false,
		"TLS-Required: No, really\n\n":           false,
		"TLS-Required:\n No\n\n":                 false,
		"TLS-Required\n: No\n\n":                 false,
		"X-TLS-Required: No\n\n":                 false,
		"\nTLS-Required: No\n":                   false,
		"TLS-Required: No\nTLS-Required: No\n\n": true,
		"TLS-Required: No\nTLS-Required: x\n\n":  false,
		"TLS-Required: x\nTLS-Required: No\nTLS-Required: No\n\n": false,
		"Subject: a\n TLS-Required: No\n\n":                       false,
	} {
		w := &Rewriter{}
		_, _ = run(w, in) // some are no header
		if got := w.TLSOptional(); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestReset(t *testing.T) {
	w := &Rewriter{Domain: "h", Date: "D", MessageID: "M"}
	if _, err := run(w, "Received: x\nTo: "+strings.Repeat("x", 9000)+"\n\n"); err != nil {
		t.Fatal(err)
	}
	w.Reset()
	if w.InBody() || w.hops != 0 || w.Domain != "" || cap(w.val) > 4096 {
		t.Errorf("left over: %+v", w)
	}
}

func TestAppendDate(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("CET", 3600))
	if got := string(AppendDate(nil, at)); got != "Wed, 4 Mar 2026 05:06:07 +0100 (CET)" {
		t.Errorf("%q", got)
	}
}

// FuzzRewrite holds that a message keeps its lines: nothing but Bcc goes, and
// nothing but what was asked for comes.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte("From: a\nTo: b,\n c\nBcc: d\n\nbody\n"))
	f.Add([]byte("To: \"a\\\" (b <c>\n x\n\n"))
	f.Add([]byte("To: g: a, b;, (c), <d>\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		w := &Rewriter{Domain: "h.example"}
		out, err := run(w, string(in))
		if err != nil {
			return
		}
		again, err := run(&Rewriter{Domain: "h.example"}, out)
		if err != nil {
			t.Fatalf("%q became %q, which is refused: %v", in, out, err)
		}
		back := strings.ReplaceAll(out, "@h.example", "")
		if orig := strings.ReplaceAll(string(in), "@h.example", ""); !hasBcc(in) && strings.TrimSuffix(back, "\n") != strings.TrimSuffix(orig, "\n") {
			t.Errorf("%q became %q", in, out)
		}
		if !bytes.ContainsAny(in, "\"\\(") && again != out {
			t.Errorf("%q became %q, and then %q", in, out, again)
		}
	})
}

func hasBcc(in []byte) bool { return bytes.Contains(bytes.ToLower(in), []byte("bcc")) }
