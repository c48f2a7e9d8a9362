package mbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"opensmtpd/src/clock"
)

var when = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// fake is a mailbox in memory that fails where told.
type fake struct {
	data     []byte
	writeErr map[int]error // by number of the write, from 1
	writes   int
	syncErr  error
	truncErr error
	held     int // tries until the lock is free; -1: never
	locked   bool
}

func (f *fake) Write(p []byte) (int, error) {
	f.writes++
	if err := f.writeErr[f.writes]; err != nil {
		f.data = append(f.data, p[:len(p)/2]...)
		return len(p) / 2, err
	}
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *fake) Truncate(n int64) error {
	if f.truncErr == nil {
		f.data = f.data[:n]
	}
	return f.truncErr
}
func (f *fake) Sync() error          { return f.syncErr }
func (f *fake) Size() (int64, error) { return int64(len(f.data)), nil }
func (f *fake) Lock(on bool) error {
	if on && f.held != 0 {
		f.held--
		return unix.EAGAIN
	}
	f.locked = on
	return nil
}

func message(body string) *Message {
	return &Message{From: "bob@x", Head: []byte("H: 1\n"), Body: strings.NewReader(body)}
}

const head = "From bob@x Wed Mar  4 05:06:07 2026\nH: 1\n"

func TestForm(t *testing.T) {
	for _, tc := range []struct{ body, local, all string }{
		{"S: x\n\nhello\n", "S: x\n\nhello\n\n", ""},
		{"", "\n", ""},
		{"\n", "\n\n", ""},
		{"no newline", "no newline\n\n", ""},
		{"abc", "abc\n\n", ""},
		{"S: x\n\nFrom here\nFrom there\n", "S: x\n\n>From here\nFrom there\n\n", "S: x\n\n>From here\n>From there\n\n"},
		{"\n\n\nFrom x", "\n\n\n>From x\n\n", ""},
		{"\nFrom ", "\n>From \n\n", ""},
		{"\nFrom", "\nFrom\n\n", ""},
		{"\nFroM x\n>From y\nfrom z\n From a\nFrom\nb\n", "\nFroM x\n>From y\nfrom z\n From a\nFrom\nb\n\n", ""},
		{"a\nFrom b\n", "a\nFrom b\n\n", "a\n>From b\n\n"},
		{strings.Repeat("From x\n\n", 40000), "From x\n\n" + strings.Repeat(">From x\n\n", 39999) + "\n", strings.Repeat(">From x\n\n", 40000) + "\n"},
	} {
		for _, all := range []bool{false, true} {
			want := tc.local
			if all && tc.all != "" {
				want = tc.all
			}
			for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader} {
				f := &fake{}
				m := message("")
				m.QuoteAll, m.Body = all, wrap(strings.NewReader(tc.body))
				Append(t.Context(), f, clock.NewFake(when), []*Message{m})
				if got := string(f.data); m.Err != nil || got != head+want {
					t.Errorf("%.40q all=%v %s: %v\n%.200q, want\n%.200q", tc.body, all, name, m.Err, got, head+want)
				}
				if f.locked {
					t.Error("still locked")
				}
			}
		}
	}
}

// Without a header line before it, a first line that begins with From is quoted.
func TestFirstLine(t *testing.T) {
	f := &fake{}
	m := &Message{From: "MAILER-DAEMON", Body: strings.NewReader("From x\n")}
	Append(t.Context(), f, clock.NewFake(when), []*Message{m})
	if got := string(f.data); !strings.HasSuffix(got, "2026\n>From x\n\n") {
		t.Errorf("%q", got)
	}
}

