package smtp

import (
	"strconv"
	"strings"

	"opensmtpd/src/mail/addr"
)

// Command is a command line cut in two. Verb is as the client wrote it; of MAIL
// and RCPT it includes the second word: "MAIL FROM", "rcpt to".
type Command struct {
	Verb   string
	Arg    string // without space around it
	HasArg bool   // Arg is not empty
}

// ParseCommand cuts a line, given without its line end. Like OpenSMTPD it wants
// MAIL and RCPT complete with their colon, and forgives space after it; trailing
// space is no argument (RFC 5321 section 4.1.1).
func ParseCommand(line string) Command {
	for _, two := range [...]string{"MAIL FROM:", "RCPT TO:"} {
		if len(line) >= len(two) && EqualFold(line[:len(two)], two) {
			return command(line[:len(two)-1], line[len(two):])
		}
	}
	verb, arg, _ := strings.Cut(line, " ")
	return command(verb, arg)
}

func command(verb, arg string) Command {
	arg = strings.Trim(arg, " \t")
	return Command{verb, arg, arg != ""}
}

// ParseBDAT reads the argument of BDAT: a size in bytes and perhaps LAST (RFC
// 3030 section 2).
func ParseBDAT(arg string) (size uint64, last, ok bool) {
	digits, word, more := strings.Cut(arg, " ")
	if word = strings.TrimLeft(word, " "); more && !EqualFold(word, "LAST") {
		return 0, false, false
	}
	if strings.Trim(digits, "0123456789") != "" {
		return 0, false, false // ParseUint would take a sign
	}
	size, err := strconv.ParseUint(digits, 10, 64)
	return size, more, err == nil
}

// EqualFold compares without regard to ASCII case. Unlike the one of package
// strings it knows no other letters, so that U+212A is not a K.
func EqualFold(a, b string) bool {
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

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// ValidHost tells whether s may stand after HELO and EHLO: a host name, in which
// underscores are let through as they occur, or an address literal (RFC 5321
// section 4.1.3). A final dot is refused.
func ValidHost(s string) bool { return addr.CheckDomain(s) == nil }
