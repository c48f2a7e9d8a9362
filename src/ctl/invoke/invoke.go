// Package invoke is how the programs that one binary serves were called: the
// name, the arguments, where to read and write. A test calls a program through
// it as a shell would.
package invoke

import (
	"fmt"
	"io"

	"opensmtpd/src/clock"
	"opensmtpd/src/paths"
)

// Exit statuses of sysexits(3) that sendmail's callers know.
const (
	OK          = 0
	Failure     = 1
	Usage       = 64
	DataErr     = 65
	NoUser      = 67
	NoHost      = 68
	Unavailable = 69
	Software    = 70
	OSErr       = 71
	CantCreate  = 73
	IOErr       = 74
	TempFail    = 75
	NoPerm      = 77
	Config      = 78
	// UsageCtl is smtpctl's own for a command it does not know.
	UsageCtl = 255
)

// Call is one invocation of a program.
type Call struct {
	Name   string   // base name of argv[0]
	Args   []string // without argv[0]
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	SetID  bool // was given rights that the user does not have, at its start
	UID    int  // the real user
	Clock  clock.Clock
}

// Errorf complains on stderr, in the name of the program.
func (c *Call) Errorf(format string, args ...any) {
	fmt.Fprintf(c.Stderr, c.Name+": "+format+"\n", args...)
}

// Places returns where the daemon's things are; dir is the argument of -S, or
// empty.
func (c *Call) Places(dir string) (paths.Set, error) {
	return paths.Resolve(dir, c.Getenv, c.SetID)
}
