package server

import (
	"bytes"
	"fmt"

	"opensmtpd/src/smtp"
)

// A chunk is what follows BDAT (RFC 3030): so many bytes, whatever was answered.
type chunk struct {
	size, left uint64
	last       bool
	row        *row       // what its answer is reported as
	refusal    smtp.Reply // none: the chunk is taken
}

// firstChunk is DATA for who sends chunks: filters are asked about it likewise.
// Of the others nobody is told.
var (
	firstChunk = row{"BDAT", PhaseData, needTx, nil, (*Session).beginChunks}
	otherChunk = row{"BDAT", NoPhase, 0, nil, nil}
)

// bdat announces a chunk. Its answer comes when the chunk has; a chunk whose size
// cannot be read leaves no way to find the next command.
func (s *Session) bdat(arg string) smtp.Reply {
	size, last, ok := smtp.ParseBDAT(arg)
	if !ok {
		return badChunk
	}
	c := &chunk{size: size, left: size, last: last, row: &otherChunk}
	s.chunk = c
	switch {
	case s.Helo == "" || s.tx == nil:
		c.refusal = notNow
	case s.tx.chunks:
	case len(s.tx.Rcpts) == 0:
		c.refusal = noRecipient
	default:
		if c.refusal = s.filterRow(&firstChunk, ""); c.refusal.Code != 0 {
			c.row = &firstChunk
		}
	}
	return smtp.Reply{}
}

// beginChunks opens the body at the first chunk. An empty reply lets the chunk in.
func (s *Session) beginChunks(string) smtp.Reply {
	s.tx.chunks = true
	s.report(Event{Kind: TxData, Code: 250, Message: s.tx.ID})
	s.openBody()
	return smtp.Reply{}
}

// readChunk takes what has come of a chunk, and answers when that is all of it.
func (s *Session) readChunk() error {
	c := s.chunk
	s.extend(idleTime)
	for fresh := 0; c.left > 0; {
		p := s.in.unread()
		if c.left < uint64(len(p)) {
			p = p[:c.left]
		}
		if c.refusal.Code == 0 {
			s.tx.body.takeChunk(p)
		}
		s.in.take(len(p))
		c.left -= uint64(len(p))
		if fresh += len(p); fresh >= progress {
			s.extend(idleTime)
			fresh = 0
		}
		if c.left > 0 {
			if err := s.more(); err != nil {
				return err
			}
		}
	}
	s.chunk = nil
	s.endChunk(c)
	return nil
}

// endChunk answers a chunk. One that is refused ends its message: those behind it
// are read and refused, too (RFC 3030 section 2).
func (s *Session) endChunk(c *chunk) {
	switch b := s.body(); {
	case c.refusal.Code != 0:
		s.answer(c.row, c.refusal)
	case b.err != nil && !c.last:
		s.answer(c.row, s.refuseMessage(smtp.FromError(b.err)))
	case c.last:
		b.closeLine()
		s.endLines()
		s.answer(&endOfData, s.endMessage())
	default:
		s.answer(c.row, smtp.OK(250, 0, 0, fmt.Sprintf("%d octets received", c.size)))
	}
}

// body is that of the message being received, or nil.
func (s *Session) body() *body {
	if s.tx == nil {
		return nil
	}
	return &s.tx.body
}

// takeChunk reads all of p, a piece of a chunk. What needs more to make sense is
// kept: chunks end anywhere.
func (b *body) takeChunk(p []byte) {
	for len(b.carry) > 0 && len(p) > 0 {
		n := len(p)
		if lf := bytes.IndexByte(p, '\n'); lf >= 0 {
			n = lf + 1
		}
		b.carry = append(b.carry, p[:n]...)
		p = p[n:]
		used, _ := b.take(b.carry)
		b.carry = append(b.carry[:0], b.carry[used:]...)
	}
	used, _ := b.take(p)
	b.carry = append(b.carry, p[used:]...)
}

// closeLine ends the last line, which a chunk may leave open.
func (b *body) closeLine() {
	if b.mid || len(b.carry) > 0 {
		b.takeChunk([]byte("\r\n"))
	}
}
