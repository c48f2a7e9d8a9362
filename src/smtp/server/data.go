package server

import (
	"bytes"
	"fmt"

	"opensmtpd/src/mail/rfc5322"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/smtp"
)

// data opens the body.
func (s *Session) data(string) smtp.Reply {
	s.openBody()
	s.reading = true
	return enterMail
}

// openBody makes ready for the message. Our own header fields come first; with
// filters they pass through them like the client's.
func (s *Session) openBody() {
	t := s.tx
	b := &t.body
	t.Received = s.srv.clock.Now()
	b.raw = t.chunks
	b.begin(s.srv.pools, s.Listener.Settings.MaxSize)
	b.chunk = func(piece []byte) *mailerr.Error {
		t.Streamed = true
		return s.srv.backend.Chunk(s.srv.ctx, t, piece)
	}
	b.head.Domain = s.Hostname
	if s.User != "" && s.Listener.Senders != "" && s.Listener.Masquerade && !t.Mail.From.IsZero() {
		b.head.From = t.Mail.From.SMTP()
	}
	if s.Listener.Submission || s.User != "" {
		b.head.Date = string(rfc5322.AppendDate(nil, t.Received))
		b.head.MessageID = fmt.Sprintf("<%016x@%s>", s.srv.newID(), s.Hostname)
	}
	if f := s.Listener.Filter; f != nil {
		if lf := f.Lines(s.srv.ctx, s, b.header); lf != nil {
			s.lines, b.line = lf, lf.Line
		}
	}
	s.trace(b)
}

// trace puts the Received field before the message, and the mark of junk.
func (s *Session) trace(b *body) {
	if b.line == nil {
		if s.tx.Junk {
			*b.out = append(*b.out, "X-Spam: Yes\n"...)
		}
		*b.out = s.appendReceived(*b.out)
		return
	}
	if s.tx.Junk {
		b.line([]byte("X-Spam: Yes"))
	}
	for line := range bytes.Lines(s.appendReceived(nil)) {
		b.line(bytes.TrimSuffix(line, []byte{'\n'}))
	}
}

// appendReceived adds the Received field (RFC 5321 section 4.4), as OpenSMTPD
// writes it, ended by LF.
func (s *Session) appendReceived(b []byte) []byte {
	t := s.tx
	b = append(b, "Received: "...)
	if !s.Listener.MaskSource {
		b = append(append(b, "from "...), s.Helo...)
		b = append(append(b, " ("...), s.Host()...)
		b = append(append(append(b, ' '), s.bracketed()...), ')')
	}
	b = append(append(b, "\n\tby "...), s.Hostname...)
	b = append(append(b, " ("+Software+") with "...), s.protocol()...)
	b = s.appendAuth(s.appendTLS(fmt.Appendf(b, " id %08x", uint32(t.ID))))
	if len(t.Rcpts) == 1 {
		b = append(append(b, "\n\tfor <"...), t.Rcpts[0].To.SMTP()...)
		b = append(b, '>')
	}
	return append(rfc5322.AppendDate(append(b, ";\n\t"...), t.Received), '\n')
}

// protocol is the "with" of Received (RFC 3848). A user of this machine counts
// as authenticated.
func (s *Session) protocol() string {
	p := "SMTP"
	switch {
	case s.tx != nil && s.tx.Mail.UTF8: // RFC 6531 section 4.3
		p = "UTF8SMTP"
	case s.ESMTP:
		p = "ESMTP"
	}
	if s.TLS != nil {
		p += "S"
	}
	if s.Listener.Socket || s.User != "" {
		p += "A"
	}
	return p
}

// appendAuth tells who has authenticated, where the listener wants that.
func (s *Session) appendAuth(b []byte) []byte {
	switch {
	case !s.Listener.ReceivedAuth:
		return b
	case s.User == "":
		return append(b, " auth=no"...)
	}
	return append(append(b, " auth=yes user="...), mlog.VisWhite(s.User)...)
}

// readBody takes what has come of the body, and answers when it is over.
func (s *Session) readBody() error {
	b := &s.tx.body
	s.extend(idleTime)
	fresh := 0
	for {
		p := s.in.unread()
		n, done := b.take(p)
		s.in.take(n)
		if done {
			s.endBody()
			return nil
		}
		if fresh += n; fresh >= progress {
			s.extend(idleTime)
			fresh = 0
		}
		if err := s.more(); err != nil {
			return err
		}
	}
}

// more waits for more of a message.
func (s *Session) more() error {
	err := s.in.fill()
	if err == errWoken {
		err = s.interrupted()
	}
	return err
}

// interrupted is idle in the middle of a message: a server that stops lets it
// come in while it can.
func (s *Session) interrupted() error {
	switch {
	case s.srv.killed.Load():
		s.hangUp(shuttingDown)
		return errShutdown
	case s.late():
		s.report(Event{Kind: Timeout})
		s.hangUp(timedOut)
		return errTimeout
	}
	return nil
}

// endBody answers the lone dot.
func (s *Session) endBody() {
	s.reading = false
	s.command = "."
	s.endLines()
	s.report(Event{Kind: ProtocolClient, Text: "."})
	taint := s.tx.body.taint
	r := s.endMessage()
	if taint && len(s.in.unread()) > 0 {
		// Where the message ended is what servers disagree about; what stands
		// behind it is not obeyed.
		r.Close = true
	}
	s.answer(&endOfData, r)
}

// endLines closes the message once its last line has come.
func (s *Session) endLines() {
	b := &s.tx.body
	if s.lines != nil {
		if err := s.lines.End(); err != nil {
			b.refuse(mailerr.From(err))
		}
		s.lines = nil
	}
	b.end()
}

// endMessage asks the filters about the message, unless it is refused anyhow, and
// makes it durable.
func (s *Session) endMessage() smtp.Reply {
	if s.tx.body.err != nil {
		return s.commit("")
	}
	return s.filterRow(&endOfData, "")
}

// commit makes the message durable. Its 250 is the promise of this program.
func (s *Session) commit(string) smtp.Reply {
	t := s.tx
	b := &t.body
	if t.Streamed || len(*b.out) > largeBody {
		b.handOn()
	}
	t.Size = b.kept + int64(len(*b.out))
	t.TLSOptional = b.head.TLSOptional() && !t.Mail.RequireTLS
	if b.err == nil {
		if err := s.srv.backend.Commit(s.srv.ctx, t, *b.out); err != nil {
			b.refuse(err)
		}
	}
	if err := b.err; err != nil {
		return s.refuseMessage(smtp.FromError(err))
	}
	s.logAccepted(t)
	s.mails++
	s.errors, s.unknown = 0, 0
	s.afterwards(250, TxCommit, TxReset)
	r := accepted(t.ID)
	s.drop()
	return r
}

// refuseMessage forgets a message that has come in, and returns the answer to it.
func (s *Session) refuseMessage(r smtp.Reply) smtp.Reply {
	s.afterwards(r.Code, TxData)
	s.rollback()
	return r
}

func (s *Session) logAccepted(t *Transaction) {
	proto := "SMTP"
	if s.ESMTP {
		proto = "ESMTP"
	}
	s.srv.log.SMTPMessage(s.ID, t.ID, t.Size, len(t.Rcpts), proto)
	for i := range t.Rcpts {
		r := &t.Rcpts[i]
		s.srv.log.SMTPEnvelope(s.ID, r.Last, t.Mail.From.SMTP(), r.To.SMTP())
	}
}
