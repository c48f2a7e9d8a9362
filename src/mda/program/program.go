// Package program is mail.maildir(8), mail.mboxfile(8), mail.lmtp(8) and
// mail.mda(8): what delivery agents do by themselves, as programs for mda lines
// and wrappers.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"opensmtpd/src/clock"
	"opensmtpd/src/mda/command"
	"opensmtpd/src/mda/maildir"
	"opensmtpd/src/mda/mbox"
)

// Exit statuses, of sysexits.h where it has one. All but 0 and 75 are failures
// for good to smtpd.
const (
	exitOK       = 0
	exitFailure  = 1
	exitRefused  = 69
	exitTempFail = 75
	exitNotFound = 127 // as a shell has it
)

// Call is one call of a program.
type Call struct {
	Args   []string // without the name
	Env    []string
	Stdin  io.Reader
	Stderr io.Writer
	UID    int // effective
	Clock  clock.Clock
	// Exec becomes another program; it returns only when it cannot.
	Exec func(path string, argv, env []string) error
}

// System returns the call that this process is.
func System() *Call {
	return &Call{
		Args: os.Args[1:], Env: os.Environ(), Stdin: os.Stdin, Stderr: os.Stderr, UID: os.Geteuid(), Clock: clock.NewSystem(), Exec: syscall.Exec,
	}
}

func (c *Call) lookupEnv(key string) (string, bool) {
	for _, kv := range c.Env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v, true
		}
	}
	return "", false
}

func (c *Call) getenv(key string) string {
	v, _ := c.lookupEnv(key)
	return v
}

// fail says what is wrong and returns the exit status.
func (c *Call) fail(status int, name, format string, args ...any) int {
	fmt.Fprintf(c.Stderr, "%s: %s\n", name, fmt.Sprintf(format, args...))
	return status
}

// options reads flags as getopt(3) does: those of bools stand alone, those of
// values have an argument. It returns what follows.
func options(args []string, bools, values string, set func(flag byte, value string)) ([]string, error) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		for i := 1; i < len(arg); i++ {
			switch flag := arg[i]; {
			case strings.IndexByte(bools, flag) >= 0:
				set(flag, "")
			case strings.IndexByte(values, flag) < 0:
				return nil, fmt.Errorf("unknown option -%c", flag)
			case i+1 < len(arg):
				set(flag, arg[i+1:])
				i = len(arg)
			case len(args) == 0:
				return nil, fmt.Errorf("option -%c needs an argument", flag)
			default:
				set(flag, args[0])
				args = args[1:]
				i = len(arg)
			}
		}
	}
	return args, nil
}

// Maildir is mail.maildir [-j] [pathname].
func Maildir(c *Call) int {
	const name = "mail.maildir"
	if c.UID == 0 {
		return c.fail(exitFailure, name, "may not be executed as root")
	}
	t := maildir.Target{Extension: c.getenv("EXTENSION")}
	args, err := options(c.Args, "j", "", func(byte, string) { t.Junk = true })
	switch {
	case err != nil:
		return c.fail(exitFailure, name, "%v", err)
	case len(args) > 1:
		return c.fail(exitFailure, name, "only one maildir is allowed")
	case len(args) == 1:
		t.Dir = args[0]
	default:
		home := c.getenv("HOME")
		if home == "" {
			return c.fail(exitFailure, name, "HOME is not set")
		}
		t.Dir = home + "/Maildir"
	}
	s := maildir.NewStore(maildir.System{}, maildir.NewNamer(c.Clock))
	m := s.Begin(t)
	if m.Err == nil {
		if _, err := io.Copy(m, c.Stdin); err != nil && m.Err == nil {
			m.Err = err
		}
	}
	s.Commit([]*maildir.Message{m})
	switch {
	case m.Err == nil:
		return exitOK
	case errors.Is(m.Err, maildir.ErrPath), errors.Is(m.Err, syscall.ENAMETOOLONG):
		return c.fail(exitFailure, name, "%v", m.Err)
	}
	return c.fail(exitTempFail, name, "%v", m.Err)
}

// MboxFile is mail.mboxfile [-f sender] file.
func MboxFile(c *Call) int {
	const name = "mail.mboxfile"
	if c.UID == 0 {
		return c.fail(exitFailure, name, "may not be executed as root")
	}
	m := &mbox.Message{From: "<unknown>", Body: c.Stdin, QuoteAll: true}
	args, err := options(c.Args, "", "f", func(_ byte, v string) { m.From = v })
	switch {
	case err != nil:
		return c.fail(exitFailure, name, "%v", err)
	case len(args) != 1:
		return c.fail(exitFailure, name, "one mboxfile is wanted")
	case strings.ContainsAny(m.From, "\r\n"):
		return c.fail(exitFailure, name, "sender is more than a line")
	case args[0] == os.DevNull:
		if _, err := io.Copy(io.Discard, c.Stdin); err != nil {
			return c.fail(exitTempFail, name, "%v", err)
		}
		return exitOK
	}
	f, err := mbox.Open(args[0], true)
	if err != nil {
		return c.fail(exitTempFail, name, "%v", err)
	}
	defer f.Close()
	mbox.Append(context.Background(), mbox.System{File: f}, c.Clock, []*mbox.Message{m})
	if m.Err != nil {
		return c.fail(exitTempFail, name, "%v", m.Err)
	}
	return exitOK
}

// MDA is mail.mda program: it becomes the program. No shell sees the line: in
// an mda command a shell has already put the sender into it.
func MDA(c *Call) int {
	const name = "mail.mda"
	if c.UID == 0 {
		return c.fail(exitFailure, name, "may not be executed as root")
	}
	args, err := options(c.Args, "", "", nil)
	switch {
	case err != nil:
		return c.fail(exitFailure, name, "%v", err)
	case len(args) == 0:
		return c.fail(exitFailure, name, "command required")
	case len(args) > 1:
		return c.fail(exitFailure, name, "only one command is supported")
	}
	argv, err := command.Words(args[0], c.getenv)
	switch {
	case errors.Is(err, command.ErrShell):
		// The administrator's mistake: the mail waits for him.
		return c.fail(exitTempFail, name, "%v: write it as the mda command itself", err)
	case err != nil:
		return c.fail(exitFailure, name, "%v", err)
	case len(argv) == 0:
		return c.fail(exitFailure, name, "command required")
	}
	err = c.exec(argv)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return c.fail(exitNotFound, name, "%s: %v", argv[0], err)
	}
	return c.fail(exitTempFail, name, "%s: %v", argv[0], err)
}

// exec looks for the program in PATH, as a shell does.
func (c *Call) exec(argv []string) error {
	if strings.Contains(argv[0], "/") {
		return c.Exec(argv[0], argv, c.Env)
	}
	err := error(syscall.ENOENT)
	for dir := range strings.SplitSeq(c.getenv("PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		if e := c.Exec(dir+"/"+argv[0], argv, c.Env); !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, syscall.ENOTDIR) {
			err = e
		}
	}
	return err
}
