package format

import (
	"strings"
	"unicode/utf8"
)

// sanitise replaces by a colon every byte that a shell, a file name or a log
// could take for something else. OpenSMTPD replaces !#$%&'*?`{|}~ and knows
// nothing else in a local part; quoted local parts (RFC 5321 section 4.1.2)
// bring the rest of ASCII, so the list here says what stays.
func sanitise(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !kept(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if kept(r) {
			b.WriteString(s[i : i+n])
		} else {
			b.WriteString(strings.Repeat(":", n))
		}
		i += n
	}
	return b.String()
}

// kept tells what sanitise keeps: what is inert in a shell, brackets (of domain
// literals) and letters beyond ASCII.
func kept(r rune) bool {
	return r == '[' || r == ']' || r > 0xa0 && r != utf8.RuneError && r != 0x2028 && r != 0x2029 || r < 0x80 && inertByte(byte(r))
}

// inert tells whether s means itself wherever it stands in a shell program,
// however often it is evaluated.
func inert(s string) bool {
	for i := range len(s) {
		if !inertByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func inertByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("+-=_/.@:,^", c) >= 0
}
