package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"opensmtpd/src/clock"
)

var env = []string{"PATH=/usr/bin:/bin"}

func run(t *testing.T, script, body string) Outcome {
	t.Helper()
	return Run(t.Context(), clock.NewFake(time.Unix(0, 0)), Command{
		Script: script, Env: env, Dir: t.TempDir(), Head: []byte(body), Timeout: time.Minute,
	})
}

func TestOutcome(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	for _, tc := range []struct {
		script, body string
		want         Outcome
	}{
		{"cat", "a\nb\n", Outcome{LastLine: "b"}},
		{"cat >/dev/null", big, Outcome{}},
		{"exit 75", "x", Outcome{Exit: 75}},
		{"echo no room >&2; echo; exit 73", "", Outcome{Exit: 73, LastLine: "no room"}},
		{"printf 'unfinished'", "", Outcome{LastLine: "unfinished"}},
		{`printf 'a\033[1m\r\n'`, "", Outcome{LastLine: `a\033[1m`}},
		{"kill -9 $$", "", Outcome{Signal: syscall.SIGKILL}},
		{"true", "small", Outcome{}},
		{"true", big, Outcome{Unread: true}},
		{"exit 1", big, Outcome{Exit: 1, Unread: true}},
		{"head -c 10 >/dev/null", big, Outcome{Unread: true}},
		{"/nonexistent/program 2>/dev/null", "", Outcome{Exit: 127}},
		{"sleep 3 & echo started", "", Outcome{LastLine: "started"}},
		{"head -c 2000000 /dev/zero; echo; echo end", "", Outcome{LastLine: "end"}},
		{"head -c 200000 /dev/zero | tr '\\0' y", "", Outcome{LastLine: strings.Repeat("y", longestLine)}},
	} {
		got := run(t, tc.script, tc.body)
		if got != tc.want {
			t.Errorf("%q: %+v, want %+v", tc.script, got, tc.want)
		}
	}
}

func TestEnvironmentAndDirectory(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(t.TempDir(), "out")
	c := Command{
		Script: "{ pwd; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=; cat; } >$OUT", Dir: dir,
		Env: append(env, "OUT="+out, "A=b c"), Body: strings.NewReader("body\n"), Timeout: time.Minute,
	}
	if got := Run(t.Context(), clock.NewSystem(), c); got != (Outcome{}) {
		t.Fatalf("%+v", got)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{dir + "\n", "A=b c\n", "PATH=/usr/bin:/bin\n", "body\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in %q", want, b)
		}
	}
	if n := strings.Count(string(b), "\n"); n != 5 {
		t.Errorf("%d lines: %q", n, b)
	}
	c.Dir = dir + "/gone"
	if got := Run(t.Context(), clock.NewSystem(), c); got != (Outcome{}) {
		t.Fatalf("%+v", got)
	}
	if b, err := os.ReadFile(out); err != nil || !strings.HasPrefix(string(b), "/\n") {
		t.Errorf("without its directory it runs in %q, %v", b, err)
	}
}

// started returns once the script has made the file.
func started(t *testing.T, fifo string) {
	t.Helper()
	f, err := os.Open(fifo) // waits for the writer
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// A command whose time is over is killed together with its children.
func TestTimeout(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"hangs":        "echo going; : >FIFO; sleep 1000 & wait",
		"never reads":  ": >FIFO; exec sleep 1000",
		"leaves child": "exec 3<&0; (while kill -0 $$ 2>/dev/null; do :; done; : >FIFO; exec sleep 1000) <&3 & exit 0",
	} {
		// One for each: the last one's writer may still be ending.
		fifo := filepath.Join(dir, name)
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		script = strings.ReplaceAll(script, "FIFO", "'"+fifo+"'")
		c := clock.NewFake(time.Unix(0, 0))
		done := make(chan Outcome, 1)
		go func() {
			done <- Run(t.Context(), c, Command{Script: script, Env: env, Dir: dir, Body: strings.NewReader(strings.Repeat("x", 1<<20)), Timeout: 300 * time.Second})
		}()
		started(t, fifo)
		c.BlockUntil(1)
		c.Advance(299 * time.Second)
		if name != "leaves child" {
			select {
			case out := <-done:
				t.Fatalf("%s: ended a second too early: %+v", name, out)
			default:
			}
		}
		c.Advance(2 * time.Second)
		out := <-done
		if name == "leaves child" {
			out.TimedOut = false // both ends came at the same time
			if out != (Outcome{Unread: true}) {
				t.Errorf("%s: %+v", name, out)
			}
			continue
		}
		if !out.TimedOut || out.Signal != syscall.SIGKILL || name == "hangs" && out.LastLine != "going" {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	fifo := dir + "/f"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Outcome, 1)
	go func() {
		done <- Run(ctx, clock.NewSystem(), Command{Script: ": >" + fifo + "; sleep 1000", Env: env, Dir: dir, Body: strings.NewReader(""), Timeout: time.Hour})
	}()
	started(t, fifo)
	cancel()
	if out := <-done; !out.Cancelled || out.TimedOut || out.Signal != syscall.SIGKILL {
		t.Errorf("%+v", out)
	}
}

func TestBodyFails(t *testing.T) {
	boom := errors.New("EIO")
	out := Run(t.Context(), clock.NewSystem(), Command{Script: "cat >/dev/null", Env: env, Dir: "/", Body: iotest.ErrReader(boom), Timeout: time.Hour})
	if !errors.Is(out.Err, boom) {
		t.Errorf("%+v", out)
	}
}
