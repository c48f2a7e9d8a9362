package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// both runs a test on the real disk and on the simulated one: they must agree.
func both(t *testing.T, f func(t *testing.T, d FS)) {
	t.Run("real", func(t *testing.T) {
		d, err := NewReal(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		f(t, d)
	})
	t.Run("sim", func(t *testing.T) { f(t, NewSim()) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, d FS, name, text string) {
	t.Helper()
	f, err := d.Create(name)
	must(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func contents(t *testing.T, d FS, name string) string {
	t.Helper()
	f, err := d.Open(name, false)
	if err != nil {
		return err.(*fs.PathError).Err.Error()
	}
	defer f.Close()
	b := make([]byte, 1<<16)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, d FS) {
		must(t, d.Mkdir("a"))
		must(t, d.Mkdir("a/b"))
		put(t, d, "a/b/one", "1")
		put(t, d, "two", "22")
		if _, err := d.Create("two"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create of what exists: %v", err)
		}
		if _, err := d.Open("three", false); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open of what does not exist: %v", err)
		}
		if _, err := d.Create("x/y"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("create in no directory: %v", err)
		}
		if _, err := d.Open("a", false); err == nil {
			t.Error("a directory opened as a file")
		}
		must(t, d.Rename("two", "a/b/one"))
		if got := contents(t, d, "a/b/one"); got != "22" {
			t.Errorf("after the rename: %q", got)
		}
		if err := d.Remove("a"); err == nil {
			t.Error("a directory with files was removed")
		}
		must(t, d.Rename("a/b", "c"))
		names, err := d.ReadDir("c")
		if err != nil || !slices.Equal(names, []string{"one"}) {
			t.Errorf("c holds %v, %v", names, err)
		}
		if names, err := d.ReadDir("."); err != nil || len(names) != 2 {
			t.Errorf("the root holds %v, %v", names, err)
		}
		if _, err := d.ReadDir("c/one"); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("a file listed as a directory: %v", err)
		}
		info, err := d.Stat("c/one")
		if err != nil || info.Size != 2 || !info.Mode.IsRegular() || info.Mode.Perm() != 0o600 {
			t.Errorf("Stat: %+v, %v", info, err)
		}
		if info, err := d.Stat("c"); err != nil || !info.Mode.IsDir() || info.Mode.Perm() != 0o700 {
			t.Errorf("Stat: %+v, %v", info, err)
		}
		must(t, d.Remove("c/one"))
		must(t, d.Remove("a"))
		must(t, d.Remove("c"))
		if err := d.Remove("c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("second removal: %v", err)
		}
		must(t, d.SyncDir("."))
		if sp, err := d.Space(); err != nil || sp.Bytes <= 0 || sp.Bytes > 100 || sp.Inodes < 0 || sp.Inodes > 100 {
			t.Errorf("Space: %+v, %v", sp, err)
		}
	})
}

func TestReadWrite(t *testing.T) {
	both(t, func(t *testing.T, d FS) {
		f, err := d.Create("f")
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("world"), 6)
		must(t, err)
		_, err = f.WriteAt([]byte("hello "), 0)
		must(t, err)
		b := make([]byte, 20)
		if n, err := f.ReadAt(b, 0); err != io.EOF || string(b[:n]) != "hello world" {
			t.Errorf("read %q, %v", b[:n], err)
		}
		if n, err := f.ReadAt(b[:3], 8); err != nil || string(b[:n]) != "rld" {
			t.Errorf("read %q, %v", b[:n], err)
		}
		if _, err := f.ReadAt(b, 100); err != io.EOF {
			t.Errorf("read behind the end: %v", err)
		}
		must(t, f.Truncate(5))
		if n, err := f.Size(); err != nil || n != 5 {
			t.Errorf("size %d, %v", n, err)
		}
		r, err := d.Open("f", false)
		must(t, err)
		defer r.Close()
		if _, err := r.WriteAt([]byte("x"), 0); err == nil {
			t.Error("a file opened for reading was written")
		}
		w, err := d.Open("f", true)
		must(t, err)
		defer w.Close()
		_, err = w.WriteAt([]byte("J"), 0)
		must(t, err)
		if got := contents(t, d, "f"); got != "Jello" {
			t.Errorf("got %q", got)
		}
	})
}

func TestLock(t *testing.T) {
	both(t, func(t *testing.T, d FS) {
		l, err := d.Lock("lock")
		must(t, err)
		if _, err := d.Lock("lock"); !errors.Is(err, ErrLocked) {
			t.Errorf("second lock: %v", err)
		}
		must(t, l.Close())
		l, err = d.Lock("lock")
		must(t, err)
		must(t, l.Close())
	})
}

// No symbolic link is followed, whatever component it is, and nothing leads out
// of the root.
func TestNoLinks(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "dir")))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "file")))
	must(t, os.Symlink("real", filepath.Join(dir, "inside")))
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	d, err := NewReal(dir)
	must(t, err)
	defer d.Close()
	for _, name := range []string{"file", "dir/secret", "inside/x", "fifo", "../" + filepath.Base(outside) + "/secret", "real/../../x"} {
		if f, err := d.Open(name, false); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	for _, name := range []string{"file", "dir/new", "inside/new", "../new"} {
		if f, err := d.Create(name); err == nil {
			f.Close()
			t.Errorf("%s was created", name)
		}
	}
	if _, err := d.ReadDir("dir"); err == nil {
		t.Error("a link was listed as a directory")
	}
	if info, err := d.Stat("file"); err != nil || info.Mode.Type() != fs.ModeSymlink {
		t.Errorf("Stat of a link: %+v, %v", info, err)
	}
	must(t, d.Remove("file"))
	if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
		t.Error("the target of a link was removed")
	}
}

