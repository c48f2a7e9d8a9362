package lmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"opensmtpd/src/mailerr"
)

// dialError is a failure to connect.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// lostError tells that no reply came for a recipient. It hides the replies for
// the others that the error it holds may carry.
type lostError struct{ error }

// refusal returns the reply that an error is, or nil.
func refusal(err error) *smtp.SMTPError {
	var r *smtp.SMTPError
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// good tells whether a reply that the client did not expect says yes all the
// same.
func good(err error) bool {
	r := refusal(err)
	return r != nil && r.Code/100 == 2
}

// judge makes of an error what the queue and the sender are to know.
func judge(ctx context.Context, err error) *mailerr.Error {
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	switch r := refusal(err); {
	case r != nil:
		return refused(r)
	case errors.Is(cause, errTimeout):
		return mailerr.Temporary(451, 4, 1, "LMTP server timed out", nil)
	case cause != nil:
		return mailerr.Temporary(451, 3, 2, "Shutting down", nil)
	}
	var lost *lostError
	if errors.As(err, &lost) {
		err = lost.error
	}
	var connect *dialError
	var nonsense textproto.ProtocolError
	switch {
	case errors.As(err, &connect):
		return mailerr.Temporary(451, 4, 1, "cannot connect to the LMTP server", connect.error)
	case errors.As(err, &nonsense), errors.Is(err, errTooMuch), errors.Is(err, smtp.ErrTooLongLine):
		return mailerr.Temporary(451, 5, 0, "LMTP server sent an invalid reply", err)
	case timedOut(err):
		return mailerr.Temporary(451, 4, 1, "LMTP server timed out", nil)
	case ended(err):
		return mailerr.Temporary(451, 4, 2, "LMTP server closed the connection", nil)
	}
	return mailerr.Temporary(451, 4, 2, "LMTP delivery failed", err)
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// refused translates a reply. One that neither accepts nor refuses comes of a
// misunderstanding, which is not the sender's fault.
func refused(r *smtp.SMTPError) *mailerr.Error {
	text := fmt.Sprintf("LMTP server error: %03d ", r.Code)
	if r.EnhancedCode != (smtp.EnhancedCode{}) {
		text += fmt.Sprintf("%d.%d.%d ", r.EnhancedCode[0], r.EnhancedCode[1], r.EnhancedCode[2])
	}
	e := mailerr.Temporary(451, 5, 0, printable(text+r.Message), nil)
	switch r.Code / 100 {
	case 4:
		e.Code, e.Enhanced = r.Code, mailerr.Enhanced{4, 0, 0}
	case 5:
		e.Class, e.Code, e.Enhanced = mailerr.Perm, r.Code, mailerr.Enhanced{5, 0, 0}
	default:
		return e
	}
	if c := r.EnhancedCode; c[0] == r.Code/100 && c[1] >= 0 && c[1] <= 999 && c[2] >= 0 && c[2] <= 999 {
		e.Enhanced = mailerr.Enhanced{uint16(c[0]), uint16(c[1]), uint16(c[2])}
	}
	return e
}

// longestText is the most that is kept of a reply, in bytes.
const longestText = 512

// printable makes one line of a reply.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd || r == 0x2028 || r == 0x2029:
			return '?'
		}
		return r
	}, s)
	if len(s) > longestText {
		s = strings.ToValidUTF8(s[:longestText], "")
	}
	return strings.TrimSpace(s)
}

// errTooMuch tells that the server talks without end.
var errTooMuch = errors.New("replies without end")

// guard is the connection as the client sees it. It bounds what the server says,
// and does not let a refused LHLO be followed by HELO: whoever does not know
// LHLO would not speak LMTP afterwards.
type guard struct {
	net.Conn
	left    int // bytes
	greeted bool
	last    []byte // what was read last, while not greeted
}

func (g *guard) Read(p []byte) (int, error) {
	if g.left <= 0 {
		return 0, errTooMuch
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	if !g.greeted && n > 0 {
		g.last = append(g.last[:0], p[:n]...)
	}
	return n, err
}

func (g *guard) Write(p []byte) (int, error) {
	if !g.greeted && bytes.HasPrefix(p, []byte("HELO ")) {
		return 0, g.refusal()
	}
	return g.Conn.Write(p)
}

// refusal is the reply to LHLO, which the client has dropped.
func (g *guard) refusal() error {
	line := strings.TrimRight(string(g.last), "\r\n")
	line = line[strings.LastIndexByte(line, '\n')+1:]
	if len(line) > 3 {
		if code, err := strconv.Atoi(line[:3]); err == nil {
			return &smtp.SMTPError{Code: code, Message: line[4:]}
		}
	}
	return &smtp.SMTPError{Code: 500, Message: "LHLO is not known"}
}
