package ctl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// peerCreds is SO_PEERCRED, getsockopt(2), whose struct sockpeercred begins with
// uid and gid. The kernel fills as much as there is room for; of the options
// that package unix reads, an IPMreq has the eight bytes wanted.
func peerCreds(fd int) (Creds, error) {
	m, err := unix.GetsockoptIPMreq(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Creds{}, err
	}
	return Creds{binary.NativeEndian.Uint32(m.Multiaddr[:]), binary.NativeEndian.Uint32(m.Interface[:])}, nil
}
