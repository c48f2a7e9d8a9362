package priv

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	// x32Bit marks calls of the x32 kind, which have numbers of their own.
	x32Bit = 0x40000000
)

// archCalls are those that this architecture has beside the common ones.
func archCalls() []uint32 {
	return []uint32{
		unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_TIME, unix.SYS_GETRLIMIT, unix.SYS_ARCH_PRCTL,
	}
}

func archIntruderCalls() []uint32 { return []uint32{unix.SYS_FORK, unix.SYS_VFORK} }

func archFileCalls() []uint32 { return []uint32{unix.SYS_NEWFSTATAT} }
