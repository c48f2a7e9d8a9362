package ctl

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The errors of a socket whose other side is gone.
const (
	errRefused = unix.ECONNREFUSED
	errPipe    = unix.EPIPE
	errReset   = unix.ECONNRESET
	// errLongPath is of a path that no socket can have.
	errLongPath = unix.EINVAL
)

// sendFile writes b with a descriptor riding on it.
func sendFile(c *net.UnixConn, b []byte, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	err = raw.Control(func(fd uintptr) {
		n, _, err = c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	})
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}

// rightsReader reads a socket and keeps the last descriptor that came along. A
// plain read would drop it.
type rightsReader struct {
	c    *net.UnixConn
	file *os.File
}

func (r *rightsReader) Read(p []byte) (int, error) {
	var oob [256]byte
	n, oobn, _, _, err := r.c.ReadMsgUnix(p, oob[:])
	if oobn > 0 {
		r.keep(oob[:oobn])
	}
	if n == 0 && err == nil && len(p) > 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}

// keep takes the descriptors out of a control message and closes all but the
// last.
func (r *rightsReader) keep(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if r.file != nil {
				r.file.Close()
			}
			unix.CloseOnExec(fd)
			r.file = os.NewFile(uintptr(fd), "session")
		}
	}
}
