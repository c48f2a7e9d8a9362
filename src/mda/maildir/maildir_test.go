package maildir

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/clock"
)

func newStore(fs FS) *Store {
	return NewStore(fs, NewNamer(clock.NewFake(time.Unix(1700000000, 0))))
}

// deliver stores messages as one batch.
func deliver(s *Store, t Target, bodies ...string) []*Message {
	var batch []*Message
	for _, b := range bodies {
		m := s.Begin(t)
		m.Write([]byte(b[:len(b)/2]))
		m.Write([]byte(b[len(b)/2:]))
		batch = append(batch, m)
	}
	s.Commit(batch)
	return batch
}

// contents returns what the files of a directory hold, sorted.
func contents(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	sort.Strings(all)
	return all
}

func expect(t *testing.T, dir string, want ...string) {
	t.Helper()
	got := contents(t, dir)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func TestDeliver(t *testing.T) {
	dir := t.TempDir() + "/a/b/Maildir"
	s := newStore(System{})
	for _, m := range deliver(s, Target{Dir: dir + "/"}, "A: 1\n\nx\n", "no newline", "") {
		if m.Err != nil {
			t.Error(m.Err)
		}
	}
	expect(t, dir+"/new", "", "A: 1\n\nx\n", "no newline\n")
	expect(t, dir+"/tmp")
	expect(t, dir+"/cur")
	for _, d := range []string{"", "/..", "/../..", "/tmp", "/new", "/cur"} {
		if st, err := os.Stat(dir + d); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s%s: %v, %v", dir, d, st.Mode(), err)
		}
	}
	entries, _ := os.ReadDir(dir + "/new")
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o600 || !strings.HasPrefix(e.Name(), "1700000000.") {
			t.Errorf("%s: %v, %v", e.Name(), st.Mode(), err)
		}
	}
}