func TestCrashLosesWhatIsNotSynced(t *testing.T) {
	s := NewSim()
	must(t, s.Mkdir("d"))
	must(t, s.SyncDir("."))
	put(t, s, "d/synced", "s")
	must(t, s.SyncDir("d"))
	put(t, s, "d/name not synced", "n")
	f, err := s.Create("d/contents not synced")
	must(t, err)
	_, err = f.WriteAt([]byte("c"), 0)
	must(t, err)
	lost := s.Reboot(Lose)
	if names, err := lost.ReadDir("d"); err != nil || !slices.Equal(names, []string{"synced"}) {
		t.Errorf("after losing all: %v, %v", names, err)
	}
	if got := contents(t, lost, "d/synced"); got != "s" {
		t.Errorf("what was synced reads %q", got)
	}
	kept := s.Reboot(Keep)
	if names, err := kept.ReadDir("d"); err != nil || len(names) != 3 {
		t.Errorf("after keeping all: %v, %v", names, err)
	}
	if got := contents(t, kept, "d/contents not synced"); got != "c" {
		t.Errorf("what was kept reads %q", got)
	}
	if _, err := s.Create("late"); !errors.Is(err, ErrCrashed) {
		t.Errorf("after the crash: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, ErrCrashed) {
		t.Errorf("after the crash: %v", err)
	}
}

// A rename happens or does not: at no time are both or none of the names there.
func TestCrashRename(t *testing.T) {
	outcomes := make(map[string]int)
	for c := new(Choices); c.Next(); {
		s := NewSim()
		put(t, s, "new", "new")
		put(t, s, "file", "old")
		must(t, s.SyncDir("."))
		must(t, s.Rename("new", "file"))
		after := s.Reboot(c.Pick)
		outcomes[contents(t, after, "file")+","+contents(t, after, "new")]++
	}
	if len(outcomes) != 2 || outcomes["old,new"] != 1 || outcomes["new,"+syscall.ENOENT.Error()] != 1 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// A write is kept, lost, or torn at sectors.
func TestCrashTear(t *testing.T) {
	outcomes := make(map[string]bool)
	for c := new(Choices); c.Next(); {
		s := NewSim()
		f, err := s.Create("f")
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte("0"), 1024), 0)
		must(t, err)
		must(t, f.Sync())
		must(t, s.SyncDir("."))
		_, err = f.WriteAt(bytes.Repeat([]byte("1"), 1024), 0)
		must(t, err)
		got := contents(t, s.Reboot(c.Pick), "f")
		outcomes[got[:1]+got[511:513]+got[1023:]] = true
	}
	for _, want := range []string{"0000", "1100", "0011", "1111"} {
		if !outcomes[want] {
			t.Errorf("never %s: %v", want, outcomes)
		}
	}
	if len(outcomes) != 4 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// After a failed sync a later success promises nothing.
func TestFailedSync(t *testing.T) {
	s := NewSim()
	f, err := s.Create("f")
	must(t, err)
	must(t, s.SyncDir("."))
	_, err = f.WriteAt([]byte("x"), 0)
	must(t, err)
	s.Fail(syscall.EIO, 1, 1)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	must(t, f.Sync())
	if got := contents(t, s.Reboot(Lose), "f"); got != "" {
		t.Errorf("%q survived", got)
	}
}

func TestFaultKinds(t *testing.T) {
	for _, tc := range []struct {
		err   syscall.Errno
		do    func(s *Sim) error
		meets bool
	}{
		{syscall.ENOSPC, func(s *Sim) error { return s.Mkdir("d") }, true},
		{syscall.ENOSPC, func(s *Sim) error { return s.Remove("f") }, false},
		{syscall.EROFS, func(s *Sim) error { return s.Remove("f") }, true},
		{syscall.EROFS, func(s *Sim) error { _, err := s.Open("f", false); return err }, false},
		{syscall.EMFILE, func(s *Sim) error { _, err := s.Open("f", false); return err }, true},
		{syscall.EMFILE, func(s *Sim) error { return s.Rename("f", "g") }, false},
		{syscall.EIO, func(s *Sim) error { _, err := s.Stat("f"); return err }, true},
	} {
		s := NewSim()
		put(t, s, "f", "x")
		fault := s.Fail(tc.err, 1, -1)
		if err := tc.do(s); errors.Is(err, tc.err) != tc.meets || fault.Hit() != tc.meets {
			t.Errorf("%v: %v, want it to strike: %v", tc.err, err, tc.meets)
		}
		fault.Lift()
		if err := tc.do(NewSim()); errors.Is(err, tc.err) {
			t.Errorf("another disk fails: %v", err)
		}
	}
	s := NewSim()
	f, err := s.Create("f")
	must(t, err)
	s.Fail(syscall.ENOSPC, 2, 1)
	for i, want := range []bool{false, true, false} {
		_, err := f.WriteAt([]byte("xy"), int64(2*i))
		if errors.Is(err, syscall.ENOSPC) != want {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if len(s.Events()) != 3 {
		t.Errorf("events %q", s.Events())
	}
}
