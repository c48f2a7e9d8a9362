package server

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/smtp"
)

// AuthPolicy is what a listener wants of AUTH (RFC 4954).
type AuthPolicy uint8

const (
	NoAuth       AuthPolicy = iota
	AuthOptional            // offered
	AuthRequire             // and wanted before MAIL
)

// Limits of what proves an identity, in bytes. A user stands in envelopes, log
// lines and the protocols of programs.
const (
	maxUser     = 255
	maxPassword = 1024 // as in OpenSMTPD; hashing costs more for longer ones
)

// exchange is an AUTH that is going on.
type exchange struct {
	method *method
	server sasl.Server
	step   int // responses so far
	// What the client has said, once the exchange is over.
	identity, user, password string
	outcome                  *outcome // of what was verified on the way; nil: nothing
}

// outcome is what came of a try.
type outcome struct {
	ok, locked bool
	err        *mailerr.Error
	wait       time.Duration // before the answer to a failure
}

// method is a mechanism of SASL (RFC 4422).
type method struct {
	name string
	// shown names the command in the log at each step: credentials must not
	// stand there.
	shown []string
	start func(*Session, *exchange) sasl.Server
	// offered tells whether a session may use it; nil: every one may.
	offered func(*Session) bool
}

// methods is never written. The order is that of EHLO.
var methods = []method{
	{"PLAIN", []string{"AUTH PLAIN (...)"}, func(_ *Session, x *exchange) sasl.Server {
		return sasl.NewPlainServer(func(identity, user, password string) error {
			x.identity, x.user, x.password = identity, user, password
			return nil
		})
	}, nil},
	{"LOGIN", []string{"AUTH LOGIN (username)", "AUTH LOGIN (password)"}, func(_ *Session, x *exchange) sasl.Server {
		return &login{x: x}
	}, nil},
	{"SCRAM-SHA-256", []string{"AUTH SCRAM-SHA-256 (...)"}, newScram, (*Session).offersScram},
}

// login is the server's side of LOGIN, a draft that never became a standard and
// that many clients speak.
type login struct {
	x       *exchange
	hasUser bool
}

// Next implements sasl.Server.
func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case !l.hasUser:
		l.x.user, l.hasUser = string(response), true
		return []byte("Password:"), false, nil
	}
	l.x.password = string(response)
	return nil, true, nil
}

// offersAuth tells whether AUTH may be used now: not in clear, but where all that
// is said stays within the machine.
func (s *Session) offersAuth() bool {
	return s.Listener.Auth != NoAuth && (s.TLS != nil || s.Listener.AuthClear) && s.User == ""
}

// authLine is the line of EHLO that names the mechanisms.
func (s *Session) authLine() string {
	line := "AUTH"
	for i := range methods {
		if m := &methods[i]; m.offered == nil || m.offered(s) {
			line += " " + m.name
		}
	}
	return line
}

func (s *Session) checkAuth(arg string) smtp.Reply {
	switch {
	case s.User != "":
		return alreadyAuth
	case !s.offersAuth():
		return unsupported
	case arg == "":
		return noMechanism
	case s.failures >= maxFailures:
		return tooManyFailures
	}
	return smtp.Reply{}
}

// authenticate begins an exchange, with the initial response if there is one.
func (s *Session) authenticate(arg string) smtp.Reply {
	name, response, has := cutMechanism(arg)
	for i := range methods {
		m := &methods[i]
		if !smtp.EqualFold(name, m.name) || m.offered != nil && !m.offered(s) {
			continue
		}
		x := &exchange{method: m}
		x.server = m.start(s, x)
		s.auth = x
		if !has {
			return s.next(nil)
		}
		return s.respond(response)
	}
	return smtp.Fail(504, 7, 4, `Security features not supported: AUTH method "`+name+`" not supported`)
}

func cutMechanism(arg string) (name, response string, has bool) {
	i := strings.IndexAny(arg, " \t")
	if i < 0 {
		return arg, "", false
	}
	return arg[:i], strings.Trim(arg[i:], " \t"), true
}

