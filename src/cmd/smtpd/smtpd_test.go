package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/regress/daemon"
)

// The test binary is smtpd when the environment says so, and when smtpd has
// started itself again.
const beSmtpd = "SMTPD_TEST_BE_SMTPD"

func TestMain(m *testing.M) {
	if os.Getenv(beSmtpd) != "" || proc.IsReexec(os.Args) {
		os.Exit(run(context.Background(), arguments(), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	type want struct {
		Conf, Convert, State               string
		Check, Foreground, Stderr, Verbose bool
		Macros                             map[string]string
		Traces, Paused, Warnings           []string
		Socket                             string
	}
	base := func(f func(*want)) want {
		w := want{Conf: "/etc/mail/smtpd.conf", Macros: map[string]string{}, Socket: "/var/run/smtpd.sock"}
		f(&w)
		return w
	}
	for _, tc := range []struct {
		args string
		want want
		err  string
	}{
		{"", base(func(*want) {}), ""},
		{"-dFv", base(func(w *want) { w.Foreground, w.Stderr, w.Verbose = true, true, true }), ""},
		{"-F", base(func(w *want) { w.Foreground = true }), ""},
		{"-n -f x.conf", base(func(w *want) { w.Check, w.Conf = true, "x.conf" }), ""},
		{"-nfx.conf", base(func(w *want) { w.Check, w.Conf = true, "x.conf" }), ""},
		{"-Da=b=c -D d=", base(func(w *want) { w.Macros = map[string]string{"a": "b=c", "d": ""} }), ""},
		{"-T smtp -T transfer -Tall", base(func(w *want) { w.Traces = []string{"smtp", "mta", "all"} }), ""},
		{"-T nonsense", base(func(w *want) { w.Warnings = []string{`unknown trace flag "nonsense"`} }), ""},
		{"-P mda -P smtp", base(func(w *want) { w.Paused = []string{"mda", "smtp"} }), ""},
		{"-n -C conf", base(func(w *want) { w.Check, w.Convert = true, "conf" }), ""},
		{"-S /s", base(func(w *want) { w.State, w.Conf, w.Socket = "/s", "/s/smtpd.conf", "/s/smtpd.sock" }), ""},
		{"-S /s -f /c", base(func(w *want) { w.State, w.Conf, w.Socket = "/s", "/c", "/s/smtpd.sock" }), ""},
		{"-d --", base(func(w *want) { w.Foreground, w.Stderr = true, true }), ""},
		{"-h", want{}, "help"},
		{"-x", want{}, "unknown option -- x"},
		{"-f", want{}, "option requires an argument -- f"},
		{"-d extra", want{}, `unexpected argument "extra"`},
		{"-D novalue", want{}, "could not parse macro definition novalue"},
		{"-P queue", want{}, "-P takes mda, mta or smtp"},
		{"-n -C yaml", want{}, "-C takes conf or hcl"},
		{"-C conf", want{}, "-C goes with -n"},
	} {
		o, err := parse(strings.Fields(tc.args))
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: %v, want %q", tc.args, err, tc.err)
			}
			continue
		}
		got := want{
			o.conf, o.convert, o.state, o.check, o.foreground, o.stderr, o.verbose,
			o.macros, o.traces, o.paused, o.warnings, o.paths.Socket,
		}
		if d := cmp.Diff(tc.want, got); d != "" || err != nil {
			t.Errorf("%q: %v\n%s", tc.args, err, d)
		}
	}
}

// state makes a short directory with a configuration that listens on a free
// port of the loopback interface.
func state(t *testing.T) (dir, addr string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "smtpd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addr = "127.0.0.1:" + daemon.FreePort(t)
	configure(t, dir, addr, "")
	return dir, addr
}

func configure(t *testing.T, dir, addr, more string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf("listen on 127.0.0.1 port %s\nlisten on socket\naction \"local\" maildir \"%s/Maildir\"\nmatch for local action \"local\"\n%s", port, dir, more)
	if err := os.WriteFile(filepath.Join(dir, "smtpd.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// smtpd returns the command with its output, not yet started.
func smtpd(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	if runtime.GOOS != "linux" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c.Path = exe
	}
	c.Args[0] = "smtpd-under-test"
	c.Env = append(os.Environ(), beSmtpd+"=1")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	return c, &out, &errs
}

// exitOf runs smtpd to its end.
func exitOf(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c, out, errs := smtpd(t, args...)
	err := c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestCheck(t *testing.T) {
	dir, addr := state(t)
	file := filepath.Join(dir, "smtpd.conf")
	code, out, errs := exitOf(t, "-n", "-f", file)
	if code != 0 || out != "" || !strings.Contains(errs, "configuration OK\n") {
		t.Errorf("-n: status %d, stdout %q, stderr %q", code, out, errs)
	}
	code, out, errs = exitOf(t, "-n", "-C", "conf", "-f", file)
	if code != 0 || !strings.Contains(out, "match from local for local action") {
		t.Errorf("-C conf: status %d, stdout %q, stderr %q", code, out, errs)
	}
	code, out, errs = exitOf(t, "-n", "-C", "hcl", "-f", file)
	if code != 0 || !strings.Contains(out, `from   = "local"`) {
		t.Errorf("-C hcl: status %d, stdout %q, stderr %q", code, out, errs)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, again, errs := exitOf(t, "-n", "-C", "hcl", "-f", "hcl:"+other); code != 0 || again != out {
		t.Errorf("-f hcl: status %d, stdout %q, stderr %q", code, again, errs)
	}
	configure(t, dir, addr, "match from any action \"missing\"\nlisten on nosuch0\nmatch maybe\n")
	code, out, errs = exitOf(t, "-n", "-f", file)
	for _, want := range []string{"smtpd.conf:5:", "smtpd.conf:6:", "smtpd.conf:7:", "^"} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in %s", want, errs)
		}
	}
	if code != 1 || out != "" || strings.Contains(errs, "OK") {
		t.Errorf("three errors: status %d, stdout %q", code, out)
	}
}

// TestCheckTables holds that -n reads what is in table files: what keeps the
// daemon from starting is an error, what it can do without a warning, and nothing
// makes it wait.
func TestCheckTables(t *testing.T) {
	dir, addr := state(t)
	users := filepath.Join(dir, "users")
	configure(t, dir, addr, "table users file:"+users+"\naction \"v\" expand-only virtual <users>\nmatch for domain example.org action \"v\"\n")
	for text, want := range map[string]string{
		"joe@example.org joe\nann@example.org ann bob\n": users + `:2:1: warning: alias "ann@example.org": "ann bob" is no user`,
		"joe@example.org joe\n\tann\n":                   "table users: " + users + ":2: invalid map entry: a line that goes on ends in a backslash",
		"":                                               "table users: " + users + ": not a regular file",
	} {
		if err := os.Remove(users); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		err := syscall.Mkfifo(users, 0o600)
		if text != "" {
			err = errors.Join(err, os.Remove(users), os.WriteFile(users, []byte(text), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		code, _, errs := exitOf(t, "-n", "-f", filepath.Join(dir, "smtpd.conf"))
		if fails := !strings.Contains(want, "warning"); (code != 0) != fails || !strings.Contains(errs, want) {
			t.Errorf("%q: status %d, %s", text, code, errs)
		}
	}
}

func TestUsage(t *testing.T) {
	code, _, errs := exitOf(t, "-h")
	if code != 1 || !strings.Contains(errs, "version: OpenSMTPD 7.8.0") || !strings.Contains(errs, "usage: smtpd [-dFhnv]") {
		t.Errorf("-h: status %d: %s", code, errs)
	}
	if code, _, errs = exitOf(t, "-y"); code != 1 || !strings.Contains(errs, "usage:") {
		t.Errorf("-y: status %d: %s", code, errs)
	}
}

// greeting waits for the first line of a daemon that is coming up.
func greeting(t *testing.T, addr string) string {
	t.Helper()
	for t.Context().Err() == nil {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			<-time.After(time.Millisecond) // another process must move
			continue
		}
		defer c.Close()
		b := make([]byte, 512)
		n, err := c.Read(b)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	return ""
}

func TestForeground(t *testing.T) {
	dir, addr := state(t)
	c, _, errs := smtpd(t, "-d", "-v", "-S", dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if got := greeting(t, addr); !strings.HasPrefix(got, "220 ") {
		t.Errorf("greeting %q", got)
	}
	pid, err := os.ReadFile(filepath.Join(dir, "smtpd.pid"))
	if err != nil || strings.TrimSpace(string(pid)) != strconv.Itoa(c.Process.Pid) {
		t.Errorf("pid file %q, %v; the process is %d", pid, err, c.Process.Pid)
	}
	if runtime.GOOS == "linux" {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Process.Pid))
		if err != nil || !strings.HasPrefix(string(text), "smtpd: [priv]\x00") {
			t.Errorf("ps shows %q: %v", text, err)
		}
	}
	code, _, second := exitOf(t, "-d", "-S", dir)
	if code != 1 || !strings.Contains(second, "already running") {
		t.Errorf("second instance: status %d: %s", code, second)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	for _, want := range []string{"info: OpenSMTPD 7.8.0", "debug: queue: confined by", "Exiting"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, errs)
		}
	}
	for _, name := range []string{"smtpd.pid", "smtpd.sock"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// TestInheritedDescriptor: the daemon, and so what it starts, holds nothing that
// happened to be open where it was started.
func TestInheritedDescriptor(t *testing.T) {
	for _, flags := range []string{"-d", "-v"} { // in the foreground, in the background
		dir, addr := state(t)
		c, _, errs := smtpd(t, flags, "-S", dir)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c.ExtraFiles = []*os.File{w, w, w}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		greeting(t, addr)
		if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: somebody holds the pipe: %d, %v", flags, n, err)
		}
		terminate(t, dir)
		if err := c.Wait(); err != nil {
			t.Errorf("%s: %v: %s", flags, err, errs)
		}
	}
}

// terminate asks the daemon of a state directory to end.
func terminate(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "smtpd.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func TestBackground(t *testing.T) {
	dir, addr := state(t)
	code, _, errs := exitOf(t, "-S", dir)
	if code != 0 {
		t.Fatalf("status %d: %s", code, errs)
	}
	// It serves when the command has returned.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	terminate(t, dir)
	for t.Context().Err() == nil {
		if _, err := os.Lstat(filepath.Join(dir, "smtpd.pid")); err != nil {
			break
		}
		<-time.After(time.Millisecond)
	}
}

// What keeps the daemon from starting is said to who starts it, in the
// background too.
func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir, addr string)
		want  []string
	}{
		"bad configuration": {func(t *testing.T, dir, addr string) {
			configure(t, dir, addr, "match maybe\n")
		}, []string{"smtpd.conf:5:"}},
		"no configuration": {func(t *testing.T, dir, _ string) {
			os.Remove(filepath.Join(dir, "smtpd.conf"))
		}, []string{"smtpd.conf"}},
		"port in use": {func(t *testing.T, _, addr string) {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, []string{"smtpd.conf:1:", "in use", "^"}},
		"spool open to others": {func(t *testing.T, dir, _ string) {
			if err := os.MkdirAll(filepath.Join(dir, "spool/queue"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(dir, "spool/queue"), 0o777); err != nil {
				t.Fatal(err)
			}
		}, []string{"spool/queue has mode 0777"}},
		"spool is a file": {func(t *testing.T, dir, _ string) {
			os.WriteFile(filepath.Join(dir, "spool"), nil, 0o600)
		}, []string{"spool is not a directory"}},
		"socket in the way": {func(t *testing.T, dir, _ string) {
			os.Mkdir(filepath.Join(dir, "smtpd.sock"), 0o700)
		}, []string{"smtpd.sock is in the way"}},
	} {
		for _, mode := range []string{"-d", "-v"} {
			t.Run(name+mode, func(t *testing.T) {
				t.Parallel()
				dir, addr := state(t)
				tc.spoil(t, dir, addr)
				code, _, errs := exitOf(t, mode, "-S", dir)
				if code != 1 {
					t.Errorf("status %d", code)
				}
				for _, want := range tc.want {
					if !strings.Contains(errs, want) {
						t.Errorf("no %q in %s", want, errs)
					}
				}
				if strings.Contains(errs, "goroutine ") {
					t.Errorf("it crashed: %s", errs)
				}
			})
		}
	}
}

func TestRoleDies(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("finds the processes in /proc")
	}
	dir, addr := state(t)
	c, _, errs := smtpd(t, "-d", "-S", dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	greeting(t, addr)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.Process.Pid, c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.Process.Pid))
	for _, task := range tasks {
		more, _ := os.ReadFile(task)
		children = append(append(children, ' '), more...)
	}
	killed := false
	for _, word := range strings.Fields(string(children)) {
		title, _ := os.ReadFile("/proc/" + word + "/cmdline")
		if strings.HasPrefix(string(title), "smtpd: lookup") && !killed {
			pid, _ := strconv.Atoi(word)
			killed = syscall.Kill(pid, syscall.SIGKILL) == nil
		}
	}
	if !killed {
		t.Fatalf("no lookup among %s", children)
	}
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "lost child: lookup terminated; signal 9") {
		t.Errorf("status %d: %s", code, errs)
	}
}
