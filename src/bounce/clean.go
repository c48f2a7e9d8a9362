package bounce

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"opensmtpd/src/smtp"
)

// Bounds on what strangers chose, in bytes, so that no line passes the 998 of
// RFC 5322 section 2.1.1.
const (
	maxAddress = 600 // 255@255 with every character of the local part quoted
	maxReason  = 700
)

// line makes one printable line of s: each run of control characters, line
// ends and other white space becomes one space, what is no UTF-8 becomes '?',
// and what is too long ends in "...".
func line(s string, limit int) string {
	if clean(s) && len(s) <= limit {
		return s
	}
	var b strings.Builder
	space := false
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			r = '?'
		case !unicode.IsPrint(r):
			r = ' '
		}
		if r == ' ' && space && !strings.HasPrefix(s[i:], " ") {
			continue
		}
		space = r == ' '
		if b.Len()+utf8.RuneLen(r) > limit-3 {
			b.WriteString("...")
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

func clean(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// plain writes what is not ASCII as \x{…}, the form that RFC 6533 section 3
// gives addresses among 7-bit fields.
func plain(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return line(b.String(), maxReason)
}

// unescape is the inverse of plain. What is no escape stays as it is.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, `\x{`)
		digits, after, closed := strings.Cut(rest, "}")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n, err := strconv.ParseUint(digits, 16, 21)
		if r := rune(n); !closed || err != nil || !utf8.ValidRune(r) {
			b.WriteString(`\x{`)
			s = rest
			continue
		}
		b.WriteRune(rune(n))
		s = after
	}
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// atom tells whether s is a non-empty address type: letters, digits and '-'.
func atom(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

// unxtext decodes xtext; what is none stays as it is.
func unxtext(s string) string {
	if plain, ok := smtp.DecodeXtext(s); ok {
		return plain
	}
	return s
}