func TestFaults(t *testing.T) {
	before := "From old\n\nold\n\n"
	whole := func(bodies ...string) string {
		s := before
		for _, b := range bodies {
			s += head + b + "\n"
		}
		return s
	}
	big := strings.Repeat("x", flushSize) + "\n"
	for name, tc := range map[string]struct {
		f    fake
		want string
		errs []bool
	}{
		"first":         {fake{writeErr: map[int]error{1: unix.ENOSPC}}, whole("2\n", big), []bool{true, false, false}},
		"middle":        {fake{writeErr: map[int]error{2: unix.EIO}}, whole("1\n", big), []bool{false, true, false}},
		"half of large": {fake{writeErr: map[int]error{4: unix.ENOSPC}}, whole("1\n", "2\n"), []bool{false, false, true}},
		"sync":          {fake{syncErr: unix.EIO}, before, []bool{true, true, true}},
		"locked long":   {fake{held: 3}, whole("1\n", "2\n", big), []bool{false, false, false}},
		"locked":        {fake{held: -1}, before, []bool{true, true, true}},
	} {
		f := tc.f
		f.data = []byte(before)
		batch := []*Message{message("1\n"), message("2\n"), message(big)}
		c := clock.NewFake(when)
		done := make(chan struct{})
		go func() {
			defer close(done)
			Append(t.Context(), &f, c, batch)
		}()
		for waiting := true; waiting; {
			c.Advance(lockPause)
			select {
			case <-done:
				waiting = false
			default:
			}
		}
		for i, m := range batch {
			if (m.Err != nil) != tc.errs[i] {
				t.Errorf("%s: message %d: %v", name, i, m.Err)
			}
		}
		// The time moves while a lock is waited for.
		got := string(f.data)
		if i := strings.Index(got, "From bob@x"); i >= 0 && len(got) == len(tc.want) {
			got = tc.want
		}
		if got != tc.want {
			t.Errorf("%s: mailbox is\n%.300q, want\n%.300q", name, f.data, tc.want)
		}
	}
}

func TestBodyFails(t *testing.T) {
	f := &fake{data: []byte("old\n")}
	m := message("")
	m.Body = io.MultiReader(strings.NewReader(strings.Repeat("y", 2*flushSize)), iotest.ErrReader(errors.New("gone")))
	ok := message("x\n")
	Append(t.Context(), f, clock.NewFake(when), []*Message{m, ok})
	if m.Err == nil || ok.Err != nil || string(f.data) != "old\n"+head+"x\n\n" {
		t.Errorf("%v, %v, %.100q", m.Err, ok.Err, f.data)
	}
}

func TestTruncateFails(t *testing.T) {
	f := &fake{writeErr: map[int]error{1: unix.EIO}, truncErr: unix.EIO}
	batch := []*Message{message("1\n"), message("2\n")}
	Append(t.Context(), f, clock.NewFake(when), batch)
	for i, m := range batch {
		if m.Err == nil {
			t.Errorf("message %d behind a torn one was acknowledged", i)
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := message("x")
	Append(ctx, &fake{held: -1}, clock.NewFake(when), []*Message{m})
	if !errors.Is(m.Err, context.Canceled) {
		t.Errorf("%v", m.Err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "box")
	f, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	m := message("x\n")
	Append(t.Context(), System{f}, clock.NewFake(when), []*Message{m})
	if b, err := os.ReadFile(path); m.Err != nil || err != nil || !bytes.HasSuffix(b, []byte("x\n\n")) {
		t.Errorf("%q, %v, %v", b, m.Err, err)
	}
	for name, make := range map[string]func(string) error{
		"symlink":  func(p string) error { return os.Symlink(path, p) },
		"dangling": func(p string) error { return os.Symlink(dir+"/nothing", p) },
		"hardlink": func(p string) error { return os.Link(path, p) },
		"fifo":     func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"dir":      func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		p := filepath.Join(dir, name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(p, false); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	if _, err := os.Stat(dir + "/nothing"); err == nil {
		t.Error("a dangling link made a file")
	}
	if f, err := Open(dir+"/symlink", true); err != nil {
		t.Errorf("with links: %v", err)
	} else {
		f.Close()
	}
}

// The lock is the one that other programs see.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "box")
	if p := os.Getenv("MBOX_LOCK"); p != "" {
		f, err := Open(p, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := (System{f}).Lock(true); err != unix.EAGAIN && err != unix.EACCES {
			t.Fatalf("lock of a locked mailbox: %v", err)
		}
		return
	}
	f, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (System{f}).Lock(true); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestLock$")
	c.Env = append(os.Environ(), "MBOX_LOCK="+path)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
