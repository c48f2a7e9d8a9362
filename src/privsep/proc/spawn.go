package proc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"opensmtpd/src/clock"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// titlePrefix begins the argv[0] of every process of the daemon. Nobody starts
// smtpd under such a name by hand, so it tells a re-executed process.
const titlePrefix = "smtpd: "

// Title returns what ps(1) shows of a process.
func Title(name string) string { return titlePrefix + name }

// ParentTitle is the name in the parent's title, OpenSMTPD's.
const ParentTitle = "[priv]"

// IsReexec tells from its arguments that this process was started by smtpd
// itself.
func IsReexec(args []string) bool {
	return len(args) == 1 && strings.HasPrefix(args[0], titlePrefix)
}

// A re-executed process finds its Hello at descriptor 3, or, when it took the
// place of the process that started it, where the environment says.
const (
	helloFD  = 3
	helloEnv = "SMTPD_HELLO"
)

// Start says how to re-execute smtpd.
type Start struct {
	Title  string     // without "smtpd: "
	Files  []*os.File // descriptors 3 and up
	Stdin  *os.File   // nil: the null device; so for the next two
	Stdout *os.File
	Stderr *os.File
	Env    []string
	// Credential is whom the process becomes before it runs; nil: nobody else.
	Credential *syscall.Credential
	// Session makes it the leader of a session of its own.
	Session bool
}

// Self returns the path of the running program: on Linux a link to the very
// file, even when another has taken its place.
func Self() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// Reexec starts smtpd again. It closes Files in this process, whatever happens.
func Reexec(s Start) (*os.Process, error) {
	defer func() {
		for _, f := range s.Files {
			f.Close()
		}
	}()
	self, err := Self()
	if err != nil {
		return nil, fmt.Errorf("finding the program: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{s.Stdin, s.Stdout, s.Stderr}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	return os.StartProcess(self, []string{Title(s.Title)}, &os.ProcAttr{
		Dir: "/", Env: s.Env, Files: append(files, s.Files...),
		Sys: &syscall.SysProcAttr{Credential: s.Credential, Setsid: s.Session},
	})
}

// Handoff returns a file from which a process, which gets it as the first of
// Files, will read h. It is for those that need no more: parent and agents.
func Handoff(h *msg.Hello) (*os.File, error) {
	ours, theirs, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	conn, err := imsg.NewConn(ours)
	if err != nil {
		ours.Close()
		theirs.Close()
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Put(imsg.Header{Type: uint16(msg.TypeHello)}, h, nil); err != nil {
		theirs.Close()
		return nil, err
	}
	conn.WaitBelow(0)
	return theirs, nil
}

// Become runs the program again in this very process, under another title; who
// waits for the process sees no difference. It returns only when that failed.
func Become(title string, h *msg.Hello) error {
	f, err := Handoff(h)
	if err != nil {
		return err
	}
	defer f.Close()
	self, err := Self()
	if err != nil {
		return fmt.Errorf("finding the program: %w", err)
	}
	fd, err := syscall.Dup(int(f.Fd())) // without close-on-exec
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d", helloEnv, fd))
	return os.NewSyscallError("exec", syscall.Exec(self, []string{Title(title)}, env))
}

// Child is a role's process as its parent sees it.
type Child struct {
	Role    Role
	Peer    *Peer
	process *os.Process
	done    chan struct{}
	state   *os.ProcessState // after done
}

// Spawn starts the process of a role and returns when it runs. Its Peer must be
// served, and Hello called, before anything else.
func Spawn(role Role, s Start, c clock.Clock, log *mlog.Logger) (*Child, error) {
	ours, theirs, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	s.Title, s.Files = string(role), []*os.File{theirs}
	process, err := Reexec(s)
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	conn, err := imsg.NewConn(ours)
	if err != nil {
		ours.Close()
		return nil, errors.Join(err, process.Kill())
	}
	ch := &Child{Role: role, Peer: NewPeer(Parent, role, conn, c, log), process: process, done: make(chan struct{})}
	go ch.reap()
	return ch, nil
}

// reap ends when the process does.
func (c *Child) reap() {
	defer close(c.done)
	c.state, _ = c.process.Wait()
}

// Done is closed when the process has ended and was reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Pid returns the process id.
func (c *Child) Pid() int { return c.process.Pid }

// Kill ends the process at once.
func (c *Child) Kill() { _ = c.process.Kill() }

// Exited tells, after Done, how the process ended, in the words of the log;
// "" when it ended as it should.
func (c *Child) Exited() string {
	if c.state == nil {
		return "lost"
	}
	st, ok := c.state.Sys().(syscall.WaitStatus)
	switch {
	case ok && st.Signaled():
		return fmt.Sprintf("terminated; signal %d (%v)", st.Signal(), st.Signal())
	case c.state.ExitCode() != 0:
		return fmt.Sprintf("exited abnormally with status %d", c.state.ExitCode())
	}
	return ""
}
