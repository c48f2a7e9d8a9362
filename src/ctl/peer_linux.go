package ctl

import "golang.org/x/sys/unix"

// peerCreds is SO_PEERCRED, unix(7).
func peerCreds(fd int) (Creds, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Creds{}, err
	}
	return Creds{u.Uid, u.Gid}, nil
}
