package msg

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
)

// The form on the wire: integers little-endian and of fixed size; a string, and
// every other thing of varying size, as its length (uvarint) and its bytes; a
// list as the number of its elements (uvarint) and the elements.

// What a Reader complains about.
var (
	ErrShort    = errors.New("message ends too early")
	ErrTrailing = errors.New("message has bytes behind its end")
	ErrValue    = errors.New("message holds a value out of range")
)

// AppendBool adds one byte, 0 or 1.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendU8 adds one byte.
func AppendU8(b []byte, v uint8) []byte { return append(b, v) }

// AppendU16 adds two bytes.
func AppendU16(b []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(b, v) }

// AppendU32 adds four bytes.
func AppendU32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

// AppendU64 adds eight bytes.
func AppendU64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

// AppendI64 adds eight bytes, two's complement.
func AppendI64(b []byte, v int64) []byte { return AppendU64(b, uint64(v)) }

// AppendCount adds the number of elements of a list.
func AppendCount(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

// AppendString adds the length of s and its bytes.
func AppendString(b []byte, s string) []byte { return append(AppendCount(b, len(s)), s...) }

// AppendBytes adds the length of p and its bytes.
func AppendBytes(b, p []byte) []byte { return append(AppendCount(b, len(p)), p...) }

// AppendStrings adds a list of strings.
func AppendStrings(b []byte, list []string) []byte {
	b = AppendCount(b, len(list))
	for _, s := range list {
		b = AppendString(b, s)
	}
	return b
}

// AppendTime adds a moment to the nanosecond; the zone does not travel, the
// zero time stays zero.
func AppendTime(b []byte, t time.Time) []byte {
	return AppendU32(AppendI64(b, t.Unix()), uint32(t.Nanosecond()))
}

// AppendDuration adds a duration in nanoseconds.
func AppendDuration(b []byte, d time.Duration) []byte { return AppendI64(b, int64(d)) }

// AppendAddr adds an IP address with its zone; the zero Addr is allowed.
func AppendAddr(b []byte, a netip.Addr) []byte {
	n := len(b)
	b = AppendCount(b, a.BitLen()/8+len(a.Zone()))
	c, err := a.AppendBinary(b)
	if err != nil {
		return append(b[:n], 0)
	}
	return c
}

// AppendAddrPort adds an address and a port.
func AppendAddrPort(b []byte, a netip.AddrPort) []byte {
	return AppendU16(AppendAddr(b, a.Addr()), a.Port())
}

// AppendAddress adds a mail address.
func AppendAddress(b []byte, a addr.Address) []byte {
	return AppendString(AppendString(b, a.Local), a.Domain)
}

// AppendError adds an error, or nil. The cause travels as text.
func AppendError(b []byte, e *mailerr.Error) []byte {
	if e == nil {
		return append(b, 0)
	}
	b = append(b, byte(e.Class))
	b = AppendU16(b, uint16(e.Code))
	for _, n := range e.Enhanced {
		b = AppendU16(b, n)
	}
	b = AppendString(b, e.Text)
	b = AppendBool(b, e.Cause != nil)
	if e.Cause != nil {
		b = AppendString(b, e.Cause.Error())
	}
	return b
}

// Reader takes values from a body, in the order in which they were appended.
// After the first error it returns zero values only, so that a Parse method
// looks at the error once, at its end, by Done.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a Reader of b. It is a value so that a Parse method need
// not allocate one.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Done returns the first error; bytes left over are one.
func (r *Reader) Done() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = ErrTrailing
	}
	return r.err
}

// Fail makes err the Reader's error unless it has one: for a value that is
// well-formed but wrong.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
		r.b = nil
	}
}

// Len returns the number of bytes not yet read.
func (r *Reader) Len() int { return len(r.b) }

// View returns the next n bytes without copying them, nil when there are not so
// many.
func (r *Reader) View(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.Fail(ErrShort)
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// Bool reads one byte that is 0 or 1.
func (r *Reader) Bool() bool { return r.Enum(1) == 1 }

// Enum reads one byte that is at most max.
func (r *Reader) Enum(max uint8) uint8 {
	v := r.U8()
	if v > max {
		r.Fail(ErrValue)
		return 0
	}
	return v
}

// U8 reads one byte.
func (r *Reader) U8() uint8 {
	if p := r.View(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 reads two bytes.
func (r *Reader) U16() uint16 {
	if p := r.View(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

// U32 reads four bytes.
func (r *Reader) U32() uint32 {
	if p := r.View(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// U64 reads eight bytes.
func (r *Reader) U64() uint64 {
	if p := r.View(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// I64 reads eight bytes, two's complement.
func (r *Reader) I64() int64 { return int64(r.U64()) }

// Count reads the number of elements of a list whose elements take at least
// size bytes each; a number that the rest of the body cannot hold is an error,
// so that nobody allocates for it.
func (r *Reader) Count(size int) int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail(ErrShort)
		return 0
	}
	r.b = r.b[n:]
	if v > uint64(len(r.b)/max(size, 1)) {
		r.Fail(ErrShort)
		return 0
	}
	return int(v)
}

// String reads a string.
func (r *Reader) String() string { return string(r.View(r.Count(1))) }

// Bytes reads bytes into dst, which grows where it is too small; nil stays nil
// when there are none.
func (r *Reader) Bytes(dst []byte) []byte { return append(dst[:0], r.View(r.Count(1))...) }

// Strings reads a list of strings, nil when it is empty.
func (r *Reader) Strings() []string {
	n := r.Count(1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.String()
	}
	return list
}

// Time reads a moment.
func (r *Reader) Time() time.Time {
	sec, nsec := r.I64(), r.U32()
	if nsec >= 1e9 {
		r.Fail(ErrValue)
	}
	t := time.Unix(sec, int64(nsec))
	if r.err != nil || t.IsZero() {
		return time.Time{}
	}
	return t
}

// Duration reads a duration.
func (r *Reader) Duration() time.Duration { return time.Duration(r.I64()) }

// Addr reads an IP address.
func (r *Reader) Addr() netip.Addr {
	var a netip.Addr
	if err := a.UnmarshalBinary(r.View(r.Count(1))); err != nil {
		r.Fail(ErrValue)
	}
	return a
}

// AddrPort reads an address and a port.
func (r *Reader) AddrPort() netip.AddrPort {
	a := r.Addr()
	return netip.AddrPortFrom(a, r.U16())
}

// Address reads a mail address.
func (r *Reader) Address() addr.Address {
	local := r.String()
	return addr.Address{Local: local, Domain: r.String()}
}

// Error reads an error, or nil.
func (r *Reader) Error() *mailerr.Error {
	class := mailerr.Class(r.Enum(uint8(mailerr.Drop)))
	if class == 0 {
		return nil
	}
	e := &mailerr.Error{Class: class, Code: int(r.U16())}
	for i := range e.Enhanced {
		e.Enhanced[i] = r.U16()
	}
	e.Text = r.String()
	if r.Bool() {
		e.Cause = errors.New(r.String())
	}
	return e
}
