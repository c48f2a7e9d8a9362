package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"opensmtpd/src/mail"
)

// binaryVersion begins the compact form. A reader refuses what it does not know.
const binaryVersion = 1

// maxZone bounds the zone of a scoped address; interface names have 15 bytes.
const maxZone = 64

// ErrMalformed tells that bytes are not an envelope in the compact form.
var ErrMalformed = errors.New("malformed envelope")

// Append adds the compact form to b: what travels between processes and stays in
// the journal. Times and durations keep whole seconds.
//
//	version u8, id u64, type u8, flags u16, retry u16, notify u8, ret u8,
//	esc-class u8, esc-code u8, bounce-type u8      (little-endian)
//	created, ttl, last-try, last-bounce, bounce-delay, bounce-ttl   (varints)
//	source: family u8 (0, 4, 6), address, port u16, zone
//	local-uid u32
//	18 strings, each a uvarint length and bytes
func (e *Envelope) Append(b []byte) []byte {
	b = append(b, binaryVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.ID))
	b = append(b, byte(e.Type))
	b = binary.LittleEndian.AppendUint16(b, uint16(e.Flags))
	b = binary.LittleEndian.AppendUint16(b, e.Retry)
	b = append(b, byte(e.DSNNotify), byte(e.DSNRet), e.ESCClass, e.ESCCode, byte(e.BounceType))
	for _, v := range e.seconds() {
		b = binary.AppendVarint(b, v)
	}
	b = appendSource(b, e.Source)
	b = binary.LittleEndian.AppendUint32(b, e.LocalUID)
	for _, s := range e.strings() {
		b = binary.AppendUvarint(b, uint64(len(*s)))
		b = append(b, *s...)
	}
	return b
}

// Unix returns t in Unix seconds, 0 for the zero Time, which is how envelopes
// keep time.
func Unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// FromUnix is the inverse of Unix.
func FromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}

func (e *Envelope) seconds() [6]int64 {
	return [6]int64{
		Unix(e.Created), int64(e.TTL / time.Second), Unix(e.LastTry), Unix(e.LastBounce),
		int64(e.BounceDelay / time.Second), int64(e.BounceTTL / time.Second),
	}
}

func (e *Envelope) setSeconds(v [6]int64) {
	e.Created, e.TTL = FromUnix(v[0]), time.Duration(v[1])*time.Second
	e.LastTry, e.LastBounce = FromUnix(v[2]), FromUnix(v[3])
	e.BounceDelay, e.BounceTTL = time.Duration(v[4])*time.Second, time.Duration(v[5])*time.Second
}

// strings lists the string fields in the order of the compact form. The order is
// the format: a new field goes to the end, with a new version.
func (e *Envelope) strings() [18]*string {
	return [18]*string{
		&e.Action, &e.Tag, &e.SMTPName, &e.Helo, &e.Hostname, &e.Username,
		&e.Sender.Local, &e.Sender.Domain, &e.Rcpt.Local, &e.Rcpt.Domain, &e.Dest.Local, &e.Dest.Domain,
		&e.MDAExec, &e.MDAUser, &e.MDASubaddress,
		&e.DSNEnvID, &e.DSNORcpt, &e.ErrorLine,
	}
}

func appendSource(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr()
	switch {
	case !ip.IsValid():
		return append(b, 0)
	case ip.Is4():
		v := ip.As4()
		b = append(append(b, 4), v[:]...)
	default:
		v := ip.As16()
		b = append(append(b, 6), v[:]...)
		zone := ip.Zone()[:min(len(ip.Zone()), maxZone)]
		b = append(append(b, byte(len(zone))), zone...)
	}
	return binary.LittleEndian.AppendUint16(b, a.Port())
}

// Parse reads the compact form, the whole of b, and keeps no reference to it. It
// refuses strings that hold CR, LF or NUL.
func (e *Envelope) Parse(b []byte) error {
	r := reader{b: b}
	if v := r.byte(); v != binaryVersion {
		return fmt.Errorf("%w: version %d", ErrMalformed, v)
	}
	*e = Envelope{
		ID: mail.EnvelopeID(r.uint64()), Type: Type(r.byte()), Flags: Flags(r.uint16()), Retry: r.uint16(),
		DSNNotify: Notify(r.byte()), DSNRet: Return(r.byte()), ESCClass: r.byte(), ESCCode: r.byte(),
		BounceType: BounceType(r.byte()),
	}
	var secs [6]int64
	for i := range secs {
		secs[i] = r.varint()
	}
	e.setSeconds(secs)
	e.Source = r.source()
	e.LocalUID = r.uint32()
	if !r.bad {
		r.s = string(r.b) // one allocation for all strings
		r.b = nil
	}
	for _, s := range e.strings() {
		*s = r.string()
	}
	switch {
	case r.bad || len(r.s) > 0:
		return ErrMalformed
	case e.Type > Bounce || e.BounceType > BounceDelivered || e.DSNRet > ReturnHeaders:
		return fmt.Errorf("%w: unknown type", ErrMalformed)
	}
	return e.Check()
}

// reader takes values off b, strings off s; after the first that is not there
// bad is set and all are zero.
type reader struct {
	b   []byte
	s   string
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) source() netip.AddrPort {
	var ip netip.Addr
	switch r.byte() {
	case 0:
		return netip.AddrPort{}
	case 4:
		ip = netip.AddrFrom4([4]byte(r.take(4)))
	case 6:
		ip = netip.AddrFrom16([16]byte(r.take(16)))
		if n := int(min(r.byte(), maxZone)); n > 0 {
			ip = ip.WithZone(string(r.take(n)))
		}
	default:
		r.bad = true
	}
	return netip.AddrPortFrom(ip, r.uint16())
}

func (r *reader) string() string {
	n, used := uvarint(r.s)
	if r.bad || used <= 0 || n > uint64(len(r.s)-used) {
		r.bad = true
		return ""
	}
	v := r.s[used : used+int(n)]
	r.s = r.s[used+int(n):]
	return v
}

// uvarint is binary.Uvarint for a string.
func uvarint(s string) (v uint64, n int) {
	for i := 0; i < len(s) && i < binary.MaxVarintLen32; i++ {
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// FieldError names a field that holds what it must not.
type FieldError struct {
	Field string // as in the text form
	Why   string
}

func (e *FieldError) Error() string { return fmt.Sprintf("field %q: %s", e.Field, e.Why) }

// MaxStrings bounds what the strings of an envelope hold together, in bytes, so
// that its file can be read back.
const MaxStrings = 32 << 10

// Check reports the first string that holds CR, LF or NUL, or with which the
// envelope is larger than MaxStrings.
func (e *Envelope) Check() error {
	total := 0
	for i, s := range e.strings() {
		if !clean(*s) {
			return &FieldError{stringNames[i], "control character"}
		}
		if total += len(*s); total > MaxStrings {
			return &FieldError{stringNames[i], "too long"}
		}
	}
	if !clean(e.Source.Addr().Zone()) {
		return &FieldError{"sockaddr", "control character"}
	}
	return nil
}

// stringNames are the names of strings(), in its order.
var stringNames = [...]string{
	"dispatcher", "tag", "smtpname", "helo", "hostname", "username",
	"sender", "sender", "rcpt", "rcpt", "dest", "dest",
	"mda-exec", "mda-user", "mda-subaddress", "dsn-envid", "dsn-orcpt", "errorline",
}

func clean(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '\n' || c == '\r' || c == 0 {
			return false
		}
	}
	return true
}
