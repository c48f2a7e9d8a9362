package imsg

import "golang.org/x/sys/unix"

func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func recvmsg(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC)
	return n, oobn, flags, err
}

// sendmsg writes p with the control message right, which may be nil.
func sendmsg(fd int, p, right []byte) (int, error) {
	if right == nil {
		return unix.SendmsgN(fd, p, nil, nil, unix.MSG_NOSIGNAL)
	}
	return unix.SendmsgN(fd, p, right, nil, unix.MSG_NOSIGNAL)
}
