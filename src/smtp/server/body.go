package server

import (
	"bytes"
	"errors"

	"opensmtpd/src/mail/rfc5322"
	"opensmtpd/src/mailerr"
)

// Why a message is refused once its last line has come.
var (
	errTooBig    = mailerr.Permanent(552, 3, 4, "Message too big for system: Transaction failed, message too big", nil)
	errMalformed = mailerr.Permanent(550, 7, 1, "Delivery not authorized, message refused: Message is not RFC 2822 compliant", nil)
	errLoop      = mailerr.Permanent(500, 4, 6, "Routing loop detected: Loop detected", nil)
	errBare      = mailerr.Permanent(550, 6, 11, "Bare carriage return or line feed in message", nil)
	errLineLong  = mailerr.Permanent(500, 0, 0, "Line too long", nil)
)

// A body is a message on its way in: from lines ended by CR LF, with dots
// stuffed (RFC 5321 section 4.5.2), to lines ended by LF, its header rewritten.
type body struct {
	head  rfc5322.Rewriter
	out   *[]byte // lent; what has not been handed on
	pl    *pools
	large bool   // out is of the large kind
	mid   bool   // the last line read has not ended
	bare  bool   // or it ended in a bare LF: a dot behind it ends nothing
	taint bool   // there was a bare CR or LF
	raw   bool   // it comes in chunks: no dots are stuffed, none ends it
	carry []byte // of a chunk, what needs the next one to make sense
	long  int    // its length so far
	size  int64  // of what came, each line end as one byte
	max   int64  // for size
	kept  int64  // bytes handed on
	err   *mailerr.Error
	// chunk hands a piece on.
	chunk func(piece []byte) *mailerr.Error
	// line sees whole lines instead of the header's rewriter when there is a
	// filter; dots are not unstuffed for it.
	line func([]byte)
}

// begin lends b a buffer. What a header may gain through completed addresses is
// bounded too: a line of names gets many times longer.
func (b *body) begin(pl *pools, max int64) {
	b.pl, b.max = pl, max
	b.out = pl.small.Get().(*[]byte)
}

// release returns the buffer; nothing may be taken afterwards.
func (b *body) release() {
	if b.out != nil {
		b.pl.putBody(b.out)
		b.out = nil
	}
}

// refuse keeps the first error. What follows is read and forgotten.
func (b *body) refuse(err *mailerr.Error) {
	if b.err == nil {
		b.err = err
	}
}

// take reads as much of p as it can and returns how many bytes that were. It
// leaves an unfinished line where it needs the whole. done tells that the
// message is over.
func (b *body) take(p []byte) (n int, done bool) {
	rest := p
	for len(rest) > 0 {
		if b.plain() {
			if rest = rest[b.takeLines(rest):]; len(rest) == 0 {
				break
			}
		}
		if !b.raw && !b.mid && !b.bare && rest[0] == '.' {
			if len(rest) < 3 && bytes.HasPrefix(endMark, rest) {
				break
			}
			if bytes.HasPrefix(rest, endMark) {
				return len(p) - len(rest) + len(endMark), true
			}
		}
		used := b.takeLine(rest)
		if used == 0 {
			break
		}
		rest = rest[used:]
	}
	return len(p) - len(rest), false
}

var endMark = []byte(".\r\n")

// plain tells whether nothing is to be done to a line but to keep it.
func (b *body) plain() bool { return !b.mid && b.line == nil && b.err == nil && b.head.InBody() }

// takeLines is the fast path of take: it reads whole lines as long as they are
// well formed and fit, and leaves the rest to takeLine. Bare CRs are counted
// rather than looked for in each line.
func (b *body) takeLines(p []byte) int {
	out, used, lines := *b.out, 0, 0
	for used < len(p) {
		lf := bytes.IndexByte(p[used:], '\n')
		if lf < 1 || lf > MaxLine || p[used+lf-1] != '\r' || len(out)+lf > cap(out) {
			break
		}
		line := p[used : used+lf]
		if line[0] == '.' && !b.raw {
			if lf == len(endMark)-1 {
				break
			}
			line = line[1:]
		}
		out = append(out, line...)
		out[len(out)-1] = '\n' // in the place of CR
		used += lf + 1
		lines++
	}
	*b.out = out
	b.size += int64(used - lines)
	if b.size > b.max {
		b.refuse(errTooBig)
	}
	if bytes.Count(p[:used], crByte) != lines {
		b.tainted()
	}
	return used
}

