//go:build freebsd || darwin

package ctl

import "golang.org/x/sys/unix"

// peerCreds is LOCAL_PEERCRED, unix(4). Its level, SOL_LOCAL, is 0.
func peerCreds(fd int) (Creds, error) {
	x, err := unix.GetsockoptXucred(fd, 0, unix.LOCAL_PEERCRED)
	if err != nil {
		return Creds{}, err
	}
	c := Creds{UID: x.Uid}
	if x.Ngroups > 0 {
		c.GID = x.Groups[0]
	}
	return c, nil
}
