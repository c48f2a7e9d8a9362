package proc

import (
	"os"

	"golang.org/x/sys/unix"
)

// Redirect makes descriptor fd another one for the open file f.
func Redirect(f *os.File, fd int) error {
	return os.NewSyscallError("dup3", unix.Dup3(int(f.Fd()), fd, 0))
}
