package ctl

import "net"

// Creds are what the kernel tells of the process behind a Unix socket, at the
// moment when it connected.
type Creds struct{ UID, GID uint32 }

// PeerCreds finds out who is behind a connection; tests give another.
type PeerCreds func(*net.UnixConn) (Creds, error)

// KernelCreds asks the kernel.
func KernelCreds(c *net.UnixConn) (Creds, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Creds{}, err
	}
	var creds Creds
	var inner error
	if err := raw.Control(func(fd uintptr) { creds, inner = peerCreds(int(fd)) }); err != nil {
		return Creds{}, err
	}
	return creds, inner
}
