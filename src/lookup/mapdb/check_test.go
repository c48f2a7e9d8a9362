package mapdb

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := Write(good, Plain, []Entry{{Key: []byte("k"), Value: []byte("v")}}, Owner{Mode: 0o600, UID: -1, GID: -1}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"berkeley": "\x62\x31\x05\x00" + string(make([]byte, 60)), "text": "# this is a text file of some length\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]error{"good": nil, "berkeley": ErrBerkeley, "text": ErrNotMap, "none": fs.ErrNotExist} {
		if err := Check(filepath.Join(dir, name)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
