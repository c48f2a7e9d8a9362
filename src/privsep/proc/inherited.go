package proc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// mostInherited is how far CloseInherited looks; whoever starts a daemon has few
// files open.
const mostInherited = 4096

// CloseInherited closes what this process got from who started it, beyond the
// standard descriptors: roles, and the commands of users, would get it in turn. It
// knows it by the absence of a flag that all files of ours have.
func CloseInherited() {
	most := uint64(mostInherited)
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err == nil {
		most = min(most, uint64(lim.Cur))
	}
	for fd := 3; fd < int(most); fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = syscall.Close(fd) // it is open
		}
	}
}
