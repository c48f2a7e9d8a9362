//go:build !linux

package imsg

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func socketpair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// recvmsg holds the lock that keeps a child from being started between the
// arrival of a descriptor and its close-on-exec flag.
func recvmsg(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, 0)
	if err != nil || oobn == 0 {
		return n, oobn, flags, err
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, f := range fds {
			unix.CloseOnExec(f)
		}
	}
	return n, oobn, flags, nil
}

// sendmsg writes p with the control message right, which may be nil. Go
// ignores SIGPIPE on descriptors other than 1 and 2.
func sendmsg(fd int, p, right []byte) (int, error) {
	return unix.SendmsgN(fd, p, right, nil, 0)
}
