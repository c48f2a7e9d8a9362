// Package ctl is how smtpctl(8) and sendmail(8) talk to the control process:
// the protocol of the control socket and the rows that commands answer with.
//
// Any user of the machine may connect, so that side of the protocol is kept
// small enough to be seen whole. A frame is
//
//	length u32, type u8, zero [3]u8, body
//
// little-endian, with the encoding of package msg in the body. Client and
// server begin with a hello, the server first; then the client sends requests, one at a time, and
// each is answered by any number of row and raw frames and one of done, fail or
// session. A descriptor travels with session alone, towards the client. A frame
// that is too long, unknown or malformed ends the connection.
package ctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"opensmtpd/src/privsep/msg"
)

// Version is the version of the protocol. Both sides must have the same.
const Version = 1

// The limits of a body. A request carries a few words of a command line; an
// answer is one row or one page of raw content from a role.
const (
	MaxRequest = 64 << 10
	MaxAnswer  = 1 << 20
)

const headerSize = 8

// kind is the type of a frame.
type kind uint8

const (
	kindHello kind = iota + 1
	kindRequest
	kindRow
	kindRaw
	kindDone
	kindFail
	kindSession
	kindEnd // first that is not a kind
)

// ErrProtocol is what a peer is guilty of that does not keep to the protocol.
var ErrProtocol = errors.New("bad frame on the control socket")

// appendFrame adds a frame to b; the body is what fill adds.
func appendFrame(b []byte, k kind, fill func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(k), 0, 0, 0)
	if fill != nil {
		b = fill(b)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-headerSize))
	return b
}

// frameReader reads frames. The body is valid until the next read.
type frameReader struct {
	r    io.Reader
	max  uint32 // of a body
	body []byte
}

// read returns the next frame, or io.EOF at the end of a connection that ends
// between frames. It never allocates for more than max bytes.
func (f *frameReader) read() (kind, []byte, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: ends inside a header", ErrProtocol)
		}
		return 0, nil, err
	}
	n, k := binary.LittleEndian.Uint32(h[:]), kind(h[4])
	switch {
	case n > f.max:
		return 0, nil, fmt.Errorf("%w: %d bytes long", ErrProtocol, n)
	case k == 0 || k >= kindEnd || h[5] != 0 || h[6] != 0 || h[7] != 0:
		return 0, nil, fmt.Errorf("%w: unknown type", ErrProtocol)
	}
	if uint32(cap(f.body)) < n {
		f.body = make([]byte, n)
	}
	f.body = f.body[:n]
	if _, err := io.ReadFull(f.r, f.body); err != nil {
		return 0, nil, fmt.Errorf("%w: %d bytes announced: %w", ErrProtocol, n, err)
	}
	return k, f.body, nil
}

// magic is the first thing in a hello, so that a stranger's bytes are known for
// what they are.
const magic = "opensmtpd control"

// hello opens a connection, in both directions.
type hello struct {
	version uint16
	build   string // of the program, for the message about a mismatch
}

func (h hello) append(b []byte) []byte {
	b = msg.AppendString(b, magic)
	b = msg.AppendU16(b, h.version)
	return msg.AppendString(b, h.build)
}

func parseHello(b []byte) (hello, error) {
	r := msg.NewReader(b)
	if r.String() != magic {
		return hello{}, fmt.Errorf("%w: not a hello", ErrProtocol)
	}
	h := hello{version: r.U16()}
	h.build = r.String()
	if err := r.Done(); err != nil {
		return hello{}, fmt.Errorf("%w: hello: %w", ErrProtocol, err)
	}
	return h, nil
}

// Request is a command, as it goes to control.
type Request struct {
	Verb msg.Verb
	Args []string
}

func (q *Request) append(b []byte) []byte {
	return msg.AppendStrings(msg.AppendString(b, string(q.Verb)), q.Args)
}

func (q *Request) parse(b []byte) error {
	r := msg.NewReader(b)
	q.Verb = msg.Verb(r.String())
	q.Args = r.Strings()
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: request: %w", ErrProtocol, err)
	}
	return nil
}

// What control serves itself.
const (
	VerbSession msg.Verb = "session" // a connection to speak SMTP on
	VerbStatus  msg.Verb = "status"  // one StatusRow
	VerbStats   msg.Verb = "stats"   // StatRow, sorted by key
	VerbDigest  msg.Verb = "digest"  // one DigestRow
)

// Refused is a request that was understood and not done.
type Refused struct {
	Text string // for the user, one line
	Temp bool   // may work later
}

func (e *Refused) Error() string { return e.Text }

func (e *Refused) append(b []byte) []byte {
	return msg.AppendString(msg.AppendBool(b, e.Temp), e.Text)
}

func parseRefused(b []byte) error {
	r := msg.NewReader(b)
	e := &Refused{Temp: r.Bool()}
	e.Text = r.String()
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return e
}
