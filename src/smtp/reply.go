package smtp

import (
	"strconv"
	"strings"

	"opensmtpd/src/mailerr"
)

// maxReplyText keeps a reply line, code and CR LF included, below the 512
// octets of RFC 5321 section 4.5.3.1.5, whatever of the client's own words it
// echoes.
const maxReplyText = 480

// Reply is what the server answers to a command (RFC 5321 section 4.2). The
// zero Reply is none.
type Reply struct {
	Code     int
	Enhanced mailerr.Enhanced // RFC 3463; zero: none is written
	Text     string           // of the last line
	Before   []string         // the lines before the last, when there are several
	Close    bool             // the server closes the connection after it
}

// OK returns a reply of success with enhanced code 2.subject.detail.
func OK(code int, subject, detail uint16, text string) Reply {
	return Reply{Code: code, Enhanced: mailerr.Enhanced{2, subject, detail}, Text: text}
}

// Fail returns a refusal; the class of the enhanced code is the first digit of
// code, which is 4 or 5.
func Fail(code int, subject, detail uint16, text string) Reply {
	return Reply{Code: code, Enhanced: mailerr.Enhanced{uint16(code / 100), subject, detail}, Text: text}
}

// FromError returns what the stranger is told of err.
func FromError(err *mailerr.Error) Reply {
	return Reply{Code: err.Code, Enhanced: err.Enhanced, Text: err.Text, Close: err.Class == mailerr.Drop}
}

// Closing returns r with Close set.
func (r Reply) Closing() Reply {
	r.Close = true
	return r
}

// Refused tells whether the reply is a failure, temporary or permanent.
func (r Reply) Refused() bool { return r.Code >= 400 }

// Append adds the reply as it goes on the wire, every line ended by CR LF.
// Control characters in a text, which would forge lines, become '?'.
func (r Reply) Append(b []byte) []byte {
	for _, text := range r.Before {
		b = append(r.appendLine(b, '-', text), "\r\n"...)
	}
	return append(r.appendLine(b, ' ', r.Text), "\r\n"...)
}

// First returns line n of those before the last, without its line end.
func (r Reply) First(n int) string { return string(r.appendLine(nil, '-', r.Before[n])) }

// String returns the last line without its line end.
func (r Reply) String() string { return string(r.appendLine(nil, ' ', r.Text)) }

func (r Reply) appendLine(b []byte, sep byte, text string) []byte {
	b = append(strconv.AppendInt(b, int64(r.Code), 10), sep)
	if r.Enhanced != (mailerr.Enhanced{}) {
		b = strconv.AppendUint(b, uint64(r.Enhanced[0]), 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(r.Enhanced[1]), 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(r.Enhanced[2]), 10)
		b = append(b, ' ')
	}
	if len(text) > maxReplyText {
		text = text[:maxReplyText]
	}
	from := len(b)
	b = append(b, text...)
	for i := from; i < len(b); i++ {
		if b[i] < ' ' || b[i] == 0x7f {
			b[i] = '?'
		}
	}
	return b
}

// ParseReply reads one line that a filter or an administrator wrote as a reply:
// three digits, the first from 2 to 5, a space, at least one character; an
// enhanced code of the same class is recognised.
func ParseReply(s string) (Reply, bool) {
	if len(s) < 5 || s[0] < '2' || s[0] > '5' || s[3] != ' ' {
		return Reply{}, false
	}
	code, err := strconv.ParseUint(s[:3], 10, 16)
	if err != nil {
		return Reply{}, false
	}
	r := Reply{Code: int(code), Text: s[4:]}
	if head, rest, found := strings.Cut(r.Text, " "); found {
		if e, ok := ParseEnhanced(head); ok && int(e[0]) == r.Code/100 {
			r.Enhanced, r.Text = e, rest
		}
	}
	return r, true
}

// ParseEnhanced reads an enhanced status code, "5.7.1": class 2, 4 or 5, the
// others of one to three digits without leading zeros (RFC 3463 section 2).
func ParseEnhanced(s string) (mailerr.Enhanced, bool) {
	var e mailerr.Enhanced
	for i := range e {
		part, rest, found := strings.Cut(s, ".")
		if found != (i < 2) || len(part) == 0 || len(part) > 3 || len(part) > 1 && part[0] == '0' {
			return mailerr.Enhanced{}, false
		}
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return mailerr.Enhanced{}, false
		}
		e[i], s = uint16(n), rest
	}
	if e[0] != 2 && e[0] != 4 && e[0] != 5 {
		return mailerr.Enhanced{}, false
	}
	return e, true
}
