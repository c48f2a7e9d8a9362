package conf_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/hcl"
)

// anError is a finding of a golden file that is no warning and no note.
var anError = regexp.MustCompile(`(?m)^[\w./]+:\d+:\d+: ([^wn]|w[^a]|n[^o])`)

// wordsThatLoad returns all words in the inputs of golden files that load.
func wordsThatLoad(t *testing.T, pattern string) map[string]bool {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	words := make(map[string]bool)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		input, got, _ := strings.Cut(string(b), separator)
		if anError.MatchString(got) {
			continue
		}
		for line := range strings.Lines(input) {
			line, _, _ = strings.Cut(line, "#")
			for _, w := range regexp.MustCompile(`[a-z][a-z0-9+-]*`).FindAllString(line, -1) {
				words[w] = true
			}
		}
	}
	return words
}

// TestGoldenWords holds that every word of either language is in a golden file
// that loads.
func TestGoldenWords(t *testing.T) {
	// These are reserved, and nothing has them.
	unused := []string{"data-line", "noop", "quit", "rset", "smtp-in", "smtp-out"}
	have := wordsThatLoad(t, "testdata/*.txt")
	for _, w := range conf.ReservedWords() {
		if !have[w] && !slices.Contains(unused, w) {
			t.Errorf("smtpd.conf: no golden file loads %q", w)
		}
	}
	have = wordsThatLoad(t, "testdata/hcl/*.txt")
	for _, w := range hcl.Words() {
		if !have[w] {
			t.Errorf("HCL: no golden file loads %q", w)
		}
	}
}
