package lex_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// show writes tokens so that tables can hold them: kind letter and text.
func show(t *testing.T, text string, macros map[string]string) (string, *diag.List) {
	t.Helper()
	diags := new(diag.List)
	l := lex.New(func(string) ([]byte, error) { return []byte(text), nil }, "f", macros, diags)
	var out []string
	for range 1000 {
		tok := l.Next()
		s := fmt.Sprintf("%c", "EnwqN.>!"[tok.Kind])
		if tok.Kind == lex.EOF {
			return strings.Join(out, " "), diags
		}
		if tok.Text != "" || tok.Kind == lex.Quoted {
			s += ":" + tok.Text
		}
		if tok.Comment != "" {
			s += tok.Comment
		}
		out = append(out, s)
	}
	t.Fatal("no end")
	return "", nil
}

func TestTokens(t *testing.T) {
	for in, want := range map[string]string{
		`0\\ 5`:               `w:0\ N:5 n`,
		"":                    "n",
		"a b":                 "w:a w:b n",
		"a\tb\n":              "w:a w:b n n",
		"10.0.0.0/8 4d a.1-2": "w:10.0.0.0/8 w:4d w:a.1-2 n",
		"10 10,-5 -x 25#":     "N:10 N:10 .:, N:-5 .:- w:x w:25 n#",
		"10/8 10}":            "N:10 .:/ N:8 N:10 .:} n",
		"1) 1= 1=>":           "N:1 .:) N:1 .:= N:1 >:=> n",
		`a"b c'd "e f" 'g"h'`: `w:a"b w:c'd q:e f q:g"h n`,
		`"a\"b" 'a\'b' "a\b"`: `q:a"b q:a'b q:a\b n`,
		`"a\ b" "\\""`:        `q:a b q:\" n`,
		"a\\\nb":              "w:ab n",
		"a \\\n b":            "w:a w:b n",
		"\\a a\\@b \\# c":     "w:a w:a@b n# c",
		"\"a\nb\\\nc\"":       "q:abc n",
		"a # b \\\n c\nd":     "w:a n# b \n c w:d n",
		`# a\\`:               `n# a\\`,
		`# a\`:                `n# a`,
		"a{b}(c)<d>!e,f=g":    "w:a .:{ w:b .:} .:( w:c .:) .:< w:d .:> .:! w:e .:, w:f .:= w:g n",
		":a _b *":             "w::a w:_b .:* n",
		"\r\na\r\n":           "n w:a n n",
		"é":                   ".:é n",
	} {
		got, diags := show(t, in, nil)
		if got != want || diags.Len() > 0 {
			t.Errorf("%q: got %q, want %q (%v)", in, got, want, diags.All())
		}
	}
}

func TestMacros(t *testing.T) {
	macros := map[string]string{"two": "a b", "n": "25", "q": `"x y"`, "d": "$two", "hash": "# z", "open": `"u`, "dash": "-"}
	for in, want := range map[string]string{
		"$two":       "w:a w:b n",
		"$two.c":     "w:a w:b.c n",
		"x$two":      "w:x$two n",
		"$two$n":     "w:a w:b$n n",
		"$n,$n":      "N:25 .:, N:25 n",
		"$q":         "q:x y n",
		`"$two"`:     "q:$two n",
		"$d":         ".:$ w:two n",
		"$hash a":    "n# z a",
		`$open v" w`: "q:u v w:w n",
		"$dash$n":    ".:- N:25 n",
	} {
		got, diags := show(t, in, macros)
		if got != want || diags.Len() > 0 {
			t.Errorf("%q: got %q, want %q (%v)", in, got, want, diags.All())
		}
	}
}

func TestPlaces(t *testing.T) {
	diags := new(diag.List)
	text := "ab  \"c\nd\" $m\n\\\n e"
	l := lex.New(func(string) ([]byte, error) { return []byte(text), nil }, "f", map[string]string{"m": "x y"}, diags)
	var got []string
	for tok := l.Next(); tok.Kind != lex.EOF; tok = l.Next() {
		if tok.Kind != lex.Newline {
			got = append(got, fmt.Sprintf("%s@%d:%d%s", tok.Text, tok.Pos.Line, tok.Pos.Col, tok.Macro))
		}
	}
	if want := "ab@1:1 cd@1:5 x@2:4m y@2:4m e@4:2"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestIncludeDepth(t *testing.T) {
	diags := new(diag.List)
	l := lex.New(func(string) ([]byte, error) { return nil, nil }, "0", nil, diags)
	for i := 1; i < lex.MaxDepth; i++ {
		if !l.Include(fmt.Sprint(i), conf.Pos{File: "f", Line: 1, Col: 1}) {
			t.Fatal(i, diags.All())
		}
	}
	if l.Include("one more", conf.Pos{File: "f", Line: 1, Col: 1}) || !diags.HasErrors() {
		t.Error("no limit")
	}
}

func TestUnreadable(t *testing.T) {
	diags := new(diag.List)
	l := lex.New(func(string) ([]byte, error) { return nil, errors.New("gone") }, "f", nil, diags)
	if l.Next(); !diags.HasErrors() || !strings.Contains(diags.Format(diags.All()[0]), "f: gone") {
		t.Error(diags.All())
	}
}

func TestDefine(t *testing.T) {
	diags := new(diag.List)
	l := lex.New(func(string) ([]byte, error) { return []byte("$a $b $c"), nil }, "f", map[string]string{"a": "given"}, diags)
	l.Define("a", "file", conf.Pos{})
	l.Define("b", "one", conf.Pos{})
	l.Define("b", "two", conf.Pos{})
	l.Define("unused", "x", conf.Pos{})
	var got []string
	for tok := l.Next(); tok.Kind != lex.EOF; tok = l.Next() {
		got = append(got, tok.Text)
	}
	if s := strings.Join(got, " "); s != "given two  " {
		t.Errorf("got %q", s)
	}
	if !diags.HasErrors() {
		t.Error("$c is not defined")
	}
	l.Unused(func(name string, _ conf.Pos) {
		if name != "unused" {
			t.Errorf("%s is used", name)
		}
	})
}
