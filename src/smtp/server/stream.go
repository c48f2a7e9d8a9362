package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"opensmtpd/src/smtp"
)

const (
	// inSize is the size of an input buffer: large, because a body is read
	// through it, and the longest line with its end must fit; lent, because
	// most sessions wait most of the time.
	inSize = 72 << 10
	// outSize is how much of replies is gathered before they are written
	// although more commands are waiting.
	outSize = 4 << 10
	// keepSize is the longest unfinished line that is put aside when a session
	// waits, so that its buffer can be lent to another. A longer one keeps the
	// buffer: copying it at every byte that drips in would cost more.
	keepSize = 4 << 10
)

// pools are the buffers that sessions of a server borrow.
type pools struct{ in, out, small, large, tx sync.Pool }

func newPools() *pools {
	return &pools{
		in:    sync.Pool{New: func() any { return new([inSize]byte) }},
		out:   sync.Pool{New: func() any { b := make([]byte, 0, outSize); return &b }},
		small: sync.Pool{New: func() any { b := make([]byte, 0, smallBody); return &b }},
		tx:    sync.Pool{New: func() any { return new(Transaction) }},
		large: sync.Pool{New: func() any { b := make([]byte, 0, largeBuffer); return &b }},
	}
}

// putBody takes the buffer of a body back, unless a header made it grow.
func (p *pools) putBody(b *[]byte) {
	*b = (*b)[:0]
	switch cap(*b) {
	case smallBody:
		p.small.Put(b)
	case largeBuffer:
		p.large.Put(b)
	}
}

func (p *pools) transaction() *Transaction { return p.tx.Get().(*Transaction) }

// putTransaction takes t back, with what it allocated.
func (p *pools) putTransaction(t *Transaction) {
	head := t.body.head
	head.Reset()
	clear(t.Rcpts)
	*t = Transaction{Rcpts: t.Rcpts[:0], body: body{head: head}}
	if cap(t.Rcpts) <= 16 {
		p.tx.Put(t)
	}
}

// errWoken says that a wait was interrupted by wake; the session looks why.
var errWoken = errors.New("woken")

// A stream reads commands and writes replies. While it waits for a client that
// has said nothing it holds no buffer: it learns that the socket is readable
// first and borrows one then.
type stream struct {
	nc  net.Conn
	raw syscall.RawConn // nil when nc has none: then it waits with a buffer
	tls *tls.Conn       // over nc, once TLS has begun
	pl  *pools

	in   *[inSize]byte // lent; nil while waiting
	r, w int           // what is unread of in
	rest []byte        // an unfinished line, while there is no buffer
	out  *[]byte       // lent; replies that are not written yet

	sending []byte // what is being written

	onRead, onWrite func(fd uintptr) bool // tryRead and tryWrite, bound once
	once            bool                  // tryRead must not wait
	n, off          int                   // what tryRead read, tryWrite wrote
	err             error                 // what they failed with

	owner   owner
	stalled bool // the client has to read before a write can go on
	again   bool // a write was woken; the next read shall be too
	skipped int  // bytes of a line too long that were thrown away
}

// owner is what a stream asks of its session while a write goes on.
type owner interface {
	// blocked is told that a write has to wait for the client.
	blocked()
	// woken tells why to give up on a client that does not read, or nil.
	woken() error
	// impatient tells why to give up on a client that does not go on with a
	// handshake, or nil.
	impatient() error
}

func (c *stream) init(nc net.Conn, pl *pools, o owner) {
	c.nc, c.pl, c.owner = nc, pl, o
	c.onRead, c.onWrite = c.tryRead, c.tryWrite
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
}

// borrow makes sure that there is an input buffer with room in it.
func (c *stream) borrow() {
	if c.in == nil {
		c.in = c.pl.in.Get().(*[inSize]byte)
		c.r, c.w = 0, copy(c.in[:], c.rest)
		c.rest = nil
	}
	if c.r > 0 {
		c.w = copy(c.in[:], c.in[c.r:c.w])
		c.r = 0
	}
}

// giveBack returns the input buffer unless too much of a line is in it.
func (c *stream) giveBack() {
	if c.in == nil || c.w-c.r > keepSize {
		return
	}
	c.rest = nil
	if c.r < c.w {
		c.rest = append([]byte(nil), c.in[c.r:c.w]...)
	}
	c.pl.in.Put(c.in)
	c.in, c.r, c.w = nil, 0, 0
}

// release returns every buffer; the stream is at its end.
func (c *stream) release() {
	if c.in != nil {
		c.pl.in.Put(c.in)
	}
	c.in, c.r, c.w, c.rest = nil, 0, 0, nil
	c.dropOut()
}

// unread returns what has been received and not taken.
func (c *stream) unread() []byte {
	if c.in == nil {
		return c.rest
	}
	return c.in[c.r:c.w]
}

// fill waits for more input, after writing what replies there are. The buffer
// must not be full.
func (c *stream) fill() error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.receive()
}

func (c *stream) receive() error {
	if c.again {
		c.again = false
		return errWoken
	}
	if c.tls != nil {
		return c.receiveTLS()
	}
	c.n, c.err = 0, nil
	if c.raw != nil {
		if err := c.raw.Read(c.onRead); err != nil {
			return c.interrupted(err)
		}
	} else {
		c.borrow()
		c.n, c.err = c.nc.Read(c.in[c.w:])
	}
	c.w += c.n
	switch {
	case c.n > 0:
		return nil
	case c.err != nil:
		return c.interrupted(c.err)
	}
	return io.EOF
}

