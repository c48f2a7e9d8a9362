package priv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// task is what a test asks of a process that it starts: this test binary again,
// which confines itself and tries things.
type task struct {
	Options Options
	Key     string // a file that holds a secret
	Addr    string // where somebody listens
	Exec    bool   // try to run a program, and nothing else
}

// report is what came of it. "" means that it worked.
type report struct {
	Err     string
	Result  Result
	Threads int
	Tried   map[string]string
}

const taskEnv = "PRIV_TEST_TASK"

func TestMain(m *testing.M) {
	if text := os.Getenv(taskEnv); text != "" {
		os.Exit(confined(text))
	}
	os.Exit(m.Run())
}

// confined is the life of the process under test.
func confined(text string) int {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		panic(err)
	}
	dir, name := filepath.Split(t.Key)
	keyDir, err := os.Open(dir)
	if err != nil {
		panic(err)
	}
	// Threads that exist before the drop must be confined as well.
	start, results := make(chan struct{}), make(chan error)
	const threads = 4
	for range threads {
		go func() {
			runtime.LockOSThread()
			results <- nil
			<-start
			results <- readAll(t.Key, keyDir, name)
		}()
	}
	for range threads {
		<-results
	}
	var r report
	r.Result, err = Confine(t.Options)
	if err != nil {
		r.Err = err.Error()
		json.NewEncoder(os.Stdout).Encode(r)
		return 0
	}
	if t.Exec {
		fmt.Println("before")
		err := syscall.Exec("/bin/true", []string{"true"}, nil)
		fmt.Println("exec failed:", err)
		return 3
	}
	close(start)
	for range threads {
		if <-results == nil {
			r.Threads++
		}
	}
	r.Tried = try(t)
	json.NewEncoder(os.Stdout).Encode(r)
	return 0
}

// readAll tries to read a file by its name and from its directory.
func readAll(name string, dir *os.File, base string) error {
	if _, err := os.ReadFile(name); err == nil {
		return nil
	}
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func try(t task) map[string]string {
	tried := map[string]string{}
	note := func(what string, err error) {
		tried[what] = ""
		if err != nil {
			tried[what] = err.Error()
		}
	}
	_, err := os.ReadFile("/etc/passwd")
	note("open", err)
	c, err := net.Dial("tcp", t.Addr)
	note("connect", err)
	if err == nil {
		c.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	note("listen", err)
	if err == nil {
		l.Close()
	}
	note("signal", syscall.Kill(os.Getppid(), 0))
	_, err = os.Readlink("/proc/self/exe")
	note("readlink", err)
	note("files", useFiles())
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	note("socketpair", err)
	if err == nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
	}
	return tried
}

// useFiles does what the queue does with its files.
func useFiles() error {
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	f, err := os.Create("a/f")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("text"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename("a/f", "b/f"); err != nil {
		return err
	}
	if err := os.Truncate("b/f", 1); err == nil {
		return fmt.Errorf("truncate by name works") // not in the table
	}
	if err := f.Truncate(1); err != nil {
		return err
	}
	if _, err := os.ReadDir("b"); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs("b", &st); err != nil {
		return err
	}
	return os.RemoveAll("b")
}

// run starts the process for a task and returns its output.
func run(t *testing.T, k task) (string, error) {
	t.Helper()
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), taskEnv+"="+string(text))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if s := errs.String(); s != "" {
		t.Logf("stderr: %s", s)
	}
	return out.String(), err
}

// newTask returns a task for a role, privileged if the test is.
func newTask(t *testing.T, role string, unprivileged bool) task {
	t.Helper()
	// Not t.TempDir: its parents are closed to others.
	dir, err := os.MkdirTemp("/tmp", "priv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	k := task{Key: key, Addr: l.Addr().String()}
	k.Options = Options{Role: role, Unprivileged: unprivileged, UID: 65534, GID: 65534}
	if unprivileged {
		k.Options.Dir = work
		return k
	}
	k.Options.Chroot = work
	if err := os.Chown(work, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRoles(t *testing.T) {
	modes := []bool{true}
	if os.Getuid() == 0 {
		modes = append(modes, false)
	}
	for role, p := range Policies() {
		for _, unprivileged := range modes {
			t.Run(fmt.Sprintf("%s/unprivileged=%v", role, unprivileged), func(t *testing.T) {
				t.Parallel()
				out, err := run(t, newTask(t, role, unprivileged))
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				check(t, p, unprivileged, out)
			})
		}
	}
}

func check(t *testing.T, p Policy, unprivileged bool, out string) {
	t.Helper()
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Err != "" {
		t.Fatalf("%v %s: %s", err, r.Err, out)
	}
	t.Logf("layers %v, missing %v", r.Result.Layers, r.Result.Missing)
	have := func(layer string) bool { return slices.Contains(r.Result.Layers, layer) }
	if have("chroot") == unprivileged || have("user") == unprivileged || !have("nodump") {
		t.Errorf("layers %v", r.Result.Layers)
	}
	if !have("landlock") || !have("seccomp") {
		t.Skipf("this system does not have them all: missing %v", r.Result.Missing)
	}
	if r.Threads != 0 {
		t.Errorf("%d threads still read the key", r.Threads)
	}
	want := map[string]bool{
		"open": false, "listen": false, "signal": false, "readlink": false,
		"connect": p.Connect, "files": p.Files, "socketpair": p.Pair,
	}
	for what, allowed := range want {
		if got, ok := r.Tried[what]; !ok || allowed != (got == "") {
			t.Errorf("%s: allowed is %v, but it ended in %q", what, allowed, got)
		}
	}
}

// Whatever a role does, it runs no program: the attempt ends it.
func TestExecKills(t *testing.T) {
	for role := range Policies() {
		k := newTask(t, role, true)
		k.Exec = true
		out, err := run(t, k)
		if err == nil || !strings.HasPrefix(out, "before") {
			t.Fatalf("%s: %v, output %q", role, err, out)
		}
		st := err.(*exec.ExitError).Sys().(syscall.WaitStatus)
		if !st.Signaled() || st.Signal() != syscall.SIGSYS {
			t.Errorf("%s: %v, output %q", role, err, out)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, o := range map[string]Options{
		"unknown role":      {Role: "parent", Unprivileged: true},
		"root stays root":   {Role: "queue", Chroot: "/tmp"},
		"no such root":      {Role: "queue", Chroot: "/nonexistent", UID: 1, GID: 1},
		"no such directory": {Role: "queue", Unprivileged: true, Dir: "/nonexistent"},
	} {
		k := newTask(t, "queue", true)
		k.Options = o
		out, err := run(t, k)
		var r report
		if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Err == "" {
			t.Errorf("%s: %v, output %q", name, err, out)
		}
	}
}

// A process that is somebody else but could come back is found out.
func TestProof(t *testing.T) {
	o := Options{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	if os.Getuid() != 0 {
		o.UID++
	}
	if err := o.prove(); err == nil {
		t.Error("the proof did not notice")
	}
}
