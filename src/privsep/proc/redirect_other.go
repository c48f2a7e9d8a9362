//go:build !linux

package proc

import (
	"os"

	"golang.org/x/sys/unix"
)

// Redirect makes descriptor fd another one for the open file f.
func Redirect(f *os.File, fd int) error {
	return os.NewSyscallError("dup2", unix.Dup2(int(f.Fd()), fd))
}
