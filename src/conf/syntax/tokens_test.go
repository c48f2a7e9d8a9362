package syntax

import (
	"strings"
	"testing"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// reader gives one whose first token is at hand.
func reader(text string) *Reader {
	p := New(func(string) ([]byte, error) { return []byte(text + "\n"), nil }, "f", nil)
	p.Grammar = Grammar{
		Reserved:  func(word string) bool { return word == "smtp" || word == "match" },
		Statement: func(string, conf.Node) (*conf.Node, bool) { return nil, false },
	}
	p.Advance()
	return p
}

// TestUnits holds what delays, sizes, numbers and ports read, and where they stop;
// wrong is a part of what is said of those that are none.
func TestUnits(t *testing.T) {
	delay := func(p *Reader) any { return p.Delay("delay") }
	size := func(p *Reader) any { return p.Size("size") }
	number := func(p *Reader) any { return p.Number("number") }
	port := func(p *Reader) any { return p.Port() }
	for _, tt := range []struct {
		read        func(*Reader) any
		text        string
		want        any
		wrong, hint string
	}{
		{delay, "4h", 4 * time.Hour, "", ""},
		{delay, `"4h"`, 4 * time.Hour, "", ""},
		{delay, "4", nil, "4 has no unit", "s, m, h or d"},
		{delay, "4w", nil, "invalid delay: 4w", "s, m, h or d"},
		{delay, "match", nil, "reserved word", `quote it: "match"`},
		{size, "35M", int64(35 << 20), "", ""},
		{size, "100", int64(100), "", ""},
		{size, "-1", nil, "invalid size: -1", ""},
		{size, "35MB", nil, "invalid size: 35MB", "K, M or G"},
		{number, "0", int64(0), "", ""},
		{number, "-1", nil, "not between 0 and", ""},
		{number, "2147483648", nil, "not between 0 and", ""},
		{number, "ten", nil, "expected a number for number", ""},
		{port, "25", "25", "", ""},
		{port, "smtp", "smtp", "", ""},
		{port, "submission", "submission", "", ""},
		{port, `""`, nil, "empty string", ""},
	} {
		p := reader(tt.text + " end")
		got := tt.read(p)
		all := p.Diags.All()
		if tt.wrong == "" {
			if got != tt.want || len(all) > 0 || p.Tok.Text != "end" {
				t.Errorf("%s: %v, then %q, said %v", tt.text, got, p.Tok.Text, all)
			}
			continue
		}
		if len(all) != 1 || !strings.Contains(all[0].Message, tt.wrong) || !strings.Contains(all[0].Hint, tt.hint) {
			t.Errorf("%s: %v, said %v", tt.text, got, all)
		}
	}
}

// TestQuiet holds that after an error nothing is read, and nothing more is said.
func TestQuiet(t *testing.T) {
	p := reader("4w 35MB { a")
	p.Fail(p.Tok.Pos, "", "the first")
	at := p.Tok
	p.Delay("delay")
	p.Size("size")
	p.Number("number")
	p.Entries(new(conf.Table))
	p.Ref(new(conf.Node), "x")
	p.Want("x")
	p.UnknownOption("x", nil)
	if p.Tok != at || p.Diags.Len() != 1 {
		t.Errorf("at %v, said %v", p.Tok, p.Diags.All())
	}
}

// TestOptionHints holds what is proposed for a word that is no option.
func TestOptionHints(t *testing.T) {
	for text, want := range map[string]string{
		"hostnme": `did you mean "hostname"?`,
		"tagged":  "since 6.4 it is written: tag",
		"zzz":     "",
	} {
		p := reader(text)
		p.Renamed = map[string]string{"tagged": "tag"}
		p.UnknownOption("listen on", []string{"hostname", "tag"})
		if all := p.Diags.All(); len(all) != 1 || all[0].Hint != want {
			t.Errorf("%s: %v", text, all)
		}
	}
}

// TestMacroAgain holds that of a macro one definition is left, with the comments
// of all.
func TestMacroAgain(t *testing.T) {
	p := reader("\n#1\nm = \"a\" #2\n#3\nm = \"b\" #4\nn = $m")
	p.Run()
	cfg := p.Cfg
	if len(cfg.Macros) != 2 || cfg.Macros[0].Value != "b" || cfg.Macros[1].Value != "b" {
		t.Fatalf("%+v, said %v", cfg.Macros, p.Diags.All())
	}
	if m := cfg.Macros[0]; strings.Join(m.Doc, " ") != "#1 #2 #3" || m.Comment != "#4" {
		t.Errorf("comments %q %q", m.Doc, m.Comment)
	}
}

// TestPKIJoins holds that statements about one pki make one, under its name in
// lower case.
func TestPKIJoins(t *testing.T) {
	p := reader("Mail.example.org")
	first := p.PKI(conf.Node{Pos: p.Tok.Pos, Comment: "#1"})
	p.Lex.Unread(lex.Token{Kind: lex.Word, Text: "mail.example.org", Pos: p.Tok.Pos})
	p.Advance()
	second := p.PKI(conf.Node{Pos: p.Tok.Pos, Doc: []string{"#2"}})
	if first != second || len(p.Cfg.PKIs) != 1 || first.Name != "mail.example.org" || strings.Join(first.Doc, " ") != "#1 #2" {
		t.Errorf("%+v %+v", first, second)
	}
}