func (b *body) tainted() {
	b.taint = true
	b.refuse(errBare)
}

// takeLine reads a line, or in the body of a message a part of one, at the head
// of p, which is not empty. It returns 0 when more is needed first.
func (b *body) takeLine(p []byte) int {
	lf := bytes.IndexByte(p, '\n')
	if lf < 0 {
		return b.takePart(p)
	}
	end := lf
	if b.bare = end == 0 || p[end-1] != '\r'; b.bare {
		b.tainted()
	} else {
		end--
	}
	b.text(p[:end], true)
	b.mid = false
	return lf + 1
}

// takePart reads the beginning or the middle of a line whose end has not come.
func (b *body) takePart(p []byte) int {
	if b.whole() && b.err == nil {
		if len(p) <= MaxLine+1 { // CR included
			return 0
		}
		b.refuse(errLineLong)
	}
	if p[len(p)-1] == '\r' {
		p = p[:len(p)-1] // it may be half of the line's end
	}
	if len(p) > 0 {
		b.text(p, false)
		b.mid = true
	}
	return len(p)
}

// whole tells whether lines can only be taken whole.
func (b *body) whole() bool { return b.line != nil || !b.head.InBody() }

// text takes a line or a part of one, as it came less its end.
func (b *body) text(p []byte, ended bool) {
	b.count(p, ended)
	if bytes.IndexByte(p, '\r') >= 0 {
		b.tainted()
	}
	if b.err != nil {
		return
	}
	dot := !b.mid && len(p) > 0 && p[0] == '.'
	switch {
	case b.line != nil && b.raw && dot:
		b.line(append([]byte{'.'}, p...)) // filters see lines as DATA has them
		return
	case b.line != nil:
		b.line(p)
		return
	case dot && !b.raw:
		p = p[1:]
	}
	if b.head.InBody() {
		b.emit(p, ended)
		return
	}
	b.header(p)
}

// count holds the limits of a line and of the message.
func (b *body) count(p []byte, ended bool) {
	if !b.mid {
		b.long = 0
	}
	b.long += len(p)
	b.size += int64(len(p))
	if ended {
		b.size++
	}
	if b.long > MaxLine {
		b.refuse(errLineLong)
	}
	if b.size > b.max {
		b.refuse(errTooBig)
	}
}

// header takes an unstuffed line before the body, or any line that comes out of
// a filter.
func (b *body) header(p []byte) {
	if b.err != nil || !b.room(len(p)) {
		return
	}
	out, err := b.head.Line(*b.out, p)
	*b.out = out
	switch {
	case errors.Is(err, rfc5322.ErrLoop):
		b.refuse(errLoop)
	case err != nil:
		b.refuse(errMalformed)
	}
}

// emit keeps p, which belongs to the body.
func (b *body) emit(p []byte, ended bool) {
	if !b.room(len(p) + 1) {
		return
	}
	*b.out = append(*b.out, p...)
	if ended {
		*b.out = append(*b.out, '\n')
	}
}

// end closes the header of a message that ended inside it.
func (b *body) end() {
	if b.err == nil {
		*b.out = b.head.End(*b.out)
	}
}

// room makes sure that n more bytes, at most inSize+1, fit into out: it takes a
// larger buffer, and then hands on what is there. It is false once the message
// is refused.
func (b *body) room(n int) bool {
	if len(*b.out)+n <= cap(*b.out) {
		return true
	}
	if !b.large {
		old := b.out
		b.out, b.large = b.pl.large.Get().(*[]byte), true
		*b.out = append(*b.out, *old...)
		b.pl.putBody(old)
	}
	if len(*b.out)+n > cap(*b.out) {
		b.handOn()
	}
	return b.err == nil
}

// handOn gives out's content to chunk, and empties it.
func (b *body) handOn() {
	for p := *b.out; len(p) > 0 && b.err == nil; {
		piece := p[:min(len(p), largeBody)]
		p = p[len(piece):]
		if b.kept += int64(len(piece)); b.kept > b.max+gain {
			b.refuse(errTooBig)
			break
		}
		if err := b.chunk(piece); err != nil {
			b.refuse(err)
		}
	}
	*b.out = (*b.out)[:0]
}
