// Package daemon starts the real smtpd for tests, unprivileged, with its state
// in a directory of the test's own, and lets a test talk to it, look at it and
// hurt it.
package daemon

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/bench/load"
)

// Wait is how long anything that must happen may take on a busy machine. It is
// never a measure of speed.
const Wait = 3 * time.Minute

// Bin returns the directory of the built programs, and skips the test when
// `make build` has not run.
func Bin(t testing.TB) string {
	t.Helper()
	for dir := "."; ; dir = filepath.Join(dir, "..") {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			bin, err := filepath.Abs(filepath.Join(dir, "bin"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(bin, "smtpd")); err != nil {
				t.Skip("the programs are not built: run `make build` first")
			}
			return bin
		}
		if abs, err := filepath.Abs(dir); err != nil || abs == "/" {
			t.Fatal("no go.mod above the test")
		}
	}
}

// Daemon is one smtpd with its state directory.
type Daemon struct {
	t    testing.TB
	Bin  string
	Dir  string // state: spool, smtpd.sock, smtpd.conf, Maildir
	Addr string // host:port that $port of the configuration stands for
	Root bool   // privileged: no -S, the system's own paths
	cmd  *exec.Cmd
	log  *output
	done chan struct{} // closed when the process has been waited for
	err  error         // of Wait, when done
}

// New makes a state directory and a configuration, in which $port is a free
// port of 127.0.0.1 and $box a maildir of the test's. Nothing runs yet.
func New(t testing.TB, conf string) *Daemon {
	t.Helper()
	bin := Bin(t)
	// The path of a Unix socket is short; t.TempDir's need not be.
	dir, err := os.MkdirTemp("/tmp", "smtpd")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{t: t, Bin: bin, Dir: dir, Addr: "127.0.0.1:" + FreePort(t)}
	t.Cleanup(func() {
		d.Stop()
		if t.Failed() {
			t.Logf("log of smtpd:\n%s", d.Log())
		}
		os.RemoveAll(dir)
	})
	d.Configure(conf)
	return d
}

