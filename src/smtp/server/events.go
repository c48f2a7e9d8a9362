package server

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/smtp"
)

// filterRow asks the filters about a command and does what they decide.
func (s *Session) filterRow(row *row, arg string) smtp.Reply {
	f := s.Listener.Filter
	if f == nil {
		return row.proceed(s, arg)
	}
	v := f.Phase(s.srv.ctx, s, row.phase, arg).spoken()
	s.report(Event{Kind: FilterResponse, Phase: row.phase, Text: v.text()})
	if v.Marked || v.Action == Junk {
		s.junk()
	}
	switch v.Action {
	case Reject, Disconnect:
		v.Reply.Close = v.Action == Disconnect
		if row.phase == PhaseCommit {
			return s.refuseMessage(v.Reply)
		}
		return v.Reply
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

// spoken is a verdict in SMTP. A refusal that is none costs the client its
// connection; so does 421 (RFC 5321 section 3.8).
func (v Verdict) spoken() Verdict {
	if v.Action != Reject && v.Action != Disconnect {
		return v
	}
	if v.Reply.Code < 400 || v.Reply.Code > 599 {
		v.Reply = filterBroken
	}
	if v.Reply.Code == 421 {
		v.Action = Disconnect
	}
	return v
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
	case Report:
		return "report|" + v.Param
	}
	return "proceed"
}

// report tells the filters of an event at once.
func (s *Session) report(e Event) {
	if f := s.Listener.Filter; f != nil {
		f.Report(s, e)
	}
}

// afterwards reports events of the transaction once the reply, of this code, is
// written.
func (s *Session) afterwards(code int, kinds ...EventKind) {
	if s.Listener.Filter == nil {
		return
	}
	for _, k := range kinds {
		s.events = append(s.events, Event{Kind: k, Code: code, Message: s.tx.ID, Size: s.tx.Size})
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

// reportTx reports how a command of the transaction was answered. Addresses are
// told as the client has written them.
func (s *Session) reportTx(row *row, r smtp.Reply) {
	e := Event{Code: r.Code, Message: s.tx.ID}
	switch row.phase {
	case PhaseMailFrom:
		if !r.Refused() {
			s.report(Event{Kind: TxBegin, Message: s.tx.ID})
		}
		e.Kind = TxMail
	case PhaseRcptTo:
		e.Kind = TxRcpt
	case PhaseData:
		if len(s.tx.Rcpts) > 0 {
			e.Kind = TxData
			s.report(e)
		}
		return
	default:
		return
	}
	var written bool
	if e.Text, written = addr.Written(s.command); written {
		s.report(e)
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
