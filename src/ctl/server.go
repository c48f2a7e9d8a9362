package ctl

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"time"

	"opensmtpd/src/privsep/msg"
)

// ServerConn is control's side of a connection. It is used by one goroutine.
// Every method that returns an error ends the usefulness of the connection.
type ServerConn struct {
	c     *net.UnixConn
	r     frameReader
	out   []byte
	now   func() time.Time
	limit time.Duration
}

// NewServerConn wraps an accepted connection. A client that does not send a
// whole request, or does not take a whole frame, within limit is given up.
func NewServerConn(c *net.UnixConn, now func() time.Time, limit time.Duration) *ServerConn {
	return &ServerConn{
		c:     c,
		r:     frameReader{r: bufio.NewReaderSize(c, 512), max: MaxRequest},
		now:   now,
		limit: limit,
	}
}

// Hello sends our hello, which carries build, and takes the client's. The server
// speaks first, so that one who is refused learns it whatever he had to say.
func (s *ServerConn) Hello(build string) error {
	s.out = appendFrame(s.out, kindHello, hello{Version, build}.append)
	if err := s.flush(); err != nil {
		return err
	}
	k, body, err := s.read()
	if err != nil {
		return err
	}
	if k != kindHello {
		return fmt.Errorf("%w: hello expected", ErrProtocol)
	}
	theirs, err := parseHello(body)
	if err == nil && theirs.version != Version {
		err = fmt.Errorf("client speaks version %d", theirs.version)
	}
	return err
}

// Request waits for the next request. It returns io.EOF when the client is
// done.
func (s *ServerConn) Request() (Request, error) {
	k, body, err := s.read()
	if err != nil {
		return Request{}, err
	}
	if k != kindRequest {
		return Request{}, fmt.Errorf("%w: request expected", ErrProtocol)
	}
	var q Request
	err = q.parse(body)
	return q, err
}

// Rows sends a page of rows and raw content, and returns when the kernel has
// taken it.
func (s *ServerConn) Rows(rows [][]byte, raw []byte) error {
	for _, row := range rows {
		s.out = appendFrame(s.out, kindRow, func(b []byte) []byte { return append(b, row...) })
	}
	if len(raw) > 0 {
		s.out = appendFrame(s.out, kindRaw, func(b []byte) []byte { return append(b, raw...) })
	}
	return s.flush()
}

// Done ends an answer; count is how many envelopes were changed.
func (s *ServerConn) Done(count uint32) error {
	s.out = appendFrame(s.out, kindDone, func(b []byte) []byte { return msg.AppendU32(b, count) })
	return s.flush()
}

// Fail ends an answer with a refusal.
func (s *ServerConn) Fail(e *Refused) error {
	s.out = appendFrame(s.out, kindFail, e.append)
	return s.flush()
}

// Session ends an answer with a descriptor, which stays the caller's to close.
func (s *ServerConn) Session(f *os.File) error {
	if err := s.c.SetWriteDeadline(s.now().Add(s.limit)); err != nil {
		return err
	}
	return sendFile(s.c, appendFrame(nil, kindSession, nil), f)
}

func (s *ServerConn) read() (kind, []byte, error) {
	if err := s.c.SetReadDeadline(s.now().Add(s.limit)); err != nil {
		return 0, nil, err
	}
	return s.r.read()
}

// keepOut is the size of a write buffer that is kept for the next answer.
const keepOut = 4 << 10

func (s *ServerConn) flush() error {
	if err := s.c.SetWriteDeadline(s.now().Add(s.limit)); err != nil {
		return err
	}
	_, err := s.c.Write(s.out)
	if cap(s.out) > keepOut {
		s.out = nil
	}
	s.out = s.out[:0]
	return err
}
