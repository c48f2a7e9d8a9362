package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"opensmtpd/src/conf/hcl"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/role/parent"
	"opensmtpd/src/version"
)

// exitStatus is the status of a daemon that did not come up, and has said why.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Config in the Hello of parent.
type parentConfig struct {
	Options parent.Options
	Detach  bool // in the background: a status descriptor comes along
}

// launch makes this process the parent, or starts one in the background and
// returns when that serves.
func launch(ctx context.Context, o options, stderr io.Writer) error {
	proc.CloseInherited()
	var as *syscall.Credential
	switch {
	case o.state != "":
		var err error
		if as, err = owner(o.state); err != nil {
			return err
		}
	case os.Geteuid() != 0:
		return errors.New("need root privileges (or a directory of your own: -S dir)")
	}
	c := parentConfig{Detach: !o.foreground}
	c.Options = parent.Options{
		Conf: o.conf, Macros: o.macros, Paths: o.paths, Stderr: o.stderr, Verbose: o.verbose,
		Trace: o.traces, Paused: o.paused,
	}
	if c.Detach {
		var err error
		path, _ := hcl.Path(o.conf)
		if c.Options.Conf, err = filepath.Abs(path); err != nil {
			return err
		}
		c.Options.Conf = strings.TrimSuffix(o.conf, path) + c.Options.Conf
	}
	if !c.Detach {
		if err := become(as); err != nil {
			return err
		}
		if proc.SetTitle(proc.Title(proc.ParentTitle)) {
			return status(parent.Run(ctx, c.Options, stderr, func() {}))
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	hello := &msg.Hello{Build: version.ID(), Role: string(proc.Parent), Config: text}
	if c.Detach {
		return background(hello, as, stderr)
	}
	return proc.Become(proc.ParentTitle, hello)
}

// status makes an error of an exit status that is one.
func status(code int) error {
	if code == proc.ExitOK {
		return nil
	}
	return exitStatus(code)
}

// owner makes the state directory if it is missing, and returns whom root must
// become: its owner. nil: nobody.
func owner(dir string) (*syscall.Credential, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	me := uint32(os.Geteuid())
	switch {
	case !ok || st.Uid == me:
		return nil, nil
	case me != 0:
		return nil, fmt.Errorf("%s belongs to uid %d: -S needs a directory of your own", dir, st.Uid)
	}
	return &syscall.Credential{Uid: st.Uid, Gid: st.Gid, Groups: []uint32{st.Gid}}, nil
}

// become changes the user of this process, which then runs another program:
// package syscall changes all threads.
func become(as *syscall.Credential) error {
	if as == nil {
		return nil
	}
	if err := syscall.Setgroups([]int{int(as.Gid)}); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(int(as.Gid)); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	return os.NewSyscallError("setuid", syscall.Setuid(int(as.Uid)))
}

// readyByte is what a parent in the background sends once it serves.
const readyByte = 'r'

// background starts parent in a session of its own and waits until it serves.
// Its complaints go to our stderr until then.
func background(hello *msg.Hello, as *syscall.Credential, stderr io.Writer) error {
	file, err := proc.Handoff(hello)
	if err != nil {
		return err
	}
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		file.Close()
		return err
	}
	defer ready.Close()
	words, wordsEnd, err := os.Pipe()
	if err != nil {
		file.Close()
		readyEnd.Close()
		return err
	}
	defer words.Close()
	process, err := proc.Reexec(proc.Start{
		Title: proc.ParentTitle, Files: []*os.File{file, readyEnd}, Stdin: os.Stdin, Stderr: wordsEnd,
		Env: os.Environ(), Credential: as, Session: true,
	})
	wordsEnd.Close()
	if err != nil {
		return err
	}
	// Both end when parent serves, or is gone.
	if _, err := io.Copy(stderr, words); err != nil {
		return err
	}
	b := make([]byte, 1)
	if n, _ := ready.Read(b); n == 1 && b[0] == readyByte {
		return process.Release()
	}
	st, err := process.Wait()
	if err != nil {
		return err
	}
	if code := st.ExitCode(); code > 0 {
		return exitStatus(code)
	}
	return fmt.Errorf("the daemon did not come up: %v", st)
}
