package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/paths"
)

// TestSetGID runs the program set-gid as an ordinary user: it gives the group
// up, and does not follow the environment to a socket of the user's choice.
func TestSetGID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a program set-gid needs root")
	}
	if _, err := os.Stat(paths.System().Socket); err == nil {
		t.Skip("a mail server runs here")
	}
	dir, err := os.MkdirTemp("/tmp", "gid")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Flags&unix.ST_NOSUID != 0 {
		t.Skipf("set-id bits mean nothing in %s", dir)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const user, group = 54321, 54322
	path := program(t, dir, "smtpctl")
	if err := os.Chown(path, 0, group); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "smtpd.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(filepath.Join(dir, "smtpd.sock"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"show", "queue"}, {"-S", dir, "show", "queue"}} {
		c := exec.Command(path, args...)
		c.Env = []string{paths.StateEnv + "=" + dir}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, _ := c.CombinedOutput()
		if !strings.Contains(string(out), "doesn't seem to be running") {
			t.Errorf("%q: %s", args, out)
		}
	}

	// While it waits for its input it has no group but the user's.
	c := exec.Command(path, "encrypt")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "Gid:\t54321\t54321\t54321\t54321\n"; !strings.Contains(string(status), want) {
		t.Errorf("%s", status)
	}
	in.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}
