package filter

import (
	"net/netip"
	"strconv"
	"strings"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// Outbound is who hears of sessions with other servers: the programs of the
// filter that a relay action names. Nobody is asked about them.
type Outbound struct {
	clock    clock.Clock
	programs []*Program
}

// Outbound returns who hears of the sessions of a relay action; nil when there
// is nobody.
func (t *Set) Outbound(name string) *Outbound {
	o := &Outbound{clock: t.o.Clock}
	for _, f := range t.conf.Members(name) {
		if g := t.o.Programs[f.Proc]; g != nil {
			o.programs = append(o.programs, g)
		}
	}
	if len(o.programs) == 0 {
		return nil
	}
	return o
}

// Outgoing is a session with another server as programs see it. All of its
// methods are for the goroutine of the session; those of nil do nothing.
type Outgoing struct {
	talk  *talk
	clock clock.Clock
}

// Session begins to tell of a session, which is connected.
func (o *Outbound) Session(id mail.SessionID, name string, from, to netip.AddrPort) *Outgoing {
	if o == nil {
		return nil
	}
	s := &Outgoing{newTalk(id, smtpOut), o.clock}
	s.talk.connect(o.programs)
	forward := "pass"
	if name == "" {
		name, forward = "<unknown>", "fail"
	}
	s.tell(server.LinkConnect, name, forward, portText(from), portText(to))
	return s
}

// tell tells of an event with these fields.
func (s *Outgoing) tell(k server.EventKind, fields ...string) {
	if s == nil {
		return
	}
	s.talk.tell(k, s.clock.Now(), func(b []byte) []byte {
		last := len(fields) - 1
		if last < 0 {
			return append(b, '\n')
		}
		for _, f := range fields[:last] {
			b = appendField(b, f)
		}
		return appendLast(b, fields[last])
	})
}

// Greeting tells that the server has greeted us, and by which name.
func (s *Outgoing) Greeting(name string) {
	if !smtp.ValidHost(name) {
		name = ""
	}
	s.tell(server.LinkGreeting, name)
}

// TLS tells that the session is encrypted.
func (s *Outgoing) TLS(text string) { s.tell(server.LinkTLS, text) }

// Auth tells that we have authenticated, or not.
func (s *Outgoing) Auth(ok bool, user string) {
	result := "fail"
	if ok {
		result = "pass"
	}
	s.tell(server.LinkAuth, result, user)
}

// Line tells what either side has said.
func (s *Outgoing) Line(sent bool, line string) {
	if !sent {
		s.tell(server.ProtocolServer, line)
		return
	}
	s.tell(server.ProtocolClient, hide(line))
	switch verb, name, _ := strings.Cut(line, " "); verb {
	case "EHLO", "HELO", "LHLO":
		s.tell(server.LinkIdentify, verb, name)
	}
}

// Mail tells that the server was offered a message, and what it answered.
func (s *Outgoing) Mail(id mail.MessageID, code int, from string) {
	if code < 400 {
		s.tell(server.TxBegin, id.String())
	}
	s.tell(server.TxMail, id.String(), result(code), from)
}

// Rcpt tells of a recipient.
func (s *Outgoing) Rcpt(id mail.MessageID, e mail.EnvelopeID, code int, to string) {
	s.tell(server.TxEnvelope, id.String(), e.String())
	s.tell(server.TxRcpt, id.String(), result(code), to)
}

// Data tells how DATA was answered.
func (s *Outgoing) Data(id mail.MessageID, code int) {
	s.tell(server.TxData, id.String(), result(code))
}

// Done tells what became of a message that the server was offered.
func (s *Outgoing) Done(id mail.MessageID, taken bool, size uint64) {
	if taken {
		s.tell(server.TxCommit, id.String(), strconv.FormatUint(size, 10))
	} else {
		s.tell(server.TxRollback, id.String())
	}
	s.tell(server.TxReset, id.String())
}

// Timeout tells that the server has taken too long.
func (s *Outgoing) Timeout() { s.tell(server.Timeout) }

// End tells that the session is over. It may be called twice.
func (s *Outgoing) End() {
	if s == nil || s.talk.all() == nil {
		return
	}
	s.tell(server.LinkDisconnect)
	s.talk.end()
}