// respond takes a response as it stands in the line (RFC 4954 section 4): base64,
// "=" for an empty initial one, or "*" to give up.
func (s *Session) respond(line string) smtp.Reply {
	x := s.auth
	s.command = x.method.shown[min(x.step, len(x.method.shown)-1)]
	x.step++
	if line == "*" {
		s.auth = nil
		return authCancelled
	}
	if line == "=" {
		line = ""
	}
	response, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		s.auth = nil
		return syntaxError
	}
	return s.next(response)
}

// next takes the exchange a step on; nil is for no response yet.
func (s *Session) next(response []byte) smtp.Reply {
	x := s.auth
	challenge, done, err := x.server.Next(response)
	switch {
	case err != nil:
		s.auth = nil
		return syntaxError
	case !done:
		return smtp.Reply{Code: 334, Text: base64.StdEncoding.EncodeToString(challenge)}
	}
	s.auth = nil
	if !speakable(x.user, maxUser) || x.outcome == nil && !speakable(x.password, maxPassword) {
		return syntaxError
	}
	return s.verify(x)
}

// speakable tells whether a user or a password can be handed to a table program
// and shown in a line of the log.
func speakable(s string, max int) bool {
	return s != "" && len(s) <= max && !strings.ContainsAny(s, "\x00\r\n")
}

// verify asks whether the client is who it says it is, unless that is known, and
// answers. Nobody may act as somebody else (RFC 4616 section 2).
func (s *Session) verify(x *exchange) smtp.Reply {
	if x.outcome == nil {
		x.outcome = s.try(func() (bool, *mailerr.Error) {
			ok, err := s.srv.backend.Authenticate(s.srv.ctx, s, x.user, x.password)
			return ok && (x.identity == "" || x.identity == x.user), err
		})
	}
	o := x.outcome
	switch {
	case o.locked:
		return s.verified(x.user, "tempfail", "error", guessedTooOften)
	case o.err != nil:
		if o.err.Cause != nil {
			s.srv.log.SMTPAuthTrouble(s.ID, x.user, o.err.Cause)
		}
		return s.verified(x.user, "tempfail", "error", authTrouble)
	case o.ok:
		s.User, s.failures = x.user, 0
		return s.verified(x.user, "ok", "pass", authSucceeded)
	}
	s.failures++
	r := s.verified(x.user, "permfail", "fail", authFailed)
	if !s.Listener.Socket && s.in.flush() == nil {
		s.srv.pause(o.wait)
	}
	return r
}

// try has something verified, within what the address of the client may try.
func (s *Session) try(verdict func() (bool, *mailerr.Error)) *outcome {
	addr := s.Client.Addr.Addr()
	if !s.srv.guesses.begin(addr) {
		return &outcome{locked: true}
	}
	ok, err := verdict()
	ok = ok && err == nil
	return &outcome{ok: ok, err: err, wait: s.srv.guesses.end(addr, !ok && err == nil)}
}

// verified tells the log and the filters of a result.
func (s *Session) verified(user, result, event string, r smtp.Reply) smtp.Reply {
	s.srv.log.SMTPAuthentication(s.ID, user, result)
	s.report(Event{Kind: LinkAuth, Text: event + "|" + user})
	return r
}

// credentials answers a line of an exchange. A client that is refused and has
// more to say is hung up on: what it says are credentials, and no commands.
func (s *Session) credentials(line string) {
	if s.srv.trace("smtp") {
		s.srv.log.SMTPTrace(s.ID, "<<<", hidden)
	}
	s.report(Event{Kind: ProtocolClient, Text: hidden})
	r := s.respond(line)
	if r.Refused() && len(s.in.unread()) > 0 {
		r.Close = true
	}
	row := find("AUTH")
	s.slow(row, r)
	s.say(row, r)
}

// hidden is shown in the place of credentials.
const hidden = "********"

// withoutSecret returns a command line as it may be shown: of what looks like an
// AUTH, however malformed, no more than the mechanism is left.
func withoutSecret(line, instead string) string {
	if len(line) < 4 || !smtp.EqualFold(line[:4], "AUTH") {
		return line
	}
	words := strings.Fields(line)
	keep := 1
	if len(words[0]) == 4 {
		keep = 2
	}
	if len(words) <= keep {
		return line
	}
	return strings.ToUpper(strings.Join(words[:keep], " ")) + " " + instead
}
