// Package command runs delivery commands: sh -c with the message on its standard
// input, a process group of its own, and a limit on its time.
//
// It starts processes by package os: a delivery agent has nothing that os/exec
// would keep from a child, and needs the process group and nothing else.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"opensmtpd/src/clock"
)

// Command is one run.
type Command struct {
	Script string   // for sh -c
	Env    []string // whole
	Dir    string   // where it runs; "/" when it cannot be entered
	// The message: Head, then Body unless it is nil. A message that is in Head and
	// fits into a pipe counts as read however little the command reads.
	Head    []byte
	Body    io.Reader
	Timeout time.Duration
}

// Outcome is how a run ended.
type Outcome struct {
	Exit      int            // status, when Signal is 0
	Signal    syscall.Signal // that ended it
	TimedOut  bool           // the signal was ours, for its time was over
	Cancelled bool           // the signal was ours, for ctx had ended
	Unread    bool           // it ended well without having read the whole message
	LastLine  string         // of what it wrote to stdout and stderr, whole lines or not
	Err       error          // it could not be run, or the body could not be read
}

// Run runs a command to its end. What it leaves running in the background stays,
// unless it has to be killed: then its process group goes.
func Run(ctx context.Context, c clock.Clock, cmd Command) (out Outcome) {
	in, stdin, err := os.Pipe()
	if err != nil {
		return Outcome{Err: err}
	}
	defer stdin.Close()
	stdout, output, err := os.Pipe()
	if err != nil {
		in.Close()
		return Outcome{Err: err}
	}
	defer stdout.Close()
	rest, err := prefill(stdin, cmd.Head)
	if err != nil {
		in.Close()
		output.Close()
		return Outcome{Err: err}
	}
	p, err := start(cmd, in, output)
	in.Close()
	output.Close()
	if err != nil {
		return Outcome{Err: err}
	}
	tail := make(chan string, 1)
	go func() { tail <- lastLine(stdout) }()
	fed := feed(stdin, rest, cmd.Body)
	exited := make(chan struct{})
	var state *os.ProcessState
	go func() {
		state, err = p.Wait()
		close(exited)
	}()
	expired, cancel := c.After(cmd.Timeout)
	defer cancel()
	out.wait(ctx, p.Pid, stdin, fed, exited, expired)
	// A child in the background may hold the other end: what it writes later is
	// not for us.
	stdout.SetReadDeadline(time.Unix(1, 0))
	out.LastLine = <-tail
	if err != nil {
		out.Err = err
		return out
	}
	ws, _ := state.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		out.Signal = ws.Signal()
	} else {
		out.Exit = ws.ExitStatus()
	}
	return out
}

// prefill puts into the pipe what it takes at once and returns the rest.
func prefill(stdin *os.File, p []byte) ([]byte, error) {
	raw, err := stdin.SyscallConn()
	if err != nil {
		return nil, err
	}
	err2 := raw.Control(func(fd uintptr) {
		for len(p) > 0 {
			var n int
			n, err = syscall.Write(int(fd), p)
			p = p[max(n, 0):]
			if err != nil && err != syscall.EINTR {
				return
			}
		}
	})
	if err == syscall.EAGAIN {
		err = nil
	}
	if err == nil {
		err = err2
	}
	return p, err
}

// feed writes the rest of the message and closes stdin; the channel is nil when
// that is done at once.
func feed(stdin *os.File, rest []byte, body io.Reader) <-chan error {
	if len(rest) == 0 && body == nil {
		stdin.Close()
		return nil
	}
	fed := make(chan error, 1)
	go func() {
		_, err := stdin.Write(rest)
		if err == nil && body != nil {
			_, err = io.Copy(stdin, body)
		}
		fed <- errors.Join(err, stdin.Close())
	}()
	return fed
}

func start(cmd Command, in, output *os.File) (*os.Process, error) {
	attr := &os.ProcAttr{
		Dir:   cmd.Dir,
		Env:   cmd.Env,
		Files: []*os.File{in, output, output},
		Sys:   ownGroup(),
	}
	if st, err := os.Stat(cmd.Dir); err != nil || !st.IsDir() {
		attr.Dir = "/"
	}
	argv := []string{"sh", "-c", cmd.Script}
	p, err := os.StartProcess("/bin/sh", argv, attr)
	if errors.Is(err, os.ErrPermission) && attr.Dir != "/" {
		attr.Dir = "/"
		p, err = os.StartProcess("/bin/sh", argv, attr)
	}
	return p, err
}

// wait returns when the command has exited and nothing is fed to it any more,
// and kills it when it must.
func (out *Outcome) wait(ctx context.Context, pid int, stdin *os.File, fed <-chan error, exited, expired <-chan struct{}) {
	kill := func() { syscall.Kill(-pid, syscall.SIGKILL) }
	done := ctx.Done()
	for exited != nil {
		select {
		case <-exited:
			exited = nil
		case err := <-fed:
			fed = nil
			if out.feed(err); out.Err != nil {
				kill()
			}
		case <-expired:
			out.TimedOut, expired = true, nil
			kill()
		case <-done:
			out.Cancelled, done = true, nil
			kill()
		}
	}
	if fed == nil {
		return
	}
	// Nobody reads any more, unless a child has the other end: that one may go on
	// as long as the time lasts.
	if expired != nil && done != nil {
		select {
		case err := <-fed:
			out.feed(err)
			return
		case <-expired:
		case <-done:
		}
	}
	kill()
	stdin.SetWriteDeadline(time.Unix(1, 0))
	out.feed(<-fed)
}

func (out *Outcome) feed(err error) {
	switch {
	case err == nil:
	case errors.Is(err, syscall.EPIPE), errors.Is(err, os.ErrDeadlineExceeded):
		out.Unread = true
	default:
		out.Err = fmt.Errorf("message could not be fed to the command: %w", err)
	}
}

// longestLine is the most that is kept of a line, in bytes.
const longestLine = 512

// lastLine reads to the end, or to the deadline and what was written before it,
// and returns the last line that is not empty, in printable form.
func lastLine(r *os.File) string {
	var t tailLine
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		t.write(buf[:n])
		if err != nil {
			break
		}
	}
	drain(r, buf, &t)
	return t.String()
}

// drain takes what is in the pipe without waiting, up to a pipe's worth.
func drain(r *os.File, buf []byte, t *tailLine) {
	raw, err := r.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		for range 1 << 20 / len(buf) {
			n, err := syscall.Read(int(fd), buf)
			if n > 0 {
				t.write(buf[:n])
			}
			if err == syscall.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
		}
	})
}

type tailLine struct {
	line, last []byte
}

func (t *tailLine) write(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		piece := p
		if i >= 0 {
			piece = p[:i]
		}
		t.line = append(t.line, piece[:min(len(piece), longestLine-len(t.line))]...)
		if i < 0 {
			return
		}
		if len(t.line) > 0 {
			t.last = append(t.last[:0], t.line...)
			t.line = t.line[:0]
		}
		p = p[i+1:]
	}
}

// String returns the last line; what does not print in it is written as a
// backslash and three octal digits.
func (t *tailLine) String() string {
	line := t.last
	if len(t.line) > 0 {
		line = t.line
	}
	var b strings.Builder
	for _, r := range strings.TrimRight(string(line), "\r") {
		if r < 0x20 && r != '\t' || r == 0x7f || r == 0xfffd || r == 0x2028 || r == 0x2029 || r >= 0x80 && r < 0xa0 {
			fmt.Fprintf(&b, `\%03o`, r&0xff)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