// tryRead is called by the network poller: once at the start and then whenever
// the socket has become readable. It returns false to wait.
func (c *stream) tryRead(fd uintptr) bool {
	c.borrow()
	for {
		c.n, c.err = syscall.Read(int(fd), c.in[c.w:])
		switch c.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.n = 0
			c.giveBack()
			return c.once
		case nil:
			return true
		}
		c.n = 0
		return true
	}
}

// talked tells whether the client has sent something, without waiting.
func (c *stream) talked() (bool, error) {
	if c.raw == nil {
		return false, nil
	}
	c.once = true
	err := c.receive()
	c.once = false
	switch {
	case err == errWoken:
		c.again = true
		return false, nil
	case errors.Is(err, syscall.EAGAIN):
		return false, nil
	}
	return err == nil, err
}

// put gives the buffer that replies are appended to.
func (c *stream) put(add func(b []byte) []byte) {
	if c.out == nil {
		c.out = c.pl.out.Get().(*[]byte)
	}
	*c.out = add(*c.out)
}

// flush writes the replies, all in one system call when the client reads.
func (c *stream) flush() error {
	if c.out == nil {
		return nil
	}
	defer c.dropOut()
	var err error
	if c.tls != nil {
		_, err = c.tls.Write(*c.out)
	} else {
		_, err = c.write(*c.out)
	}
	return err
}

// write sends all of p, or fails for good.
func (c *stream) write(p []byte) (int, error) {
	c.sending, c.off, c.stalled = p, 0, false
	defer func() { c.sending = nil }()
	for {
		err := c.interrupted(c.send())
		if err != errWoken {
			return c.off, err
		}
		// Whoever woke us may have meant the wait that comes next.
		c.again = true
		if c.stalled {
			if err := c.owner.woken(); err != nil {
				return c.off, err
			}
		}
	}
}

// send writes what is left of sending from off on.
func (c *stream) send() error {
	if c.raw == nil {
		c.stalled = true // as far as we can know
		c.owner.blocked()
		n, err := c.nc.Write(c.sending[c.off:])
		c.off += n
		return err
	}
	c.err = nil
	if err := c.raw.Write(c.onWrite); err != nil {
		return err
	}
	return c.err
}

func (c *stream) dropOut() {
	if c.out != nil {
		if cap(*c.out) <= 4*outSize {
			*c.out = (*c.out)[:0]
			c.pl.out.Put(c.out)
		}
		c.out = nil
	}
}

func (c *stream) tryWrite(fd uintptr) bool {
	for c.off < len(c.sending) {
		n, err := syscall.Write(int(fd), c.sending[c.off:])
		switch err {
		case nil:
			c.off += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			c.stalled = true
			c.owner.blocked()
			return false
		default:
			c.err = err
			return true
		}
	}
	return true
}

// wake interrupts a wait of another goroutine, once. One that starts later is
// interrupted too.
func (c *stream) wake() error { return c.nc.SetDeadline(time.Unix(1, 0)) }

// interrupted turns the deadline that wake set into errWoken, and takes it away.
func (c *stream) interrupted(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err := c.nc.SetDeadline(time.Time{}); err != nil {
			return err
		}
		return errWoken
	}
	return err
}

// line returns the next command line without its end, which is LF or CR LF. The
// bytes are good until the next call. Of a line that is too long the rest is
// skipped; errLong is returned then. Credentials may be longer than commands,
// whether secret says that they come or the line itself.
func (c *stream) line(secret bool) ([]byte, error) {
	for {
		p := c.unread()
		limit := MaxCommand
		if secret || len(p) >= 5 && smtp.EqualFold(string(p[:5]), "AUTH ") {
			limit = MaxAuth
		}
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			long := c.skipped+i+1 > limit
			c.skipped = 0
			c.take(i + 1)
			if long {
				return nil, errLong
			}
			return bytes.TrimSuffix(p[:i], crByte), nil
		}
		if c.skipped+len(p) > limit {
			c.skipped += len(p)
			c.take(len(p))
			if c.skipped > MaxLine {
				return nil, errFlood
			}
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

var (
	crByte   = []byte{'\r'}
	errLong  = errors.New("command line too long")
	errFlood = errors.New("line too long")
)

// take marks n bytes of unread as taken.
func (c *stream) take(n int) {
	if c.in == nil {
		c.rest = c.rest[n:]
		return
	}
	c.r += n
}

// farewell ends TLS in good order, so that the client knows that nothing was cut
// off.
func (c *stream) farewell() {
	if c.tls != nil {
		_ = c.tls.CloseWrite() // the connection is closed in any case
	}
}

// halfClose tells the client that nothing more will come from us.
func (c *stream) halfClose() {
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // the connection is closed in any case
	}
}

// drain throws away what has come already, encrypted or not, up to n bytes.
func (c *stream) drain(n int) {
	if c.raw == nil {
		return
	}
	c.borrow()
	_ = c.raw.Control(func(fd uintptr) { // it fails when there is nothing to close either
		for n > 0 {
			got, err := syscall.Read(int(fd), c.in[:])
			if got <= 0 && err != syscall.EINTR {
				return
			}
			n -= got
		}
	})
}