// NewRoot is New for a daemon with all its privileges, which uses the system's
// own spool, socket and accounts: the caller must be root in namespaces of its
// own, see package regress. One can run at a time.
func NewRoot(t testing.TB, conf string) *Daemon {
	t.Helper()
	d := New(t, conf)
	d.Root = true
	// Roles and agents that are not root pass through here.
	if err := os.Chmod(d.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

// Basic is a configuration that takes mail for the user who runs the test.
const Basic = `listen on 127.0.0.1 port $port
listen on socket
action "local" maildir $box
match for local action "local"
`

// FreePort returns a port of 127.0.0.1 that nobody uses, nor will before the test
// ends: it is none of those that the system gives to who wants just any, and that
// of UDP is held meanwhile, which keeps other tests away.
func FreePort(t testing.TB) string {
	t.Helper()
	const first, last = 20000, 32767
	for range 1000 {
		port := strconv.Itoa(first + rand.IntN(last+1-first))
		hold, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			hold.Close()
			continue
		}
		l.Close()
		t.Cleanup(func() { hold.Close() })
		return port
	}
	t.Fatal("no port is free")
	return ""
}

// Port is the port of Addr.
func (d *Daemon) Port() string {
	_, port, _ := net.SplitHostPort(d.Addr)
	return port
}

// Path returns a path below the state directory.
func (d *Daemon) Path(elem ...string) string {
	return filepath.Join(append([]string{d.Dir}, elem...)...)
}

// Configure writes a new configuration; Reload makes a running daemon take it.
func (d *Daemon) Configure(conf string) {
	d.t.Helper()
	if err := os.WriteFile(d.Path("smtpd.conf"), []byte(conf), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// Args returns the arguments that smtpd is started with, extra ones first.
func (d *Daemon) Args(extra ...string) []string {
	if !d.Root {
		extra = append(extra, "-S", d.Dir)
	}
	return append(extra, "-f", d.Path("smtpd.conf"), "-D", "port="+d.Port(), "-D", "box="+d.Path("Maildir"))
}

// Start runs smtpd in the foreground and returns when it greets.
func (d *Daemon) Start(extra ...string) *Daemon {
	d.t.Helper()
	d.launch(extra...)
	if d.greets() {
		return d
	}
	d.t.Fatalf("smtpd did not greet on %s", d.Addr)
	return nil
}

// Restart starts the daemon again after it has ended, once the processes of the
// one before have gone.
func (d *Daemon) Restart() *Daemon {
	d.t.Helper()
	old := d.log.String()
	deadline := time.Now().Add(Wait)
	for {
		d.launch()
		if d.greets() {
			return d
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("smtpd does not come back; it said before:\n%s", old)
		}
		d.Exit()
	}
}

// greets waits for the greeting, or for the end of the process.
func (d *Daemon) greets() bool {
	deadline := time.Now().Add(Wait)
	for time.Now().Before(deadline) && d.Alive() {
		if c, err := load.Dial(d.t.Context(), d.Addr, Wait); err == nil {
			c.Close()
			return true
		}
		d.poll()
	}
	return false
}

func (d *Daemon) launch(extra ...string) {
	d.t.Helper()
	d.log = &output{}
	d.done = make(chan struct{})
	d.cmd = exec.Command(filepath.Join(d.Bin, "smtpd"), d.Args(append([]string{"-d"}, extra...)...)...)
	d.cmd.Stderr, d.cmd.Stdout = d.log, d.log
	d.cmd.Dir = d.Dir
	d.cmd.SysProcAttr = tied()
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		d.err = cmd.Wait()
		close(done)
	}(d.cmd, d.done)
}

// Alive tells whether the parent process still runs.
func (d *Daemon) Alive() bool {
	if d.done == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// Stop ends the daemon as an administrator would and returns its exit status.
func (d *Daemon) Stop() int {
	if d.done == nil {
		return 0
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	return d.Exit()
}

// Exit waits until the daemon has ended by itself and returns its status; -1
// for a signal.
func (d *Daemon) Exit() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(Wait):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.done
		d.t.Errorf("smtpd had to be killed: it did not end within %v", Wait)
	}
	return d.cmd.ProcessState.ExitCode()
}

// Log returns what smtpd has written so far.
func (d *Daemon) Log() string {
	if d.log == nil {
		return ""
	}
	return d.log.String()
}

// AwaitLog waits until the log matches a regular expression and returns the
// match with its groups.
func (d *Daemon) AwaitLog(pattern string) []string {
	d.t.Helper()
	re := regexp.MustCompile(pattern)
	var m []string
	d.Await("log line "+pattern, func() bool {
		m = re.FindStringSubmatch(d.Log())
		return m != nil
	})
	return m
}

// Await polls until ok, and fails the test when that takes too long.
func (d *Daemon) Await(what string, ok func() bool) {
	d.t.Helper()
	if !Poll(d.t, ok) {
		d.t.Fatalf("waited %v in vain for %s", Wait, what)
	}
}

// Poll looks until ok, and tells whether that came within Wait.
func Poll(t testing.TB, ok func() bool) bool {
	t.Helper()
	deadline := time.Now().Add(Wait)
	for !ok() {
		if time.Now().After(deadline) {
			return false
		}
		pause(t)
	}
	return true
}

// poll waits a little before another look at what another process does.
func (d *Daemon) poll() { pause(d.t) }

func pause(t testing.TB) {
	select {
	case <-t.Context().Done(): // in a cleanup the look itself must do
	case <-time.After(2 * time.Millisecond):
	}
}

// Roles returns the process ids of the daemon by the title that ps shows,
// without "smtpd: ": "[priv]" for the parent, "dispatcher", "lookup", ….
func (d *Daemon) Roles() map[string]int {
	d.t.Helper()
	roles := map[string]int{}
	for _, pid := range descendants(d.cmd.Process.Pid) {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		argv0, _, _ := bytes.Cut(cmdline, []byte{0})
		title, ok := strings.CutPrefix(string(argv0), "smtpd: ")
		// A child that is still on its way to its own program bears the name of
		// its parent, who comes before it.
		if ok && roles[title] == 0 {
			roles[title] = pid
		}
	}
	return roles
}

// Processes returns the process ids below the daemon whose command line has arg
// in it.
func (d *Daemon) Processes(arg string) []int {
	d.t.Helper()
	var list []int
	for _, pid := range descendants(d.cmd.Process.Pid) {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.Contains(append([]byte{0}, cmdline...), []byte("\x00"+arg+"\x00")) {
			list = append(list, pid)
		}
	}
	return list
}

// descendants returns a process and all below it.
func descendants(root int) []int {
	list := []int{root}
	for i := 0; i < len(list); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", list[i]))
		for _, f := range tasks {
			text, _ := os.ReadFile(f)
			for _, w := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(w); err == nil {
					list = append(list, pid)
				}
			}
		}
	}
	return list
}

