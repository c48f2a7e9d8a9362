package printer

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// TestWord holds that every string that can be written reads back as itself, and
// as one token, and that it is in quotes when it is a keyword.
func TestWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.String(),
			rapid.StringOfN(rapid.RuneFrom([]rune(`ab0 "\'	{}<>()!=#,$|/@*.:_-`)), 1, 12, -1),
			rapid.SampledFrom(conf.ReservedWords()),
		).Draw(t, "s")
		p := new(printer)
		text := p.word(s)
		if p.err != nil {
			if !strings.ContainsAny(s, "\n\x00") && !strings.HasSuffix(s, `\`) {
				t.Fatalf("%q: %v", s, p.err)
			}
			return
		}
		diags := new(diag.List)
		l := lex.New(func(string) ([]byte, error) { return []byte(text + " end\n"), nil }, "f", nil, diags)
		tok, next := l.Next(), l.Next()
		// Lines end in \n when a file is read.
		if want := strings.ReplaceAll(s, "\r\n", "\n"); tok.Text != want || next.Text != "end" || diags.Len() > 0 {
			t.Fatalf("%q is written %s, which reads as %q, then %q", s, text, tok.Text, next.Text)
		}
		if tok.Kind == lex.Word && conf.Reserved(tok.Text) || tok.Kind == lex.Number {
			t.Fatalf("%q is written %s", s, text)
		}
	})
}

// TestBackslash holds the values that only a word can have.
func TestBackslash(t *testing.T) {
	for value, want := range map[string]string{`a\`: `a\\`, `0\`: `0\\`, `9a\b\`: `9a\\b\\`, `a\b`: `"a\b"`} {
		p := new(printer)
		if got := p.word(value); got != want || p.err != nil {
			t.Errorf("%s is written %s (%v), want %s", value, got, p.err, want)
		}
	}
}

// TestUnwritable holds that a value which the grammar cannot have is an error, and
// names it.
func TestUnwritable(t *testing.T) {
	for _, value := range []string{"a\nb", "a\x00b", `a b\`} {
		_, err := Print(&conf.Config{Actions: []*conf.Action{{Name: value, Method: conf.MBOX}}})
		if err == nil || !strings.Contains(err.Error(), "cannot be written in smtpd.conf") {
			t.Errorf("%q: %v", value, err)
		}
		if _, err := Print(&conf.Config{Macros: []*conf.Macro{{Name: "m", Value: value}}}); err == nil {
			t.Errorf("a macro of %q is written", value)
		}
	}
}

// TestWideTable holds that a table too wide for a line is written one value a
// line.
func TestWideTable(t *testing.T) {
	table := &conf.Table{Name: "t", Backend: "static"}
	for range 3 {
		table.Entries = append(table.Entries, conf.Entry{Key: strings.Repeat("x", 20)})
	}
	lines := func() int {
		text, err := Print(&conf.Config{Tables: []*conf.Table{table}})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(strings.TrimSpace(text), "\n") + 1
	}
	if n := lines(); n != 1 {
		t.Errorf("narrow: %d lines", n)
	}
	table.Entries = append(table.Entries, table.Entries[0])
	if n := lines(); n != 6 {
		t.Errorf("wide: %d lines", n)
	}
}
