package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// jailVerb is how bench calls itself as the first process of a jail.
const jailVerb = "in-jail"

// jail describes a server that runs in its own mount and process namespaces, on
// a root that is the machine's own with layers above it, so that the machine
// keeps neither files, users nor processes of it.
type jail struct {
	Dir     string            // of this run
	Debs    []string          // Debian packages laid over the machine's root
	Files   map[string]string // written into the root before the start
	Binds   map[string]string // directory in the root → directory of the machine
	Prepare []string          // a shell line before the start
	Command []string
	Output  string // a file of the machine for stdout and stderr
}

// server is a running jail.
type server struct {
	cmd *exec.Cmd
	out *os.File
}

// start runs the jail's command; the namespaces end with it.
func (j *jail) start() (*server, error) {
	if err := os.MkdirAll(filepath.Join(j.Dir, "jail"), 0o755); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	out, err := os.Create(j.Output)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", jailVerb, string(spec))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("starting a jail (root is needed): %w", err)
	}
	return &server{cmd, out}, nil
}

// startedFormat is what a jail writes right before its command starts: when, and
// the CPU seconds that making the jail took.
const startedFormat = "jail: started %d %g\n"

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// started reads what startedFormat wrote.
func (s *server) started() (at time.Time, cpu float64, err error) {
	text, err := os.ReadFile(s.out.Name())
	if err != nil {
		return at, 0, err
	}
	var nano int64
	i := bytes.Index(text, []byte("jail: started"))
	if i < 0 {
		return at, 0, errors.New("the jail has not started its command")
	}
	_, err = fmt.Sscanf(string(text[i:]), startedFormat, &nano, &cpu)
	return time.Unix(0, nano), cpu, err
}

// stop ends the server and returns the CPU seconds of all its processes, those
// that died meanwhile too.
func (s *server) stop() (float64, error) {
	defer s.out.Close()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	st := s.cmd.ProcessState
	return (st.UserTime() + st.SystemTime()).Seconds(), nil
}

// runJail is the first process of a jail: it makes the root, starts the command
// and reaps whatever is orphaned, so that its own account holds all CPU time.
func runJail(ctx context.Context, args []string) error {
	var j jail
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &j) != nil {
		return errors.New("a jail is started by bench itself")
	}
	if err := j.enter(); err != nil {
		return err
	}
	if len(j.Prepare) > 0 {
		c := exec.Command("/bin/sh", "-c", strings.Join(j.Prepare, " && "))
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("preparing: %w", err)
		}
	}
	c := exec.Command(j.Command[0], j.Command[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &used); err != nil {
		return err
	}
	fmt.Printf(startedFormat, time.Now().UnixNano(), seconds(used.Utime)+seconds(used.Stime))
	if err := c.Start(); err != nil {
		return err
	}
	return reap(ctx, c.Process.Pid)
}

// reap waits for every child. At the end of ctx it asks the main one to stop,
// and when that is gone kills the rest.
func reap(ctx context.Context, main int) error {
	signal.Ignore(syscall.SIGHUP)
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(main, syscall.SIGTERM) })
	defer stop()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return nil
		case err != nil:
			return err
		case pid == main:
			_ = syscall.Kill(-1, syscall.SIGTERM)
			stopOthers()
		}
	}
}

// stopOthers kills what is left in the namespace; reap collects it.
func stopOthers() { _ = syscall.Kill(-1, syscall.SIGKILL) }

func (j *jail) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	root, err := j.overlay()
	if err != nil {
		return err
	}
	for _, m := range []struct{ src, dst, fs string }{{"/dev", "/dev", ""}, {"proc", "/proc", "proc"}, {"/tmp", "/tmp", ""}} {
		flags := uintptr(unix.MS_BIND | unix.MS_REC)
		if m.fs != "" {
			flags = 0
		}
		if err := unix.Mount(m.src, root+m.dst, m.fs, flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dst, err)
		}
	}
	for in, out := range j.Binds {
		if err := os.MkdirAll(root+in, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(out, root+in, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding %s: %w", in, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for name, text := range j.Files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// overlay makes the root: the machine's own below, the packages above it, and a
// memory file system for what is written, since a layer may not lie in another.
func (j *jail) overlay() (string, error) {
	top := filepath.Join(j.Dir, "jail")
	if err := unix.Mount("tmpfs", top, "tmpfs", 0, "mode=755"); err != nil {
		return "", fmt.Errorf("tmpfs: %w", err)
	}
	for _, d := range []string{"upper", "work", "root", "packages"} {
		if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
			return "", err
		}
	}
	packages := filepath.Join(top, "packages")
	for _, deb := range j.Debs {
		if out, err := exec.Command("dpkg", "-x", deb, packages).CombinedOutput(); err != nil {
			return "", fmt.Errorf("dpkg -x %s: %v: %s", deb, err, out)
		}
	}
	// /lib and its like are links into /usr; a directory above would hide them.
	const merge = `cd "$0" && for d in bin sbin lib lib64; do
		if [ -d $d ]; then mkdir -p usr/$d && cp -a $d/. usr/$d/ && rm -r $d || exit 1; fi
	done`
	if out, err := exec.Command("/bin/sh", "-c", merge, packages).CombinedOutput(); err != nil {
		return "", fmt.Errorf("merging /usr: %v: %s", err, out)
	}
	root := filepath.Join(top, "root")
	opts := fmt.Sprintf("lowerdir=%s:/,upperdir=%s,workdir=%s",
		packages, filepath.Join(top, "upper"), filepath.Join(top, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, opts); err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	return root, nil
}
