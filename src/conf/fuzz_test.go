package conf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/legacy"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/native"
	"opensmtpd/src/conf/printer"
)

// seeds adds the inputs of all golden files.
func seeds(f *testing.F) {
	f.Helper()
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		input, _, _ := strings.Cut(string(b), separator)
		f.Add(input)
	}
}

// FuzzLex holds that the lexer ends, and that every place lies in the text.
func FuzzLex(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		diags := new(diag.List)
		l := lex.New(func(string) ([]byte, error) { return []byte(text), nil }, "f", map[string]string{"lan": "a b"}, diags)
		lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
		for range 2*len(text) + 10 {
			tok := l.Next()
			if tok.Pos.Line < 1 || tok.Pos.Line > len(lines) || tok.Pos.Col < 1 || tok.Pos.Col > len(lines[tok.Pos.Line-1])+1 {
				t.Fatalf("token %v is outside the text", tok)
			}
			if tok.Kind == lex.EOF {
				return
			}
		}
		t.Fatal("the lexer does not end")
	})
}

// FuzzParse holds that whatever loads prints, and that the print is the same
// configuration and prints as itself.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		read := func(s string) (*conf.Config, *diag.List) {
			return native.Parse(func(name string) ([]byte, error) {
				if name != "f" {
					return nil, os.ErrNotExist
				}
				return []byte(s), nil
			}, "f", nil)
		}
		first, diags := read(text)
		for _, d := range diags.All() {
			_ = diags.Format(d)
		}
		if diags.HasErrors() {
			return
		}
		printed, err := printer.Print(first)
		if err != nil {
			t.Fatalf("what the grammar can say cannot be printed: %v", err)
		}
		second, diags := read(printed)
		if diags.HasErrors() {
			t.Fatalf("%s\ndoes not load: %v", printed, diags.All())
		}
		if d := Diff(first, second); d != "" {
			t.Fatalf("the print is another configuration\n%s\n%s", printed, d)
		}
		if again, err := printer.Print(second); err != nil || again != printed {
			t.Fatalf("no fixed point (%v)\n%s\n%s", err, printed, again)
		}
	})
}

// FuzzLoad holds that no input breaks the checks.
func FuzzLoad(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		l, diags := load.File(t.Context(), machine(fstest.MapFS{"smtpd.conf": {Data: []byte(text), Mode: 0o644}}), "smtpd.conf", nil)
		if l == nil || diags == nil {
			t.Fatal("nothing came back")
		}
	})
}

// FuzzLegacy holds that what an old grammar loads prints in today's, and that the
// print is the same configuration and prints as itself.
func FuzzLegacy(f *testing.F) {
	seeds(f)
	names, err := filepath.Glob("testdata/seed/*.conf")
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		open := func(name string) ([]byte, error) {
			if name != "f" {
				return nil, os.ErrNotExist
			}
			return []byte(text), nil
		}
		if _, mixed := legacy.Recognise(open, "f", nil); mixed != nil && !mixed.HasErrors() {
			t.Fatal("mixed up, but no error")
		}
		for _, d := range []legacy.Dialect{legacy.Maps, legacy.Tables} {
			first, diags := legacy.Parse(d, open, "f", nil, legacy.Options{Host: func() string { return "h.example" }})
			for _, d := range diags.All() {
				_ = diags.Format(d)
			}
			if diags.HasErrors() {
				continue
			}
			printed, err := printer.Print(first)
			if err != nil {
				t.Fatalf("what the grammar can say cannot be printed: %v", err)
			}
			again := func(s string) *conf.Config {
				cfg, diags := native.Parse(func(string) ([]byte, error) { return []byte(s), nil }, "f", nil)
				if diags.HasErrors() {
					t.Fatalf("%s\ndoes not load: %v", s, diags.All())
				}
				return cfg
			}
			second := again(printed)
			if d := Diff(first, second); d != "" {
				t.Fatalf("the print is another configuration\n%s\n%s", printed, d)
			}
			if text, err := printer.Print(second); err != nil || text != printed {
				t.Fatalf("no fixed point (%v)\n%s\n%s", err, printed, text)
			}
		}
	})
}
