package imsg

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	readSize  = 32 << 10 // of the buffer at rest
	keepSize  = 256 << 10
	maxQueued = 64 // descriptors that came and whose frames did not yet
)

// reader takes bytes and descriptors from the socket and cuts frames.
type reader struct {
	raw   syscall.RawConn
	buf   []byte
	r, w  int // what of buf is not yet taken
	files []*os.File
	oob   []byte

	// Of the receive in progress; fields so that nothing is allocated for it.
	fill    func(fd uintptr) bool
	n, oobn int
	flags   int
	err     error
}

func (in *reader) init(raw syscall.RawConn) {
	in.raw = raw
	in.oob = make([]byte, unix.CmsgSpace(4*maxQueued/8))
	in.fill = in.receive
}

// Next returns the next frame, io.EOF when the peer has closed between two
// frames.
func (c *Conn) Next() (Frame, error) {
	f, err := c.in.next()
	if err != nil {
		c.in.drop()
	}
	return f, err
}

func (in *reader) next() (Frame, error) {
	need := HeaderSize
	for {
		if have := in.w - in.r; have >= need {
			length, h, err := header(in.buf[in.r:])
			if err != nil {
				return Frame{}, err
			}
			if need = HeaderSize + length; have >= need {
				return in.cut(h, length)
			}
		}
		in.room(need)
		if err := in.more(); err != nil {
			if err == io.EOF && in.w > in.r {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
	}
}

func (in *reader) cut(h Header, length int) (Frame, error) {
	start := in.r + HeaderSize
	in.r = start + length
	f := Frame{Header: h, Body: in.buf[start:in.r:in.r]}
	if h.Flags&FlagFile != 0 {
		if len(in.files) == 0 {
			return Frame{}, ErrFiles
		}
		f.File = in.files[0]
		in.files = append(in.files[:0], in.files[1:]...)
	}
	return f, nil
}

// room makes the buffer hold need bytes from r on, and some free space.
func (in *reader) room(need int) {
	have := in.w - in.r
	switch {
	case have == 0 && (in.buf == nil || len(in.buf) > keepSize && need <= readSize):
		in.buf = make([]byte, max(readSize, need))
	case need > len(in.buf):
		next := make([]byte, max(need, min(2*len(in.buf), HeaderSize+MaxBody)))
		copy(next, in.buf[in.r:in.w])
		in.buf = next
	case in.r > 0 && len(in.buf)-in.r < max(need, len(in.buf)/2) || have == 0:
		copy(in.buf, in.buf[in.r:in.w])
	default:
		return
	}
	in.r, in.w = 0, have
}

// more receives at least one byte.
func (in *reader) more() error {
	if err := in.raw.Read(in.fill); err != nil {
		return ErrClosed
	}
	if in.err != nil {
		return os.NewSyscallError("recvmsg", in.err)
	}
	if in.oobn > 0 || in.flags&unix.MSG_CTRUNC != 0 {
		if err := in.take(); err != nil {
			return err
		}
	}
	if in.n == 0 {
		return io.EOF
	}
	in.w += in.n
	return nil
}

func (in *reader) receive(fd uintptr) bool {
	for {
		in.n, in.oobn, in.flags, in.err = recvmsg(int(fd), in.buf[in.w:], in.oob)
		if in.err != unix.EINTR {
			return in.err != unix.EAGAIN
		}
	}
}

// take keeps the descriptors that came with the last receive.
func (in *reader) take() error {
	messages, err := unix.ParseSocketControlMessage(in.oob[:in.oobn])
	if err != nil {
		return ErrFiles
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // not a descriptor: nothing to own
		}
		for _, fd := range fds {
			in.files = append(in.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	if in.flags&unix.MSG_CTRUNC != 0 || len(in.files) > maxQueued {
		return ErrFiles
	}
	return nil
}

func (in *reader) drop() {
	for _, f := range in.files {
		f.Close()
	}
	in.files = nil
}
