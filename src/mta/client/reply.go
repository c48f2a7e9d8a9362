package client

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"opensmtpd/src/mailerr"
)

const (
	// maxLine is how long a line of a reply may be, in bytes; RFC 5321 section
	// 4.5.3.1.5 allows 512, and servers are longer in their explanations.
	maxLine = 4096
	// maxLines is how many lines a reply may have.
	maxLines = 2000
	// maxText is how much of the text of a reply is kept, in bytes.
	maxText = 1000
)

// What is wrong with a reply.
var (
	errLong   = errors.New("bad response: line too long")
	errLines  = errors.New("bad response: too many lines")
	errCode   = errors.New("bad response: no valid code")
	errMixed  = errors.New("bad response: codes differ within a reply")
	errClosed = errors.New("connection closed unexpectedly")
)

// Reply is what a server answers.
type Reply struct {
	Code     int
	Enhanced mailerr.Enhanced // zero when there is none, or when its class is not that of Code
	Text     string           // without codes, in one line, without control characters
}

// OK tells whether the server agrees.
func (r *Reply) OK() bool { return r.Code/100 == 2 }

// String returns the reply as one line, as the server gave it.
func (r *Reply) String() string {
	return strings.TrimRight((&mailerr.Error{Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}).Reply(), " ")
}

// Codes that need no words, see reply.
const (
	wordy  = 0
	agreed = 250
	goOn   = 354
)

// reply reads one. Of a reply with the code quiet the text is not kept: most
// are read for their code alone.
func (c *Conn) reply(quiet int) (Reply, error) { return c.replyEach(quiet, nil) }

// replyEach calls each for every line, with its number from 0 and its text.
func (c *Conn) replyEach(quiet int, each func(int, string)) (Reply, error) {
	var r Reply
	var b []byte
	for n := 0; ; n++ {
		if n == maxLines {
			return r, errLines
		}
		line, err := c.line()
		if err != nil {
			return r, err
		}
		if c.Watch != nil {
			c.Watch(false, string(line))
		}
		code, more, rest, err := cutReply(line)
		if err != nil {
			return r, err
		}
		if n > 0 && code != r.Code {
			return r, errMixed
		}
		r.Code = code
		if each != nil {
			each(n, clean(rest))
		}
		if code != quiet {
			esc, words := cutEnhanced(rest)
			if n == 0 {
				r.setEnhanced(esc)
			}
			b = appendText(b, words)
		}
		if !more {
			r.Text = clean(b)
			return r, nil
		}
	}
}

// setEnhanced takes a code whose class is right (RFC 2034 section 4).
func (r *Reply) setEnhanced(e mailerr.Enhanced) {
	if int(e[0]) == r.Code/100 {
		r.Enhanced = e
	}
}

func appendText(b, words []byte) []byte {
	if len(b) >= maxText || len(words) == 0 {
		return b
	}
	if len(b) > 0 {
		b = append(b, ' ')
	}
	return append(b, words[:min(len(words), maxText-min(len(b), maxText))]...)
}

// clean makes printable text of what a stranger sent.
func clean(b []byte) string {
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			return strings.TrimSpace(strings.Map(func(r rune) rune {
				if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
					return ' '
				}
				return r
			}, strings.ToValidUTF8(string(b), "?")))
		}
	}
	return string(bytes.TrimSpace(b))
}

// cutReply splits a line of a reply (RFC 5321 section 4.2).
func cutReply(line []byte) (code int, more bool, rest []byte, err error) {
	if len(line) < 3 {
		return 0, false, nil, errCode
	}
	for _, d := range line[:3] {
		if d < '0' || d > '9' {
			return 0, false, nil, errCode
		}
		code = code*10 + int(d-'0')
	}
	if code < 200 || code > 599 {
		return 0, false, nil, errCode
	}
	if len(line) == 3 {
		return code, false, nil, nil
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, nil, errCode
	}
	return code, line[3] == '-', line[4:], nil
}

// cutEnhanced splits off a leading status code (RFC 3463 section 2).
func cutEnhanced(b []byte) (e mailerr.Enhanced, rest []byte) {
	i := 0
	for part := range e {
		n, digits := 0, 0
		for ; i < len(b) && b[i] >= '0' && b[i] <= '9' && digits < 4; i++ {
			n = n*10 + int(b[i]-'0')
			digits++
		}
		if digits == 0 || digits > 3 {
			return mailerr.Enhanced{}, b
		}
		e[part] = uint16(n)
		if part < 2 {
			if i == len(b) || b[i] != '.' {
				return mailerr.Enhanced{}, b
			}
			i++
		}
	}
	if i < len(b) && b[i] != ' ' && b[i] != '\t' {
		return mailerr.Enhanced{}, b
	}
	return e, bytes.TrimLeft(b[i:], " \t")
}

// line returns the next line, without its end. It is valid until the next read.
func (c *Conn) line() ([]byte, error) {
	seen := c.from
	for {
		if i := bytes.IndexByte(c.in[seen:c.to], '\n'); i >= 0 {
			line := c.in[c.from : seen+i]
			c.from = seen + i + 1
			if c.from == c.to {
				c.from, c.to = 0, 0
			}
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		if c.from > 0 {
			c.to = copy(c.in, c.in[c.from:c.to])
			c.from = 0
		}
		if c.to == len(c.in) {
			return nil, errLong
		}
		seen = c.to
		n, err := c.nc.Read(c.in[c.to:])
		c.to += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, errClosed
			}
			return nil, err
		}
	}
}

// encode64 writes an answer of SASL; an empty one is "=" (RFC 4954 section 4).
func encode64(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

func decode64(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimSpace(s))
}
