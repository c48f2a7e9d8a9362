package mlog

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/clock"
)

// syslogd returns a socket that nobody reads unless the test does, and a sink
// on it.
func syslogd(t *testing.T) (*net.UnixConn, *Syslog) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addr := &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"}
	l, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, NewSyslog(dial(t, addr), "smtpd", clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)))
}

func dial(t *testing.T, addr *net.UnixAddr) *os.File {
	t.Helper()
	c, err := net.DialUnix("unixgram", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSyslog(t *testing.T) {
	l, s := syslogd(t)
	defer s.Close()
	s.Line(Info, "hello")
	if got, want := read(t, l), fmt.Sprintf("<22>Jan  2 03:04:05 smtpd[%d]: hello", os.Getpid()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Line(Crit, strings.Repeat("x", 70_000))
	if got := read(t, l); !strings.HasPrefix(got, "<18>") || len(got) < maxLine || len(got) > maxLine+100 {
		t.Errorf("a long line came as %d bytes: %.20q…", len(got), got)
	}
}

// A syslogd that stands still costs lines, never time, and they are counted.
func TestSyslogNeverWaits(t *testing.T) {
	l, s := syslogd(t)
	defer s.Close()
	sent := 0
	for s.lost == 0 {
		s.Line(Info, "filler")
		sent++
		if sent > 1_000_000 {
			t.Fatal("the socket takes everything")
		}
	}
	s.Line(Info, "lost too")
	for range sent - 1 {
		read(t, l)
	}
	s.Line(Info, "after")
	if got := read(t, l); !strings.HasSuffix(got, ": warn: 2 log lines were lost") {
		t.Errorf("got %q", got)
	}
	if got := read(t, l); !strings.HasSuffix(got, ": after") {
		t.Errorf("got %q", got)
	}
}

func TestSyslogReplaced(t *testing.T) {
	l, s := syslogd(t)
	s.Replace(nil)
	s.Line(Info, "into the void")
	s.Replace(dial(t, l.LocalAddr().(*net.UnixAddr)))
	defer s.Close()
	s.Line(Info, "back")
	if got := read(t, l); !strings.Contains(got, "1 log lines were lost") {
		t.Errorf("got %q", got)
	}
	if got := read(t, l); !strings.Contains(got, "back") {
		t.Errorf("got %q", got)
	}
}

func TestStream(t *testing.T) {
	var out bytes.Buffer
	s := NewStream(&out)
	for i := range 1000 {
		s.Line(Info, fmt.Sprint(i))
	}
	s.Flush()
	if n := strings.Count(out.String(), "\n"); n != 1000 || !strings.HasPrefix(out.String(), "0\n1\n2\n") {
		t.Errorf("%d lines: %.20q", n, out.String())
	}
	s.Close(clock.NewSystem(), time.Minute)
	s.Line(Info, "late")
	if strings.Contains(out.String(), "late") {
		t.Error("a line was written after Close")
	}
}

// stuck is a terminal on which somebody pressed ^S.
type stuck struct{ entered, free chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.free
	return len(p), nil
}

func TestStreamNeverWaits(t *testing.T) {
	w := stuck{make(chan struct{}, 1), make(chan struct{})}
	s := NewStream(w)
	s.Line(Info, "first")
	<-w.entered
	line := strings.Repeat("x", 999)
	for range 2 * backlog / 1000 {
		s.Line(Info, line)
	}
	if n := s.lost.Load(); n < backlog/1000 {
		t.Errorf("%d lines lost; the backlog has no end", n)
	}
	fake := clock.NewFake(time.Unix(0, 0))
	closed := make(chan struct{})
	go func() {
		s.Close(fake, time.Second)
		close(closed)
	}()
	fake.BlockUntil(1)
	fake.Advance(time.Second)
	<-closed
	close(w.free)
	<-s.done
}

func TestWholeLines(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int
		want  int
	}{
		{"ab\n", 10, 3},
		{"ab\ncd\n", 4, 3},
		{"abcdefgh\nx\n", 4, 9},
		{"abcdefgh", 4, 8},
	} {
		if got := wholeLines([]byte(tc.in), tc.limit); got != tc.want {
			t.Errorf("wholeLines(%q, %d) = %d, want %d", tc.in, tc.limit, got, tc.want)
		}
	}
}
