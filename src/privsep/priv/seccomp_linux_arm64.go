package priv

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32Bit    = 0xffffffff // there is no second kind of calls
)

// archCalls are those that this architecture has beside the common ones.
func archCalls() []uint32 { return []uint32{unix.SYS_GETRLIMIT} }

func archIntruderCalls() []uint32 { return nil }

func archFileCalls() []uint32 { return []uint32{unix.SYS_FSTATAT} }
