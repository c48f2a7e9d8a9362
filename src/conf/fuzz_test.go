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

// seeds adds the inputs of the golden files of a pattern, and what they must have.
func seeds(f *testing.F, pattern string) {
	f.Helper()
	names, err := filepath.Glob(pattern)
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

// only opens the file "f", which has the text, and no other.
func only(text string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if name != "f" {
			return nil, os.ErrNotExist
		}
		return []byte(text), nil
	}
}

// parseNative reads text in today's grammar.
func parseNative(text string) (*conf.Config, *diag.List) { return native.Parse(only(text), "f", nil) }

// printable holds that a configuration prints, that the print reads as the same
// one, and that it prints as itself from then on.
func printable(t *testing.T, cfg *conf.Config, print func(*conf.Config) (string, error), parse func(string) (*conf.Config, *diag.List)) {
	t.Helper()
	printed, err := print(cfg)
	if err != nil {
		t.Fatalf("what can be read cannot be printed: %v", err)
	}
	again, diags := parse(printed)
	if diags.HasErrors() {
		t.Fatalf("%s\ndoes not load: %v", printed, diags.All())
	}
	if d := Diff(cfg, again); d != "" {
		t.Fatalf("the print is another configuration\n%s\n%s", printed, d)
	}
	if second, err := print(again); err != nil || second != printed {
		t.Fatalf("no fixed point (%v)\n%s\n%s", err, printed, second)
	}
}

// FuzzLex holds that the lexer ends, and that every place lies in the text.
func FuzzLex(f *testing.F) {
	seeds(f, "testdata/*.txt")
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
	seeds(f, "testdata/*.txt")
	f.Fuzz(func(t *testing.T, text string) {
		first, diags := parseNative(text)
		for _, d := range diags.All() {
			_ = diags.Format(d)
		}
		if !diags.HasErrors() {
			printable(t, first, printer.Print, parseNative)
		}
	})
}

// FuzzLoad holds that no input breaks the checks.
func FuzzLoad(f *testing.F) {
	seeds(f, "testdata/*.txt")
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
	seeds(f, "testdata/*.txt")
	seeds(f, "testdata/seed/*.conf")
	f.Fuzz(func(t *testing.T, text string) {
		if _, mixed := legacy.Recognise(only(text), "f", nil); mixed != nil && !mixed.HasErrors() {
			t.Fatal("mixed up, but no error")
		}
		for _, d := range []legacy.Dialect{legacy.Maps, legacy.Tables} {
			first, diags := legacy.Parse(d, only(text), "f", nil, legacy.Options{Host: func() string { return "h.example" }})
			for _, d := range diags.All() {
				_ = diags.Format(d)
			}
			if !diags.HasErrors() {
				printable(t, first, printer.Print, parseNative)
			}
		}
	})
}
