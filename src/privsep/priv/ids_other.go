//go:build !linux

package priv

import (
	"os"
	"syscall"
)

// setIDs sets real, effective and saved ids: on the BSDs setuid and setgid by
// root do.
func setIDs(uid, gid int) error {
	if err := syscall.Setgid(gid); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return os.NewSyscallError("setuid", err)
	}
	return nil
}
