package forward

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"opensmtpd/src/mailerr"
)

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCVE20157687Forward has every refusal of forward(5), hard links and fifos
// among them.
func TestCVE20157687Forward(t *testing.T) {
	uid := uint32(os.Getuid())
	for _, tc := range []struct {
		name  string
		make  func(t *testing.T, home string)
		uid   uint32
		data  string
		found bool
		class mailerr.Class // 0: no error
		cause string
	}{
		{name: "none", make: func(*testing.T, string) {}},
		{name: "no home", make: func(t *testing.T, h string) { must(t, os.Remove(h)) }},
		{name: "good", make: func(t *testing.T, h string) { write(t, h+"/.forward", "bob\n") }, data: "bob\n", found: true},
		{name: "empty", make: func(t *testing.T, h string) { write(t, h+"/.forward", "") }, found: true},
		{name: "largest", make: func(t *testing.T, h string) { write(t, h+"/.forward", strings.Repeat("x", MaxSize-1)) }, data: strings.Repeat("x", MaxSize-1), found: true},
		{name: "too large", make: func(t *testing.T, h string) { write(t, h+"/.forward", strings.Repeat("x", MaxSize)) }, found: true, class: mailerr.Temp, cause: "exceeds max size"},
		{name: "sticky home", make: func(t *testing.T, h string) {
			write(t, h+"/.forward", "bob\n")
			must(t, os.Chmod(h, 0o700|os.ModeSticky))
		}, class: mailerr.Temp, cause: "is sticky"},
		{name: "symlink", make: func(t *testing.T, h string) {
			write(t, h+"/real", "bob\n")
			must(t, os.Symlink("real", h+"/.forward"))
		}, class: mailerr.Perm, cause: "symbolic link"},
		{name: "hard link", make: func(t *testing.T, h string) {
			write(t, h+"/real", "bob\n")
			must(t, os.Link(h+"/real", h+"/.forward"))
		}, found: true, class: mailerr.Perm, cause: "more than one name"},
		{name: "fifo", make: func(t *testing.T, h string) { must(t, syscall.Mkfifo(h+"/.forward", 0o600)) }, found: true, class: mailerr.Perm, cause: "not a regular file"},
		{name: "directory", make: func(t *testing.T, h string) { must(t, os.Mkdir(h+"/.forward", 0o700)) }, found: true, class: mailerr.Perm, cause: "not a regular file"},
		{name: "group may write", make: func(t *testing.T, h string) {
			write(t, h+"/.forward", "bob\n")
			must(t, os.Chmod(h+"/.forward", 0o664))
		}, found: true, class: mailerr.Perm, cause: "may write it"},
		{name: "others may write", make: func(t *testing.T, h string) {
			write(t, h+"/.forward", "bob\n")
			must(t, os.Chmod(h+"/.forward", 0o646))
		}, found: true, class: mailerr.Perm, cause: "may write it"},
		{name: "home of the world", make: func(t *testing.T, h string) {
			write(t, h+"/.forward", "bob\n")
			must(t, os.Chmod(h, 0o777))
		}, found: true, class: mailerr.Perm, cause: "may write the home"},
		{name: "home of the group", make: func(t *testing.T, h string) {
			write(t, h+"/.forward", "bob\n")
			must(t, os.Chmod(h, 0o770))
		}, found: true, class: mailerr.Perm, cause: "may write the home"},
		{name: "another's", uid: uid + 1, make: func(t *testing.T, h string) { write(t, h+"/.forward", "bob\n") }, found: true, class: mailerr.Perm, cause: "belongs to uid"},
		{name: "home is a file", make: func(t *testing.T, h string) {
			must(t, os.Remove(h))
			write(t, h, "x")
		}, class: mailerr.Perm, cause: "not a directory"},
	} {
		home := filepath.Join(t.TempDir(), "home")
		must(t, os.Mkdir(home, 0o755))
		tc.make(t, home)
		if tc.uid == 0 {
			tc.uid = uid
		}
		data, found, err := Read(home, tc.uid)
		if string(data) != tc.data || found != tc.found {
			t.Errorf("%s: %q, %v", tc.name, data, found)
		}
		checkError(t, tc.name, err, tc.class, tc.cause)
	}
	if _, found, err := Read("relative", uid); found || err != nil {
		t.Errorf("relative home: %v, %v", found, err)
	}
}

func checkError(t *testing.T, name string, err *mailerr.Error, class mailerr.Class, cause string) {
	t.Helper()
	switch {
	case class == 0:
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	case err == nil || err.Class != class || !strings.Contains(err.Error(), cause):
		t.Errorf("%s: %v, want %v because of %q", name, err, class, cause)
	case err.Reply() != "524 5.2.4 Mailing list expansion problem" && err.Reply() != "424 4.2.4 Mailing list expansion problem":
		t.Errorf("%s: the stranger is told %q", name, err.Reply())
	}
}

// A home that root owns is as good as the user's own.
func TestHomeOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	for owner, want := range map[int]mailerr.Class{0: 0, 1001: 0, 1002: mailerr.Perm} {
		home := t.TempDir()
		write(t, home+"/.forward", "bob\n")
		must(t, os.Chown(home+"/.forward", 1001, -1))
		must(t, os.Chown(home, owner, -1))
		must(t, os.Chmod(home, 0o755))
		_, found, err := Read(home, 1001)
		if !found {
			t.Errorf("home of %d: not found", owner)
		}
		checkError(t, "home", err, want, "home belongs")
	}
}

func TestInclude(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/list", "a\nb\n")
	must(t, os.Symlink("list", dir+"/link"))
	must(t, syscall.Mkfifo(dir+"/fifo", 0o600))
	for path, want := range map[string]struct {
		data  string
		found bool
		class mailerr.Class
	}{
		dir + "/list": {"a\nb\n", true, 0},
		dir + "/link": {"a\nb\n", true, 0},
		dir + "/none": {"", false, 0},
		dir + "/fifo": {"", true, mailerr.Temp},
		dir:           {"", true, mailerr.Temp},
		"list":        {"", false, mailerr.Perm},
	} {
		data, found, err := Include(path, 4)
		if string(data) != want.data || found != want.found {
			t.Errorf("%s: %q, %v", path, data, found)
		}
		checkError(t, path, err, want.class, "")
	}
	_, _, err := Include(dir+"/list", 3)
	checkError(t, "too long", err, mailerr.Temp, "more than 3 bytes")
}
