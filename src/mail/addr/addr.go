// Package addr knows mail addresses: how they are written in SMTP (RFC 5321
// section 4.1.2), how they compare and how patterns match them.
//
//	path       = "<" [ route ] mailbox ">" | "<>" | "<postmaster>"
//	route      = "@" domain *( "," "@" domain ) ":"      accepted and dropped
//	mailbox    = ( dot-string | quoted-string ) "@" ( domain | literal )
//
// An address beyond ASCII (RFC 6531) comes with ErrUTF8: it is well formed, and
// for those who may take it.
package addr

import "strings"

// Address is a mailbox: local part and domain as given, without quoting. The
// zero Address is the null sender; an empty Domain alone is "postmaster" or a
// local name not yet completed.
type Address struct {
	Local  string
	Domain string
}

// IsZero tells whether a is the null sender.
func (a Address) IsZero() bool { return a == Address{} }

// String returns local@domain, or the local part alone, or "", without the
// quoting that SMTP may want: for logs, tables and envelopes. Split with Cut it
// gives a again.
func (a Address) String() string {
	if a.Domain == "" {
		return a.Local
	}
	return a.Local + "@" + a.Domain
}

// SMTP returns a as it goes between < and > in a command or a header: the local
// part is quoted when it is no dot-string (RFC 5321 section 4.1.2).
func (a Address) SMTP() string {
	local := a.Local
	if local != "" && !dotString(local) {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// Equal tells whether a and b are the same mailbox to us: ASCII case does not
// count, in the local part neither, as in every lookup.
func (a Address) Equal(b Address) bool {
	return equalFold(a.Local, b.Local) && equalFold(a.Domain, b.Domain)
}

// Lower returns a with ASCII letters in lower case.
func (a Address) Lower() Address { return Address{Lower(a.Local), Lower(a.Domain)} }

// Lower returns s with ASCII letters in lower case; other bytes stay, so that
// the length does.
func Lower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lower(b[i])
			}
			return string(b)
		}
	}
	return s
}

// EqualDomain tells whether two domains are the same, without regard to ASCII
// case (RFC 5321 section 2.4).
func EqualDomain(a, b string) bool { return equalFold(a, b) }

// SplitTag cuts a local part at the first byte of delim: "user+tag" into "user"
// and "tag". found is false when there is no delimiter.
func SplitTag(local, delim string) (user, tag string, found bool) {
	if delim == "" {
		return local, "", false
	}
	return strings.Cut(local, delim[:1])
}

// Cut splits text at its last '@', without checking either side. "user" has no
// domain, "@domain" no local part.
func Cut(s string) Address {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return Address{Local: s}
	}
	return Address{s[:i], s[i+1:]}
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalFold is strings.EqualFold for ASCII alone: no Unicode letter may equal
// an ASCII one (the Kelvin sign is no k).
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}
