package diag_test

import (
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

func TestWrite(t *testing.T) {
	var l diag.List
	l.Source("f", "one\n\ttwo\nth\x01ree é x")
	at := func(line, col int) conf.Pos { return conf.Pos{File: "f", Line: line, Col: col} }
	l.Errorf(at(3, 10), "third")
	l.Warnf(at(2, 2), "second")
	l.Add(diag.Diag{Severity: diag.Note, Pos: at(1, 1), Message: "first"})
	l.Add(diag.Diag{Severity: diag.Error, Message: "nowhere", Hint: "try"})
	l.Errorf(at(9, 9), "beyond")
	l.Errorf(at(9, 9), "beyond")
	var b strings.Builder
	if err := l.Write(&b, diag.Note); err != nil {
		t.Fatal(err)
	}
	const want = `nowhere
    hint: try
f:1:1: note: first
    one
    ^
f:2:2: warning: second
    	two
    	^
f:3:10: third
    th?ree é x
            ^
f:9:9: beyond
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := l.Write(&b, diag.Error); err != nil || strings.Contains(b.String(), "first") || strings.Contains(b.String(), "second") {
		t.Error(err, b.String())
	}
	if !l.HasErrors() || l.Len() != 5 || len(l.Of(diag.Warning)) != 1 {
		t.Error(l.Len())
	}
	if new(diag.List).HasErrors() {
		t.Error("an empty list has errors")
	}
}

func TestNear(t *testing.T) {
	names := []string{"listen", "match", "aliases", "relay", "x"}
	for got, want := range map[string]string{
		"lsten": "listen", "listne": "listen", "aliasse": "aliases", "alias": "aliases", "match": "match",
		"relai": "relay", "completely": "", "": "", "ab": "",
	} {
		if near := diag.Near(got, names); near != want {
			t.Errorf("%q is near %q, want %q", got, near, want)
		}
	}
}
