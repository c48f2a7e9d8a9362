package imsg

import (
	"fmt"
	"os"
	"syscall"
)

// Conn is one end of a socketpair. One goroutine may call Next; any may call
// Put. Its writer goroutine lives until Close.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	in   reader
	out  writer
	done chan struct{} // closed when the writer has ended
}

// NewConn takes over f, one end of a stream socketpair that does not block.
func NewConn(f *os.File) (*Conn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("not a socket: %w", err)
	}
	c := &Conn{file: f, raw: raw, done: make(chan struct{})}
	c.in.init(raw)
	c.out.init(raw)
	go func() {
		defer close(c.done)
		c.out.run()
	}()
	return c, nil
}

// Close ends the connection. What was not written yet is lost, what arrived
// but was not taken by Next too; see Flush. Next and Put fail from now on.
func (c *Conn) Close() {
	c.out.end(ErrClosed)
	c.file.Close()
	<-c.done
	c.out.dropFiles()
}

// Pair returns the two ends of a new stream socketpair, for NewConn in this
// process and in another.
func Pair() (*os.File, *os.File, error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			syscall.Close(fds[0])
			syscall.Close(fds[1])
			return nil, nil, os.NewSyscallError("fcntl", err)
		}
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// Inherited returns descriptor fd, which the parent left open for this
// process, for NewConn.
func Inherited(fd int) (*os.File, error) {
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), "inherited")
	st, err := f.Stat()
	if err == nil && st.Mode()&os.ModeSocket == 0 {
		err = fmt.Errorf("descriptor %d is not a socket", fd)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
