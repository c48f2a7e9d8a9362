package priv

import (
	"os"
	"syscall"
)

// setIDs sets real, effective and saved ids.
func setIDs(uid, gid int) error {
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return nil
}
