package server

import (
	"fmt"
	"strconv"

	"opensmtpd/src/mail"
	"opensmtpd/src/smtp"
)

func (s *Session) checkHelo(arg string) smtp.Reply { return checkHost(arg, heloNoDomain) }
func (s *Session) checkEhlo(arg string) smtp.Reply { return checkHost(arg, ehloNoDomain) }

func checkHost(arg string, none smtp.Reply) smtp.Reply {
	switch {
	case arg == "":
		return none
	case !smtp.ValidHost(arg):
		return badDomain
	}
	return smtp.Reply{}
}

func (s *Session) helo(arg string) smtp.Reply {
	s.identify(arg, "HELO")
	return smtp.Reply{Code: 250, Text: s.hello()}
}

func (s *Session) ehlo(arg string) smtp.Reply {
	s.identify(arg, "EHLO")
	lines := []string{
		s.hello(),
		"8BITMIME",
		"ENHANCEDSTATUSCODES",
		"PIPELINING",
		"CHUNKING",
		"SMTPUTF8",
		"SIZE " + strconv.FormatInt(s.Listener.Settings.MaxSize, 10),
		s.limits(),
	}
	if !s.Listener.NoDSN {
		lines = append(lines, "DSN")
	}
	if s.TLS != nil {
		lines = append(lines, "REQUIRETLS")
	}
	if t := s.Listener.TLS; t != nil && s.TLS == nil {
		lines = append(lines, "STARTTLS")
	}
	if s.offersAuth() {
		lines = append(lines, s.authLine())
	}
	return smtp.Reply{Code: 250, Before: lines, Text: "HELP"}
}

// limits says what a client may do before it is told 452 (RFC 9422).
func (s *Session) limits() string {
	set := &s.Listener.Settings
	return fmt.Sprintf("LIMITS MAILMAX=%d RCPTMAX=%d", set.MaxMails, set.MaxRcpt)
}

// identify begins anew, as every HELO and EHLO does (RFC 5321 section 4.1.4).
func (s *Session) identify(host, how string) {
	s.rollback()
	s.Helo, s.ESMTP = host, how == "EHLO"
	s.report(Event{Kind: LinkIdentify, Text: how})
}

func (s *Session) hello() string {
	return s.Hostname + " Hello " + s.Helo + " " + s.bracketed() + ", pleased to meet you"
}

// bracketed is the client's address as it stands in replies and Received lines.
func (s *Session) bracketed() string {
	a := s.Address()
	if a[0] == '[' {
		return a
	}
	return "[" + a + "]"
}

// extensions is what EHLO announced. A client that said HELO may use them too:
// some do.
func (s *Session) extensions() smtp.Extension {
	ext := smtp.ExtSize | smtp.Ext8BitMIME | smtp.ExtUTF8
	if s.TLS != nil {
		ext |= smtp.ExtRequireTLS
	}
	if !s.Listener.NoDSN {
		ext |= smtp.ExtDSN
	}
	return ext
}

func (s *Session) checkMail(arg string) smtp.Reply {
	if t := s.Listener.TLS; t != nil && t.Require && s.TLS == nil {
		return startTLSFirst
	}
	if s.Listener.Auth == AuthRequire && s.User == "" {
		return authFirst
	}
	if s.mails >= s.Listener.Settings.MaxMails {
		return tooManyMails
	}
	domain := ""
	if s.Listener.Socket || s.User != "" {
		domain = s.Hostname // OpenSMTPD completes what strangers send too
	}
	m, err := smtp.ParseMail(arg, domain, s.extensions())
	switch {
	case err != nil:
		return smtp.FromError(err)
	case m.Size > uint64(s.Listener.Settings.MaxSize):
		return smtp.FromError(errTooBig)
	}
	s.parsed.mail = m
	return smtp.Reply{}
}

// mail begins a transaction with what checkMail has read.
func (s *Session) mail(string) smtp.Reply {
	if s.User != "" && s.Listener.Senders != "" {
		may, err := s.srv.backend.MaySend(s.srv.ctx, s, s.parsed.mail.From)
		switch {
		case err != nil:
			return smtp.FromError(err)
		case !may:
			return senderRejected
		}
	}
	id, err := s.srv.backend.Begin(s.srv.ctx)
	if err != nil {
		return smtp.FromError(err)
	}
	s.tx = s.srv.pools.transaction()
	s.tx.ID, s.tx.Mail, s.tx.Junk = id, s.parsed.mail, s.Junk
	return ok
}

func (s *Session) checkRcpt(arg string) smtp.Reply {
	switch {
	case s.tx.chunks:
		return notNow
	case len(s.tx.Rcpts) >= s.Listener.Settings.MaxRcpt:
		return tooManyRcpts
	}
	ext := s.extensions()
	if !s.tx.Mail.UTF8 {
		ext &^= smtp.ExtUTF8
	}
	r, err := smtp.ParseRcpt(arg, s.Hostname, ext)
	if err != nil {
		return smtp.FromError(err)
	}
	s.parsed.rcpt = r
	return smtp.Reply{}
}

// rcpt adds the recipient that checkRcpt has read.
func (s *Session) rcpt(string) smtp.Reply {
	t, r := s.tx, &s.parsed.rcpt
	n, err := s.srv.backend.Rcpt(s.srv.ctx, s, t, r)
	if err != nil {
		refusal := smtp.FromError(err)
		refusal.Text += ": <" + r.To.SMTP() + ">"
		return refusal
	}
	t.Envelopes += n
	t.Rcpts = append(t.Rcpts, Recipient{r.To, mail.EnvelopeAt(t.ID, t.Envelopes-1)})
	s.reportEnvelopes(t.Envelopes-n, n)
	return recipientOK
}

func (s *Session) checkData(string) smtp.Reply {
	switch {
	case s.tx.chunks: // RFC 3030 section 2
		return notNow
	case len(s.tx.Rcpts) == 0:
		return noRecipient
	}
	return smtp.Reply{}
}

func (s *Session) rset(string) smtp.Reply {
	s.rollback()
	return resetState
}

// rollback forgets the message that is being received, if any.
func (s *Session) rollback() {
	t := s.tx
	if t == nil {
		return
	}
	s.srv.backend.Discard(t.ID)
	s.afterwards(0, TxRollback, TxReset)
	s.drop()
}

// drop ends the transaction.
func (s *Session) drop() {
	s.tx.body.release()
	s.srv.pools.putTransaction(s.tx)
	s.tx, s.lines, s.reading = nil, nil, false
}

func (s *Session) quit(string) smtp.Reply { return bye }
func (s *Session) noop(string) smtp.Reply { return ok }
func (s *Session) help(string) smtp.Reply { return helpText }
func (s *Session) wiz(string) smtp.Reply  { return noWiz }
func (s *Session) expn(string) smtp.Reply { return notImplemented }

func (s *Session) checkVrfy(arg string) smtp.Reply {
	if arg == "" {
		return vrfyNoArg
	}
	return smtp.Reply{}
}

// vrfy never tells who exists (RFC 5321 section 7.3).
func (s *Session) vrfy(string) smtp.Reply { return cannotVerify }

func (s *Session) foreign(string) smtp.Reply { return wrongProtocol }

// accepted is the reply to a message that is durable.
func accepted(id mail.MessageID) smtp.Reply {
	return smtp.OK(250, 0, 0, fmt.Sprintf("%v Message accepted for delivery", id))
}
