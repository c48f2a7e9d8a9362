package mapdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"opensmtpd/src/safefile"
)

func keep() Owner { return Owner{Mode: 0o640, UID: -1, GID: -1} }

func entriesOf(lines ...string) []Entry {
	var list []Entry
	for i, l := range lines {
		k, v, _ := strings.Cut(l, " ")
		list = append(list, Entry{[]byte(k), []byte(v), i + 1})
	}
	return list
}

func dump(t *testing.T, path string) string {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return contents(t, r)
}

func contents(t *testing.T, r *Reader) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", r.Kind())
	err := r.Each(func(k, v []byte) error {
		fmt.Fprintf(&b, " %s=%s", k, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	if err := Write(path, Aliases, entriesOf("Root joe", "bin root", "abc /dev/null"), keep()); err != nil {
		t.Fatal(err)
	}
	if got, want := dump(t, path), "aliases: abc=/dev/null bin=root root=joe"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// A reader keeps the content it opened while a new file takes the name.
	if err := Write(path, Set, entriesOf("x"), keep()); err != nil {
		t.Fatal(err)
	}
	if got, want := contents(t, r), "aliases: abc=/dev/null bin=root root=joe"; got != want {
		t.Errorf("under a reader the content became %q", got)
	}
	if got, want := dump(t, path), "set: x="; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	onlyFile(t, dir, "a.db")
}

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != name {
			t.Errorf("litter: %s", f.Name())
		}
	}
}

func TestDuplicate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	if err := Write(path, Plain, entriesOf("old content"), keep()); err != nil {
		t.Fatal(err)
	}
	var bad *EntryError
	err := Write(path, Plain, entriesOf("a 1", "b 2", "A 3"), keep())
	if !errors.As(err, &bad) || err.Error() != "3: duplicate entry for a, first on line 1" {
		t.Errorf("got %v", err)
	}
	if got, want := dump(t, path), "map: old=content"; got != want {
		t.Errorf("the old map is gone: %q", got)
	}
	onlyFile(t, dir, "a.db")
}

func TestWriteFails(t *testing.T) {
	if err := Write(filepath.Join(t.TempDir(), "no", "such.db"), Plain, nil, keep()); err == nil {
		t.Error("a directory that does not exist is no error")
	}
	dir := t.TempDir()
	// An empty key is one that bbolt refuses.
	if err := Write(filepath.Join(dir, "a.db"), Plain, []Entry{{nil, nil, 7}}, keep()); err == nil || !strings.Contains(err.Error(), "7:") {
		t.Errorf("got %v", err)
	}
	onlyFile(t, dir, "")
}

func TestStrangers(t *testing.T) {
	berkeley := func(off int, magic uint32, order binary.ByteOrder) []byte {
		b := make([]byte, 4096)
		order.PutUint32(b[off:], magic)
		return b
	}
	for _, tc := range []struct {
		name string
		data []byte
		want error
	}{
		{"hash 1.85", berkeley(0, berkeleyHash, binary.LittleEndian), ErrBerkeley},
		{"hash 1.85 big-endian", berkeley(0, berkeleyHash, binary.BigEndian), ErrBerkeley},
		{"btree 1.85", berkeley(0, berkeleyBtree, binary.LittleEndian), ErrBerkeley},
		{"hash 5", berkeley(12, berkeleyHash, binary.LittleEndian), ErrBerkeley},
		{"btree 5", berkeley(12, berkeleyBtree, binary.BigEndian), ErrBerkeley},
		{"empty", nil, ErrNotMap},
		{"short", []byte("root: joe\n"), ErrNotMap},
		{"text", bytes.Repeat([]byte("root: joe\n"), 1000), ErrNotMap},
		{"zeros", make([]byte, 65536), ErrNotMap},
	} {
		path := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(path, tc.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, tc.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, safefile.ErrNotRegular) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestDamage cuts and changes a good file: every change is found before the file
// is used.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	var list []Entry
	for i := range 2000 {
		list = append(list, Entry{fmt.Appendf(nil, "key%05d", i), fmt.Appendf(nil, "value%d", i), i})
	}
	if err := Write(path, Plain, list, keep()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	open := func(data []byte) error {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		if err == nil {
			r.Close()
		}
		return err
	}
	if err := open(good); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 20, 31, 4095, 4096, 3 * 4096, len(good) / 2, len(good) - 1} {
		if err := open(good[:n]); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotMap) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	if err := open(append(bytes.Clone(good), 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		bad := bytes.Clone(good)
		// The last four bytes are of no use.
		at := rnd.IntN(len(bad) - 4)
		bad[at] ^= byte(1 + rnd.IntN(255))
		if err := open(bad); err == nil {
			t.Errorf("a change of byte %d is not found", at)
		}
	}
}

// TestCutWhileOpen truncates a file under a reader: a fault of the memory
// becomes an error.
func TestCutWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var list []Entry
	for i := range 20000 {
		list = append(list, Entry{fmt.Appendf(nil, "key%05d", i), []byte("value"), i})
	}
	if err := Write(path, Plain, list, keep()); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Each(func(_, _ []byte) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v", err)
		}
	}
}

func TestAgainstModel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfDistinct(rapid.StringMatching(`[a-zA-Z0-9@.+_-]{1,20}`), strings.ToLower).Draw(t, "keys")
		model := make(map[string]string)
		var list []Entry
		for i, k := range keys {
			v := rapid.String().Draw(t, "value")
			model[strings.ToLower(k)] = v
			list = append(list, Entry{[]byte(k), []byte(v), i})
		}
		if err := Write(path, Plain, list, keep()); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got := make(map[string]string)
		if err := r.Each(func(k, v []byte) error { got[string(k)] = string(v); return nil }); err != nil || !maps.Equal(got, model) {
			t.Fatalf("%q, %v, want %q", got, err, model)
		}
	})
}
