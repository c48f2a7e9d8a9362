package server

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/smtp"
)

// filterRow asks the filters about a command and does what they decide.
func (s *Session) filterRow(row *row, arg string) smtp.Reply {
	f := s.Listener.Filter
	if f == nil {
		return row.proceed(s, arg)
	}
	v := f.Phase(s.srv.ctx, s, row.phase, arg)
	s.report(Event{Kind: FilterResponse, Phase: row.phase, Text: v.text()})
	if v.Marked || v.Action == Junk {
		s.junk()
	}
	switch v.Action {
	case Reject, Disconnect:
		return s.filtered(row, v)
	case Rewrite:
		arg = v.Param
		if row.check != nil {
			if r := row.check(s, arg); r.Code != 0 {
				return r
			}
		}
	}
	return row.proceed(s, arg)
}

// filtered answers for a filter that refuses. One that does not say so in SMTP
// costs the client its connection; so does 421 (RFC 5321 section 3.8).
func (s *Session) filtered(row *row, v Verdict) smtp.Reply {
	r := v.Reply
	if r.Code < 400 || r.Code > 599 {
		r = filterBroken
	}
	r.Close = v.Action == Disconnect || r.Code == 421
	if row.phase == PhaseCommit {
		s.rollback()
	}
	return r
}

// junk marks the message, or up to MAIL the whole session.
func (s *Session) junk() {
	if s.tx == nil {
		s.Junk = true
		return
	}
	s.tx.Junk = true
}

func (v Verdict) text() string {
	switch v.Action {
	case Rewrite:
		return "rewrite|" + v.Param
	case Reject:
		return "reject|" + v.Reply.String()
	case Disconnect:
		return "disconnect|" + v.Reply.String()
	case Junk:
		return "junk"
	}
	return "proceed"
}

// report tells the filters of an event at once.
func (s *Session) report(e Event) {
	if f := s.Listener.Filter; f != nil {
		f.Report(s, e)
	}
}

// afterwards reports events of the transaction once the reply is written.
func (s *Session) afterwards(kinds ...EventKind) {
	if s.Listener.Filter == nil {
		return
	}
	for _, k := range kinds {
		s.events = append(s.events, Event{Kind: k, Message: s.tx.ID, Size: s.tx.Size})
	}
}

// reportReply shows a reply to the filters, line by line, and then what it
// brought about.
func (s *Session) reportReply(row *row, r smtp.Reply) {
	if s.Listener.Filter == nil {
		return
	}
	for n := range r.Before {
		s.report(Event{Kind: ProtocolServer, Text: r.First(n)})
	}
	s.report(Event{Kind: ProtocolServer, Text: r.String()})
	if row != nil && s.tx != nil {
		s.reportTx(row, r)
	}
	s.reportLater()
}

// reportLater reports what had to wait for the reply.
func (s *Session) reportLater() {
	for _, e := range s.events {
		s.report(e)
	}
	s.events = s.events[:0]
}

func (s *Session) reportTx(row *row, r smtp.Reply) {
	switch row.phase {
	case PhaseMailFrom:
		if !r.Refused() {
			s.report(Event{Kind: TxBegin, Message: s.tx.ID})
		}
		s.report(Event{Kind: TxMail, Code: r.Code, Text: s.tx.Mail.From.SMTP(), Message: s.tx.ID})
	case PhaseRcptTo:
		s.report(Event{Kind: TxRcpt, Code: r.Code, Text: s.parsed.rcpt.To.SMTP(), Message: s.tx.ID})
	case PhaseData:
		s.report(Event{Kind: TxData, Code: r.Code, Message: s.tx.ID})
	}
}

// reportEnvelopes tells the filters of the envelopes of a recipient.
func (s *Session) reportEnvelopes(first, n uint32) {
	if s.Listener.Filter == nil {
		return
	}
	for i := range n {
		s.report(Event{Kind: TxEnvelope, Message: s.tx.ID, Envelope: mail.EnvelopeAt(s.tx.ID, first+i)})
	}
}