// Run runs one of the programs with the daemon's state and returns what it
// printed on stdout and stderr, and its exit status.
func (d *Daemon) Run(stdin string, program string, args ...string) (stdout, stderr string, status int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), Wait)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(d.Bin, program), args...)
	if !d.Root {
		c.Env = append(os.Environ(), "SMTPD_STATE="+d.Dir)
	}
	c.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		d.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// RunAs is Run as another user, without input, for a test that is root.
func (d *Daemon) RunAs(who *syscall.Credential, program string, args ...string) (output string, status int) {
	d.t.Helper()
	return d.as(who, filepath.Join(d.Bin, program), args...)
}

// GarbageAs writes random bytes to a Unix socket as another user.
func (d *Daemon) GarbageAs(who *syscall.Credential, socket string) {
	d.t.Helper()
	const script = `head -c 3000 /dev/urandom | timeout 5 socat -u - "UNIX-CONNECT:$0"`
	d.as(who, "/bin/sh", "-c", script, socket)
}

func (d *Daemon) as(who *syscall.Credential, path string, args ...string) (string, int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), Wait)
	defer cancel()
	c := exec.CommandContext(ctx, path, args...)
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		d.t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// Ctl runs smtpctl, which must succeed, and returns what it printed.
func (d *Daemon) Ctl(args ...string) string {
	d.t.Helper()
	out, errs, status := d.Run("", "smtpctl", args...)
	if status != 0 {
		d.t.Fatalf("smtpctl %s: status %d: %s%s", strings.Join(args, " "), status, out, errs)
	}
	return out
}

// Dial connects, reads the greeting and says EHLO.
func (d *Daemon) Dial() *load.Conn {
	d.t.Helper()
	c, err := load.Dial(d.t.Context(), d.Addr, Wait)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if err := c.Hello("client.localhost"); err != nil {
		d.t.Fatal(err)
	}
	return c
}

// Mail returns the messages in a maildir's new/, by file name.
func (d *Daemon) Mail(maildir string) map[string]string {
	d.t.Helper()
	m := map[string]string{}
	files, err := filepath.Glob(filepath.Join(maildir, "new", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil && !os.IsNotExist(err) {
			d.t.Fatal(err)
		}
		m[filepath.Base(f)] = string(text)
	}
	return m
}

// AwaitMail waits until the default maildir holds n messages.
func (d *Daemon) AwaitMail(n int) map[string]string {
	d.t.Helper()
	var m map[string]string
	d.Await(fmt.Sprintf("%d messages", n), func() bool {
		m = d.Mail(d.Path("Maildir"))
		return len(m) >= n
	})
	if len(m) > n {
		d.t.Fatalf("%d messages in the maildir, want %d", len(m), n)
	}
	return m
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
