package addr

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

const (
	// MaxLocal is the longest local part, in bytes. RFC 5321 section 4.5.3.1.1
	// obliges us to take 64 and asks for more; OpenSMTPD takes 255, and
	// rewritten bounce addresses (SRS, VERP, BATV) do pass 64.
	MaxLocal = 255
	// MaxDomain is the longest domain, in bytes (RFC 5321 section 4.5.3.1.2).
	MaxDomain = 255
	maxLabel  = 63 // RFC 1035 section 2.3.4
)

// What may be wrong with an address. Every parser here returns one of these.
var (
	ErrSyntax   = errors.New("address syntax error")
	ErrNoDomain = errors.New("address without a domain")
	ErrLong     = errors.New("address too long")
	ErrUTF8     = errors.New("address needs SMTPUTF8")
)

// ParsePath reads the path at the head of s, as it follows MAIL FROM: and
// RCPT TO:, and returns what stands behind its '>'. "<>" gives the zero
// Address. A path without a domain is ErrNoDomain, but for "<postmaster>" in
// any case (RFC 5321 section 4.1.1.3), which has an empty Domain. The source
// route of old is dropped (RFC 5321 appendix C).
//
// With ErrNoDomain the Address holds the local part, checked, so that a caller
// who trusts the client may complete it as OpenSMTPD does.
func ParsePath(s string) (a Address, rest string, err error) {
	if s == "" || s[0] != '<' {
		return Address{}, "", ErrSyntax
	}
	end := closing(s)
	if end < 0 {
		return Address{}, "", ErrSyntax
	}
	inner, rest := s[1:end], s[end+1:]
	if inner == "" {
		return Address{}, rest, nil
	}
	if inner, err = dropRoute(inner); err != nil {
		return Address{}, "", err
	}
	a, err = Parse(inner)
	if err == ErrNoDomain && equalFold(a.Local, "postmaster") {
		err = nil
	}
	return a, rest, err
}

// Parse reads a mailbox without angle brackets: local@domain, local@[literal].
// Without '@' it is ErrNoDomain, with the local part in the Address when that is
// well formed. With ErrUTF8 the Address is whole.
func Parse(s string) (Address, error) {
	utf8 := ascii(s)
	if utf8 != nil && utf8 != ErrUTF8 {
		return Address{}, utf8
	}
	local, n, err := parseLocal(s)
	if err != nil {
		return Address{}, err
	}
	if len(local) > MaxLocal {
		return Address{}, ErrLong
	}
	if n == len(s) {
		return Address{Local: local}, ErrNoDomain
	}
	if s[n] != '@' {
		return Address{}, ErrSyntax
	}
	domain := s[n+1:]
	if err := CheckDomain(domain); err != nil && err != ErrUTF8 {
		return Address{}, err
	}
	return Address{local, domain}, utf8
}

// ascii refuses control characters and tells text that SMTPUTF8 would allow
// from rubbish.
func ascii(s string) error {
	high := false
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return ErrSyntax
		}
		high = high || s[i] >= 0x80
	}
	switch {
	case !high:
		return nil
	case utf8.ValidString(s):
		return ErrUTF8
	}
	return ErrSyntax
}

// Written returns what the first path in a text has between its angle brackets,
// as it was written there.
func Written(text string) (inner string, ok bool) {
	i := strings.IndexByte(text, '<')
	if i < 0 {
		return "", false
	}
	text = text[i:]
	end := closing(text)
	if end < 0 {
		return "", false
	}
	return text[1:end], true
}

// closing returns the index of the '>' that ends the path, or -1; one inside a
// quoted string does not.
func closing(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

func dropRoute(s string) (string, error) {
	for more := s[0] == '@'; more; {
		i := strings.IndexAny(s, ",:")
		if i < 0 || s[0] != '@' {
			return "", ErrSyntax
		}
		switch err := CheckDomain(s[1:i]); err {
		case nil:
		case ErrUTF8: // nobody writes such a route, and it would say nothing
			return "", ErrSyntax
		default:
			return "", err
		}
		more = s[i] == ','
		if s = s[i+1:]; s == "" {
			return "", ErrSyntax
		}
	}
	return s, nil
}

// parseLocal returns the local part at the head of s, unquoted, and how many
// bytes of s it took.
func parseLocal(s string) (string, int, error) {
	if strings.HasPrefix(s, `"`) {
		return parseQuoted(s)
	}
	n := strings.IndexByte(s, '@')
	if n < 0 {
		n = len(s)
	}
	if !dotString(s[:n]) {
		return "", 0, ErrSyntax
	}
	return s[:n], n, nil
}

func parseQuoted(s string) (string, int, error) {
	var b []byte
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			if len(b) == 0 {
				return "", 0, ErrSyntax // an empty local part is of no use to anyone
			}
			return string(b), i + 1, nil
		case '\\':
			i++
			if i == len(s) {
				return "", 0, ErrSyntax
			}
		}
		b = append(b, s[i])
	}
	return "", 0, ErrSyntax
}

// dotString tells whether s is atoms joined by dots, none of them empty.
func dotString(s string) bool {
	dot := true
	for i := 0; i < len(s); i++ {
		if s[i] == '.' {
			if dot {
				return false
			}
			dot = true
			continue
		}
		if !atext(s[i]) {
			return false
		}
		dot = false
	}
	return !dot
}

// atext is RFC 5322 section 3.2.3 and what RFC 6531 section 3.3 adds.
func atext(c byte) bool {
	return alnum(c) || c >= 0x80 || c > ' ' && c < 0x7f && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func alnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// CheckDomain tells what is wrong with the domain of an address: nil for a host
// name (underscores are let through, as they occur) or an address literal,
// ErrUTF8 for a name that is well formed and beyond ASCII.
func CheckDomain(s string) error {
	utf8 := ascii(s)
	switch {
	case utf8 != nil && utf8 != ErrUTF8:
		return utf8
	case len(s) > MaxDomain:
		return ErrLong
	case utf8 != nil:
		if _, ok := ASCIIDomain(s); !ok {
			return ErrSyntax
		}
		return utf8
	}
	if strings.HasPrefix(s, "[") {
		if _, ok := Literal(s); !ok {
			return ErrSyntax
		}
		return nil
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return ErrSyntax
		}
	}
	return nil
}

func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !alnum(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return true
}

// Literal reads an address literal, "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC
// 5321 section 4.1.3). The tag may be missing, as OpenSMTPD has it. Zones are
// refused: they mean nothing to another machine.
func Literal(s string) (netip.Addr, bool) {
	if len(s) < 4 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	s = s[1 : len(s)-1]
	tagged := len(s) > 5 && equalFold(s[:5], "IPv6:")
	if tagged {
		s = s[5:]
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" || tagged && ip.Is4() {
		return netip.Addr{}, false
	}
	return ip, true
}
