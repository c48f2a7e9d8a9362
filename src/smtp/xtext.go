package smtp

import (
	"strings"
	"unicode/utf8"
)

// ValidXtext tells whether s is xtext (RFC 3461 section 4): printable ASCII
// without space and '=', with '+' only before two upper-case hexadecimal digits.
func ValidXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < '!' || c > '~' || c == '=':
			return false
		case c == '+':
			if i+2 >= len(s) || !hexDigit(s[i+1]) || !hexDigit(s[i+2]) {
				return false
			}
			i += 2
		}
	}
	return true
}

// validUnitext tells whether s is utf-8-addr-unitext (RFC 6533 section 3): xtext's
// characters without '+' and '\\', and everything beyond ASCII.
func validUnitext(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < '!' || c == 0x7f || c == '=' || c == '+' || c == '\\' {
			return false
		}
	}
	return utf8.ValidString(s)
}

// DecodeXtext returns what s stands for, or false when s is not xtext.
func DecodeXtext(s string) (string, bool) {
	if !ValidXtext(s) {
		return "", false
	}
	if strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '+' {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b), true
}

func hexDigit(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}
