// Package imsg carries frames, and descriptors beside them, over stream
// socketpairs between the processes of smtpd.
//
// A frame is a header of 24 bytes, little-endian, and a body:
//
//	length  u32  of the body, at most 1 MiB
//	type    u16  what the body is (package msg)
//	flags   u16  see Flags
//	call    u64  joins a reply to its call; 0 when there is none
//	session u64  the SMTP session concerned, for traces; 0 when there is none
//
// A frame with a descriptor rides a sendmsg of its own, so that the order of
// descriptors is the order of the frames that announce them. Whatever is wrong
// with what arrives is an error of this connection and of nothing else.
package imsg

import (
	"encoding/binary"
	"errors"
	"os"
)

const (
	HeaderSize = 24
	// MaxBody is the most that a body may hold, in bytes: four times what the
	// largest message needs, and small enough that a peer cannot make us
	// allocate much.
	MaxBody = 1 << 20
)

// Flags say what a frame is.
type Flags uint16

const (
	FlagFile  Flags = 1 << iota // a descriptor comes along
	FlagCall                    // a reply is expected
	FlagReply                   // answers a call
	FlagMore                    // a reply that others follow
)

// What ends a connection.
var (
	ErrTooLong  = errors.New("frame of more than 1 MiB")
	ErrFiles    = errors.New("descriptors do not match the frames that announce them")
	ErrNoHeader = errors.New("header with flags that do not exist")
	ErrClosed   = errors.New("connection between processes is closed")
)

// Header is what stands before a body, except its length.
type Header struct {
	Type    uint16
	Flags   Flags
	Call    uint64
	Session uint64
}

// Frame is what was received. Body is valid until the next call of Next; the
// receiver owns File.
type Frame struct {
	Header
	Body []byte
	File *os.File
}

// Appender is what can be sent: it adds its bytes to b.
type Appender interface{ Append(b []byte) []byte }

const allFlags = FlagFile | FlagCall | FlagReply | FlagMore

func putHeader(b []byte, length int, h Header) {
	binary.LittleEndian.PutUint32(b[0:], uint32(length))
	binary.LittleEndian.PutUint16(b[4:], h.Type)
	binary.LittleEndian.PutUint16(b[6:], uint16(h.Flags))
	binary.LittleEndian.PutUint64(b[8:], h.Call)
	binary.LittleEndian.PutUint64(b[16:], h.Session)
}

// header reads the 24 bytes of b and checks them.
func header(b []byte) (length int, h Header, err error) {
	n := binary.LittleEndian.Uint32(b[0:])
	if n > MaxBody {
		return 0, h, ErrTooLong
	}
	h.Type = binary.LittleEndian.Uint16(b[4:])
	h.Flags = Flags(binary.LittleEndian.Uint16(b[6:]))
	h.Call = binary.LittleEndian.Uint64(b[8:])
	h.Session = binary.LittleEndian.Uint64(b[16:])
	if h.Flags&^allFlags != 0 {
		return 0, h, ErrNoHeader
	}
	return int(n), h, nil
}
