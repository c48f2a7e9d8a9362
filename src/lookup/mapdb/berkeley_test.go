package mapdb

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBerkeleyFiles refuses files that Berkeley DB itself made, as other mail
// servers have them: each access method, in both byte orders.
func TestBerkeleyFiles(t *testing.T) {
	load, err := exec.LookPath("db5.3_load")
	if err != nil {
		t.Skip("db5.3_load is not installed (Debian's db5.3-util)")
	}
	for _, method := range []string{"btree", "hash", "queue"} {
		for _, order := range []string{"1234", "4321"} {
			path := filepath.Join(t.TempDir(), "aliases.db")
			args := []string{"-T", "-t", method, "-c", "db_lorder=" + order, path}
			text := "root\njoe\n"
			if method == "queue" {
				args, text = append([]string{"-c", "re_len=8"}, args...), "joe\n"
			}
			cmd := exec.CommandContext(t.Context(), load, args...)
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s %s: %v\n%s", method, order, err, out)
			}
			_, err := Open(path)
			if !errors.Is(err, ErrBerkeley) || !strings.Contains(err.Error(), "run makemap(8) again") {
				t.Errorf("%s in byte order %s: %v", method, order, err)
			}
			// The map takes its place, and is one from then on.
			if err := Write(path, Plain, entriesOf("root joe"), keep()); err != nil {
				t.Fatal(err)
			}
			if got := dump(t, path); !strings.Contains(got, "root") {
				t.Errorf("the map holds %q", got)
			}
		}
	}
}

// TestBerkeleyHeads refuses the first bytes of such files, also of release 1.85,
// which OpenBSD's makemap writes and no program of Linux.
func TestBerkeleyHeads(t *testing.T) {
	names, err := filepath.Glob("testdata/berkeley/*.db")
	if err != nil || len(names) < 8 {
		t.Fatalf("%d heads: %v", len(names), err)
	}
	for _, name := range names {
		if _, err := Open(name); !errors.Is(err, ErrBerkeley) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
