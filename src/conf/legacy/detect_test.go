package legacy

import (
	"strings"
	"testing"
)

// TestRecognise holds by which words a file is known.
func TestRecognise(t *testing.T) {
	for _, tt := range []struct {
		text     string
		dialect  Dialect
		releases string
	}{
		{"", Modern, "every release"},
		{"listen on lo\n", Modern, "every release"},
		{"action a mbox\nmatch for any action a\n", Modern, "OpenSMTPD 6.4 and later"},
		{"table t { a }\n", Modern, "OpenSMTPD 5.3 and later"},
		{"accept for any relay\n", Tables, "OpenSMTPD 4.6 to 6.3"},
		{"table t { a }\naccept for domain <t> relay\n", Tables, "OpenSMTPD 5.3 to 6.3"},
		{"pki p certificate \"/c\"\naccept for any relay\n", Tables, "OpenSMTPD 5.3 to 6.3"},
		{"map aliases { source db \"/a.db\" }\n", Maps, "OpenSMTPD 4.6 to 5.2"},
		{"accept for all relay\n", Maps, "OpenSMTPD 4.6 to 5.2"},
		{"# accept for all relay\nmatch for any reject\n", Modern, "OpenSMTPD 6.4 and later"},
		{"x = \"accept for all relay\"\n$x\n", Maps, "OpenSMTPD 4.6 to 5.2"},
	} {
		f, mixed := Recognise(func(string) ([]byte, error) { return []byte(tt.text), nil }, "f", nil)
		if mixed != nil {
			t.Errorf("%q: %v", tt.text, mixed.All())
			continue
		}
		if f.Dialect != tt.dialect || f.Releases != tt.releases {
			t.Errorf("%q: dialect %d of %s", tt.text, f.Dialect, f.Releases)
		}
		if old := f.Dialect != Modern; old == f.Pos.IsZero() {
			t.Errorf("%q: the word that tells is at %v", tt.text, f.Pos)
		}
	}
}

// TestBlame holds that of two grammars in a file the one with fewer statements is
// the mistake.
func TestBlame(t *testing.T) {
	for text, want := range map[string]string{
		"accept for any relay\naction a mbox\nmatch for local action a\n":                "f:1: accept",
		"accept for any relay\naccept for local deliver to mbox\nmatch for any reject\n": "f:3: match",
		"match for any reject\naccept for any relay\n":                                   "f:2: accept", // even: the later
	} {
		_, mixed := Recognise(func(string) ([]byte, error) { return []byte(text), nil }, "f", nil)
		if mixed == nil {
			t.Errorf("%q is not mixed", text)
			continue
		}
		d := mixed.All()[0]
		word := strings.Trim(strings.Fields(d.Message)[0], `"`)
		if got := "f:" + string(rune('0'+d.Pos.Line)) + ": " + word; got != want {
			t.Errorf("%q: %s is to blame", text, got)
		}
	}
}
