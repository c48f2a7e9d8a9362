package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// A wire is the encrypted side of a stream: what crypto/tls reads from and
// writes to. Outside of a handshake a read never waits, so that a session which
// waits for its client holds no buffer, in TLS as in clear; and a write goes on
// when the session was woken for nothing, because TLS cannot resume one.
type wire struct {
	c     *stream
	wait  bool   // a handshake goes on: reads wait
	early []byte // what had come before the handshake began
	raw   []byte // what tryRead reads into
	n     int
	err   error
	onRaw func(fd uintptr) bool // tryRead, bound once
}

// notNowError is a read that would wait, or that was woken. crypto/tls takes it
// for temporary and goes on where it was.
type notNowError struct{ why error }

func (e notNowError) Error() string   { return e.why.Error() }
func (e notNowError) Unwrap() error   { return e.why }
func (e notNowError) Timeout() bool   { return true }
func (e notNowError) Temporary() bool { return true }

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(b, w.early)
		w.early = w.early[n:]
		return n, nil
	}
	for {
		if w.wait && w.c.again { // a write of the handshake was woken
			w.c.again = false
			if err := w.c.owner.impatient(); err != nil {
				return 0, err
			}
		}
		n, err := w.read(b)
		err = w.c.interrupted(err)
		if err == nil || !errors.Is(err, errWoken) {
			return n, err
		}
		if !w.wait {
			return n, notNowError{err}
		}
		if err := w.c.owner.impatient(); err != nil {
			return n, err
		}
	}
}

func (w *wire) read(b []byte) (int, error) {
	if w.c.raw == nil {
		return w.c.nc.Read(b)
	}
	w.raw, w.n, w.err = b, 0, nil
	err := w.c.raw.Read(w.onRaw)
	w.raw = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// tryRead is called by the network poller, as stream's is.
func (w *wire) tryRead(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), w.raw)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			w.err = notNowError{err}
			return !w.wait
		case err != nil:
			w.err = err
		case n == 0:
			w.err = io.EOF
		default:
			w.n, w.err = n, nil
		}
		return true
	}
}

// Write implements net.Conn.
func (w *wire) Write(b []byte) (int, error) { return w.c.write(b) }

// Close implements net.Conn. The stream closes the connection.
func (w *wire) Close() error { return nil }

func (w *wire) LocalAddr() net.Addr  { return w.c.nc.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr { return w.c.nc.RemoteAddr() }

// SetDeadline and its like do nothing: the server keeps the times.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// secure makes a TLS handshake as the server; from then on the stream is
// encrypted. What is unread belongs to the handshake: see to it that it may.
func (c *stream) secure(cfg *tls.Config) (*tls.ConnectionState, error) {
	w := &wire{c: c, wait: true, early: bytes.Clone(c.unread())}
	c.take(len(w.early))
	c.giveBack()
	w.onRaw = w.tryRead
	t := tls.Server(w, cfg)
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	w.wait = false
	c.tls = t
	st := t.ConnectionState()
	return &st, nil
}

// receiveTLS is receive in TLS.
func (c *stream) receiveTLS() error {
	for {
		c.borrow()
		n, err := c.tls.Read(c.in[c.w:])
		c.w += n
		switch {
		case n > 0:
			return nil
		case errors.Is(err, errWoken):
			return errWoken
		case errors.Is(err, syscall.EAGAIN):
			c.giveBack()
			switch {
			case c.again: // TLS has written, and was woken
				c.again = false
				return errWoken
			case c.once:
				return syscall.EAGAIN
			}
			if err := c.raw.Read(readable); err != nil {
				return c.interrupted(err)
			}
		case err != nil:
			return err
		}
	}
}

// readable is called by the network poller: true when there is something to
// read, or to find out.
func readable(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
