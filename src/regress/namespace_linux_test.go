package regress

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// spoolEnv names the directory that reexec has made for spool.
const spoolEnv = "REGRESS_SPOOL"

// reexec runs this test program again as root of its own namespaces.
func reexec() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("the privileged tests need root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "smtpd-regress-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "REGRESS=inside", spoolEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// apart makes a process the first of its own process namespace, with mounts of
// its own.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
}

// furnish makes the inside of the namespaces: private mounts, accounts, homes, a
// spool on the machine's disk, a network of loopback alone.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %v: %s (is iproute2 installed?)", err, out)
	}
	if err := unix.Sethostname([]byte("mail.regress.test")); err != nil {
		return err
	}
	for _, dir := range []string{"/home", "/var/mail", "/var/empty", "/etc/mail", "/run"} {
		if err := tmpfs(dir); err != nil {
			return err
		}
	}
	if err := os.Chmod("/var/mail", 0o2775); err != nil {
		return err
	}
	if err := spool(); err != nil {
		return err
	}
	return accounts()
}

// tmpfs covers dir. A directory that is missing is made in the machine's tree,
// empty; there is no other way to mount on it.
func tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", dir, err)
	}
	return nil
}

// spool puts a directory of the machine's disk under /var/spool.
func spool() error {
	dir := os.Getenv(spoolEnv)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dir, "/var/spool", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

func accounts() error {
	for _, file := range []string{"passwd", "group"} {
		text, err := os.ReadFile("/etc/" + file)
		if err != nil {
			return err
		}
		var b strings.Builder
		b.Write(text)
		for _, u := range users {
			if strings.Contains("\n"+string(text), "\n"+u.name+":") {
				continue
			}
			if file == "passwd" {
				fmt.Fprintf(&b, "%s:x:%d:%d::%s:/bin/sh\n", u.name, u.id, u.id, u.home)
			} else {
				fmt.Fprintf(&b, "%s:x:%d:\n", u.name, u.id)
			}
		}
		own := filepath.Join("/run", file)
		if err := os.WriteFile(own, []byte(b.String()), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(own, "/etc/"+file, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("/etc/%s: %w", file, err)
		}
	}
	return homes()
}

func homes() error {
	for _, u := range users {
		if !strings.HasPrefix(u.home, "/home/") {
			continue
		}
		if err := os.Mkdir(u.home, 0o700); err != nil {
			return err
		}
		if err := os.Chown(u.home, u.id, u.id); err != nil {
			return err
		}
	}
	return nil
}
