package conf_test

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/printer"
)

// anywhere is a machine that has every file and every host, so that examples
// load: only the file at main is what text says.
func anywhere(main, text string) load.Machine {
	m := machine(nil)
	have := func(name string) fstest.MapFS {
		mode := fs.FileMode(0o600)
		return fstest.MapFS{strings.TrimPrefix(name, "/"): {Mode: mode}}
	}
	m.ReadFile = func(name string) ([]byte, error) {
		if name == main {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
	m.Open = func(name string) (fs.File, error) { return have(name).Open(strings.TrimPrefix(name, "/")) }
	m.Stat = func(name string) (fs.FileInfo, error) { return fs.Stat(have(name), strings.TrimPrefix(name, "/")) }
	lookup := m.LookupIP
	m.LookupIP = func(ctx context.Context, name string) ([]netip.Addr, error) {
		if a, err := lookup(ctx, name); err == nil {
			return a, nil
		}
		return addrs("192.0.2.99"), nil
	}
	m.UserExists = nil
	return m
}

// loads fails unless text loads without a word and is a fixed point once printed.
func loads(t *testing.T, name, text string) {
	t.Helper()
	l, diags := load.File(t.Context(), anywhere(name, text), name, nil)
	if diags.Len() > 0 {
		var b strings.Builder
		_ = diags.Write(&b, diag.Note)
		t.Fatal(b.String())
	}
	printed, err := printer.Print(l.Config)
	if err != nil {
		t.Fatal(err)
	}
	if again, diags := load.File(t.Context(), anywhere(name, printed), name, nil); diags.HasErrors() {
		t.Fatalf("%s\n%v", printed, diags.All())
	} else if second, err := printer.Print(again.Config); err != nil || second != printed {
		t.Fatalf("no fixed point (%v):\n%s\n%s", err, printed, second)
	}
}

const conffiles = "../../conf"

// TestShipped loads the default configuration and all examples.
func TestShipped(t *testing.T) {
	names, err := filepath.Glob(conffiles + "/examples/*.conf")
	if err != nil || len(names) < 5 {
		t.Fatalf("found %d examples: %v", len(names), err)
	}
	for _, name := range append(names, conffiles+"/smtpd.conf") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			loads(t, name, string(b))
		})
	}
}

const manual = "../../man/smtpd.conf.5"

func readManual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestManualExamples loads every configuration in the manual's EXAMPLES.
func TestManualExamples(t *testing.T) {
	_, text, found := strings.Cut(readManual(t), ".Sh EXAMPLES")
	if !found {
		t.Fatal("the manual has no EXAMPLES")
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	n := 0
	for _, block := range strings.Split(text, ".Bd -literal")[1:] {
		_, block, _ = strings.Cut(block, "\n")
		block, _, _ = strings.Cut(block, "\n.Ed")
		block = strings.NewReplacer(`\e`, `\`, `\&`, "", `\-`, "-").Replace(block)
		if !strings.Contains(block, "match ") {
			continue
		}
		n++
		loads(t, "example", block+"\n")
	}
	if n < 5 {
		t.Errorf("only %d examples", n)
	}
}

// TestManualWords holds that every word of the grammar is in the manual.
func TestManualWords(t *testing.T) {
	text := strings.ReplaceAll(readManual(t), `\-`, "-")
	words := conf.ReservedWords()
	for _, limits := range [][]conf.Limit{conf.MDALimits(), conf.MTALimits(), conf.SMTPLimits(), conf.SchedulerLimits()} {
		words = append(words, conf.Keys(limits)...)
	}
	words = append(words, "stdin", "none", "legacy", "auto", "smtp+tls", "smtp+notls", "smtps", "lmtp", "file", "db", "getpwnam", "proc")
	have := make(map[string]bool)
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n,;.()\"{}<>!\\:", r) }) {
		have[w] = true
	}
	for _, w := range words {
		if !have[w] {
			t.Errorf("the manual has no word of %q", w)
		}
	}
}
