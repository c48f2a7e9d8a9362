package parent

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mlog"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// lastWords is how long what a program has left in its stderr may take to be
// read; a child of its that holds the other end is not waited for.
const lastWords = time.Second

// run is one life of a program.
type run struct {
	process *os.Process
	since   time.Duration // when it was started, monotonic
	stderr  *os.File      // our end
	logged  chan struct{} // closed when stderr has been read to its end
	exited  chan struct{} // closed when the process was reaped
	how     string        // it ended, after exited
}

// launch starts a program and returns its life, and the pipe to it: one end of a
// socket whose other end is both its standard input and its standard output.
func (ps *programs) launch(spec programSpec) (*run, *os.File, error) {
	ours, theirs, err := imsg.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	stderr, w, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	defer w.Close()
	process, err := spec.exec(theirs, w)
	if err != nil {
		ours.Close()
		stderr.Close()
		return nil, nil, err
	}
	r := &run{process: process, since: ps.clock.Mono(), stderr: stderr, logged: make(chan struct{}), exited: make(chan struct{})}
	go func() {
		defer close(r.logged)
		logLines(stderr, spec.Name, (*mlog.Logger).ProgramSaid, ps.log)
	}()
	go func() {
		defer close(r.exited)
		st, err := process.Wait()
		r.how = obituary(st, err)
	}()
	return r, ours, nil
}

// exec starts the process: a session and process group of its own, nothing of
// ours but its three descriptors. The socket blocks for it, as every program
// expects of its standard input.
func (s *programSpec) exec(stdio, stderr *os.File) (*os.Process, error) {
	if err := block(stdio); err != nil {
		return nil, err
	}
	path, argv := s.Path, s.Argv
	if path == "" {
		path, argv = "/bin/sh", []string{"sh", "-c", "exec " + s.Command}
	}
	return os.StartProcess(path, argv, &os.ProcAttr{
		Dir: "/", Env: programEnvironment(), Files: []*os.File{stdio, stdio, stderr},
		Sys: &syscall.SysProcAttr{Setsid: true, Chroot: s.Chroot, Credential: s.Credential},
	})
}

// block makes reads and writes of a descriptor wait.
func block(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var no error
	err = raw.Control(func(fd uintptr) { no = syscall.SetNonblock(int(fd), false) })
	return errors.Join(err, no)
}

// kill kills the program, and with it what it has started.
func (r *run) kill() { _ = syscall.Kill(-r.process.Pid, syscall.SIGKILL) }

// end asks the program to end, and kills it when it does not.
func (r *run) end(c clock.Clock) {
	_ = syscall.Kill(-r.process.Pid, syscall.SIGTERM)
	late, cancel := c.After(programGrace)
	defer cancel()
	select {
	case <-r.exited:
	case <-late:
		r.kill()
		<-r.exited
	}
}

// finish does what remains after the process has gone.
func (r *run) finish(c clock.Clock) {
	r.kill() // what it left behind
	late, cancel := c.After(lastWords)
	defer cancel()
	select {
	case <-r.logged:
	case <-late:
	}
	r.stderr.Close()
	<-r.logged
}

// obituary tells how a process ended.
func obituary(st *os.ProcessState, err error) string {
	if err != nil {
		return "lost: " + err.Error()
	}
	const notFound = 127 // sh(1)
	if st.ExitCode() == notFound {
		return st.String() + ": not found, it seems"
	}
	return st.String()
}

// programEnvironment is what programs get: as the daemon's own processes, but
// their names are looked for first where filters and tables are installed.
func programEnvironment() []string {
	env := environment()
	env[0] = "PATH=" + strings.Join(libExecs(), ":") + ":" + strings.TrimPrefix(env[0], "PATH=")
	return env
}

// libExecs lists the directories of filter and table programs.
func libExecs() []string { return paths.LibExecs(executable()) }

// findProgram returns the path of a program of those directories, the first of
// them when none has it.
func findProgram(name string) string {
	for _, dir := range libExecs() {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && !fi.IsDir() {
			return path
		}
	}
	return filepath.Join(libExec(), name)
}

// programOf reads a ProgramEnd.
func programOf(r proc.Request) (string, error) {
	var m msg.ProgramEnd
	err := r.Parse(&m)
	return m.Identity, err
}

// logLines logs what comes from r, until its end.
func logLines(r io.Reader, name string, say func(l *mlog.Logger, name, line string), log *mlog.Logger) {
	in := bufio.NewReaderSize(r, maxOutput)
	for {
		line, _, err := in.ReadLine()
		if err != nil {
			return
		}
		say(log, name, string(line))
	}
}
