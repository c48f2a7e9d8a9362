package conf_test

import (
	"context"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/printer"
	"opensmtpd/src/lookup/aliases"
	"opensmtpd/src/lookup/table"
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

// literal yields the examples of a manual page, as they are read.
func literal(t *testing.T, page string) iter.Seq[string] {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(string) bool) {
		for _, block := range strings.Split(string(b), ".Bd -literal")[1:] {
			_, block, _ = strings.Cut(block, "\n")
			block, _, _ = strings.Cut(block, "\n.Ed")
			if !yield(strings.NewReplacer(`\e`, `\`, `\&`, "", `\-`, "-").Replace(block) + "\n") {
				return
			}
		}
	}
}

// TestManualExamples loads every configuration in the manual pages.
func TestManualExamples(t *testing.T) {
	pages, err := filepath.Glob("../../man/*.[1-8]")
	if err != nil || len(pages) < 15 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	n := 0
	for _, page := range pages {
		for block := range literal(t, page) {
			if !rule.MatchString(block) {
				continue
			}
			n++
			loads(t, filepath.Base(page), block)
		}
	}
	if n < 20 {
		t.Errorf("only %d examples", n)
	}
}

// rule is how one of today begins, but for those in HCL.
var rule = regexp.MustCompile(`(?m)^match [^{]`)

// TestManualTables holds that the entries of tables in the manual pages are such as
// smtpd -n says nothing about.
func TestManualTables(t *testing.T) {
	uses := []struct {
		page, first string
		service     table.Service
		values      func(string) error
	}{
		{"table.5", "192.0.2.1\n", table.NetAddr, nil},
		{"table.5", "joe  ", table.UserInfo, nil},
		{"table.5", "eve              $2b", table.Credentials, nil},
		{"table.5", "info@", 0, aliases.Check},
		{"table.5", "root:", 0, aliases.Check},
		{"aliases.5", "# who", 0, aliases.Check},
	}
	for _, u := range uses {
		n := 0
		for block := range literal(t, "../../man/"+u.page) {
			if !strings.HasPrefix(block, u.first) {
				continue
			}
			n++
			kind := conf.Map
			if u.service == table.NetAddr {
				kind = conf.List
			}
			var entries []table.Entry
			err := table.Lines([]byte(block), kind, func(_ int, key, value []byte) error {
				entries = append(entries, table.Entry{Key: string(key), Value: string(value)})
				if u.values != nil {
					return u.values(string(value))
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v:\n%s", u.page, err, block)
			}
			if bad := table.NewStatic("t", kind, entries, "+").Check(u.service); bad != nil {
				t.Errorf("%s: %v", u.page, bad)
			}
		}
		if n == 0 {
			t.Errorf("%s has no example that begins %q", u.page, u.first)
		}
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
