package native

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"opensmtpd/src/conf/diag"
)

func parse(files map[string]string, macros map[string]string) (names []string, said []string) {
	cfg, diags := Parse(func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, os.ErrNotExist
		}
		return []byte(text), nil
	}, "f", macros)
	for _, a := range cfg.Actions {
		names = append(names, a.Name)
	}
	for _, d := range diags.All() {
		if d.Severity != diag.Note {
			said = append(said, fmt.Sprintf("%s:%d:%d: %s", d.Pos.File, d.Pos.Line, d.Pos.Col, d.Message))
		}
	}
	return names, said
}

// TestRecovery holds that an error costs its own statement alone, wherever the
// statement is broken off.
func TestRecovery(t *testing.T) {
	for _, tt := range []struct{ broken, said string }{
		{"action", "f:2:7: expected the name of the action, got the end of the line"},
		{"action x nonsense { a, b }", "f:2:10: expected a delivery method, got \"nonsense\""},
		{"table t { a, }", "f:2:14: expected a value after the comma, got \"}\""},
		{"table t {\n  a\n", "f:2:9: the brace is not closed: line 5 begins another statement"},
		{"action x mbox alias $nope", "f:2:21: macro 'nope' not defined"},
		{"include \"/nowhere\"", "f:2:9: failed to include file /nowhere: file does not exist"},
	} {
		names, said := parse(map[string]string{"f": "action before mbox\n" + tt.broken + "\naction after mbox\n"}, nil)
		if !slices.Contains(names, "before") || !slices.Contains(names, "after") {
			t.Errorf("%q takes statements with it: %q", tt.broken, names)
		}
		if len(said) != 1 || said[0] != tt.said {
			t.Errorf("%q: %q", tt.broken, said)
		}
	}
}

// TestPlacesOfIncludes holds that an error is told where it stands, and that the
// file goes on behind the include.
func TestPlacesOfIncludes(t *testing.T) {
	names, said := parse(map[string]string{
		"f":     "include \"/more\"\naction last mbox\naction\n",
		"/more": "action first mbox\naction second nonsense\n",
	}, nil)
	want := []string{"/more:2:15: expected a delivery method, got \"nonsense\"", "f:3:7: expected the name of the action, got the end of the line"}
	if !slices.Equal(said, want) || !slices.Contains(names, "last") {
		t.Errorf("%q %q", names, said)
	}
}

// TestMacros holds that the command line wins over the file.
func TestMacros(t *testing.T) {
	text := map[string]string{"f": "name = \"file\"\naction $name mbox\n"}
	if names, said := parse(text, map[string]string{"name": "line"}); !slices.Equal(names, []string{"line"}) || len(said) > 0 {
		t.Errorf("%q %q", names, said)
	}
	if names, _ := parse(text, nil); !slices.Equal(names, []string{"file"}) {
		t.Errorf("%q", names)
	}
}

func TestCodeless(t *testing.T) {
	for text, want := range map[string]bool{"no name": true, "550 no": false, "250 ok": false, "": false} {
		if codeless(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