func TestKeepsPermissions(t *testing.T) {
	dir := t.TempDir() + "/Maildir"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if m := deliver(newStore(System{}), Target{Dir: dir}, "x\n"); m[0].Err != nil {
		t.Fatal(m[0].Err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode of an existing maildir became %v, %v", st.Mode(), err)
	}
}

func TestJunk(t *testing.T) {
	for _, tc := range []struct {
		body string
		junk bool
	}{
		{"X-Spam: yes\n\nx\n", true},
		{"A: b\nx-SPAM-flag: YES\n", true},
		{"X-Spam: Yes\r\n\r\nx\r\n", true},
		{"X-Spam: yes or no\n\n", false},
		{"X-Spam: no\n\nX-Spam: yes\n", false},
		{"A: b\n X-Spam: yes\n\n", false},
		{"X-Spam: yes", false},
		{"", false},
	} {
		dir := t.TempDir() + "/M"
		m := deliver(newStore(System{}), Target{Dir: dir, Junk: true}, tc.body)
		if m[0].Err != nil {
			t.Fatal(m[0].Err)
		}
		in, notIn := dir+"/new", dir+"/.Junk/new"
		if tc.junk {
			in, notIn = notIn, in
		}
		if n := len(contents(t, in)); n != 1 || len(contents(t, notIn)) != 0 {
			t.Errorf("%q: %d messages in %s", tc.body, n, in)
		}
		// Without junk the mark means nothing.
		deliver(newStore(System{}), Target{Dir: dir + "2"}, tc.body)
		if len(contents(t, dir+"2/new")) != 1 {
			t.Errorf("%q without junk did not go to new", tc.body)
		}
	}
}

func TestExtension(t *testing.T) {
	for _, tc := range []struct{ ext, folder string }{
		{"lists", ".lists"}, {"none", ""}, {"a/b", ".a:b"}, {"..", ""}, {".", ""}, {"", ""}, {"a.b", ".a.b"},
	} {
		dir := t.TempDir() + "/home/M"
		for _, d := range []string{".lists", ".a:b", ".a.b", "...", ".."} {
			if err := os.MkdirAll(dir+"/"+d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		m := deliver(newStore(System{}), Target{Dir: dir, Extension: tc.ext}, "x\n")
		if m[0].Err != nil {
			t.Fatalf("%q: %v", tc.ext, m[0].Err)
		}
		expect(t, dir+"/"+tc.folder+"/new", "x\n")
	}
}

func TestRecreates(t *testing.T) {
	dir := t.TempDir() + "/M"
	s := newStore(System{})
	deliver(s, Target{Dir: dir, Junk: true}, "1\n")
	for _, gone := range []string{"/tmp", "/new", "/.Junk", ""} {
		if err := os.RemoveAll(dir + gone); err != nil {
			t.Fatal(err)
		}
		for _, m := range deliver(s, Target{Dir: dir, Junk: true}, "2\n", "X-Spam: yes\n\n") {
			if m.Err != nil {
				t.Errorf("after %q was removed: %v", gone, m.Err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(System{})
	for path, want := range map[string]error{
		"relative/M":                           ErrPath,
		"":                                     ErrPath,
		dir + "/" + strings.Repeat("n", 300):   syscall.ENAMETOOLONG,
		dir + "/file":                          syscall.ENOTDIR,
		dir + "/file/M":                        syscall.ENOTDIR,
		dir + "/" + strings.Repeat("n/", 3000): syscall.ENAMETOOLONG,
	} {
		if m := deliver(s, Target{Dir: path}, "x\n"); !errors.Is(m[0].Err, want) {
			t.Errorf("%.60q: %v, want %v", path, m[0].Err, want)
		}
	}
	if os.Getuid() == 0 {
		t.Log("root may write everywhere: the unwritable directory is left out")
		return
	}
	if err := os.Mkdir(dir+"/ro", 0o500); err != nil {
		t.Fatal(err)
	}
	if m := deliver(s, Target{Dir: dir + "/ro/M"}, "x\n"); !errors.Is(m[0].Err, syscall.EACCES) {
		t.Errorf("unwritable: %v", m[0].Err)
	}
}

// faulty fails, or ends the process, at the n-th operation.
type faulty struct {
	System
	left int
	err  error // nil: SIGKILL
}

func (f *faulty) step() error {
	if f.left--; f.left != 0 {
		return nil
	}
	if f.err == nil {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return f.err
}

type faultyFile struct {
	File
	fs *faulty
}

func (f *faulty) Create(path string) (File, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	file, err := f.System.Create(path)
	return faultyFile{file, f}, err
}

func (f *faulty) Mkdir(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.System.Mkdir(path)
}

func (f *faulty) Rename(a, b string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.System.Rename(a, b)
}

func (f *faulty) SyncDir(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.System.SyncDir(path)
}

func (f faultyFile) Write(p []byte) (int, error) {
	if err := f.fs.step(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f faultyFile) Sync() error {
	if err := f.fs.step(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f faultyFile) Close() error {
	err := f.fs.step()
	return errors.Join(err, f.File.Close())
}

// One message per batch here: files of a batch are synced at the same time, and
// the order of the steps would not be the same every time.
func faultyRun(fs FS, dir string) (failed int) {
	s := newStore(fs)
	for i := range 3 {
		for _, m := range deliver(s, Target{Dir: dir, Junk: true}, fmt.Sprintf("Subject: %d\n\nwhole\n", i)) {
			if m.Err != nil {
				failed++
			}
		}
	}
	return failed
}

// At whatever step the disk fails, a message that was not acknowledged is gone
// and the others are there.
func TestFaults(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		for step := 1; ; step++ {
			dir := t.TempDir() + "/M"
			fs := &faulty{left: step, err: fault}
			failed := faultyRun(fs, dir)
			if fs.left > 0 {
				if step < 20 {
					t.Errorf("only %d steps", step)
				}
				break
			}
			got := contents(t, dir+"/new")
			// A directory sync that fails leaves its message there: it may come twice.
			if failed != 1 || len(got) < 2 {
				t.Errorf("%v at step %d: %d failed, new holds %q", fault, step, failed, got)
			}
			for _, body := range got {
				if !strings.HasSuffix(body, "whole\n") {
					t.Errorf("%v at step %d: new holds %q", fault, step, body)
				}
			}
			expect(t, dir+"/tmp")
		}
	}
}

// TestKilled ends a process by SIGKILL at each step in turn.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("MAILDIR_KILLED"); dir != "" {
		left, _ := strconv.Atoi(os.Getenv("MAILDIR_STEP"))
		faultyRun(&faulty{left: left}, dir)
		return
	}
	for step := 1; ; step++ {
		dir := t.TempDir() + "/M"
		c := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		c.Env = append(os.Environ(), "MAILDIR_KILLED="+dir, "MAILDIR_STEP="+strconv.Itoa(step))
		err := c.Run()
		if err == nil {
			if step < 20 {
				t.Errorf("ended after %d steps without being killed", step)
			}
			return
		}
		if _, err := os.Stat(dir + "/new"); err != nil {
			continue // killed before
		}
		for _, body := range contents(t, dir+"/new") {
			if !strings.HasSuffix(body, "whole\n") {
				t.Errorf("killed at step %d: new holds %q", step, body)
			}
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	c := clock.NewFake(time.Unix(1, 0))
	a, b := NewNamer(c), NewNamer(c)
	a.random, b.random = 1, 2
	seen := make(map[string]bool)
	for range 1000 {
		for _, n := range []*Namer{a, b} {
			if name := n.Next(); seen[name] || strings.ContainsAny(name, "/:") {
				t.Fatalf("name %q", name)
			} else {
				seen[name] = true
			}
		}
	}
}
