package priv

import (
	"os"

	"golang.org/x/sys/unix"
)

// sandbox adds the layers of OpenBSD. Core dumps of a process that changed its
// user are off by themselves.
func (o *Options) sandbox(p Policy, r *Result) error {
	if p.Files {
		if err := unix.Unveil(o.workDir(), "rwc"); err != nil {
			return os.NewSyscallError("unveil", err)
		}
		if err := unix.UnveilBlock(); err != nil {
			return os.NewSyscallError("unveil", err)
		}
		r.have("unveil")
	}
	if err := unix.Pledge(p.Promises, ""); err != nil {
		return os.NewSyscallError("pledge", err)
	}
	r.have("pledge")
	return nil
}
