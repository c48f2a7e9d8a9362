package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/smtp"
)

// Session is one connection. Its exported fields are for Backend and Filter to
// read, in the goroutine of the session.
type Session struct {
	ID       mail.SessionID
	Listener *Listener
	Client   Client
	Hostname string // what we call ourselves in it
	Admitted bool   // Backend was asked whether it may begin
	Helo     string // what the client called itself last; "": nothing yet
	ESMTP    bool   // by EHLO
	User     string // who has authenticated; "": nobody
	// TLS is the state of the encrypted connection, nil in clear.
	TLS  *tls.ConnectionState
	Junk bool // a filter said so, for all messages
	// Filtering is what the Filter keeps of the session.
	Filtering any

	srv *Server
	in  stream
	tx  *Transaction
	// lines filters the body that is being read; nil: nobody does.
	lines LineFilter
	auth  *exchange // an AUTH that is going on; nil: none
	// parsed is what the check of a row has read, for its proceed.
	parsed struct {
		mail smtp.Mail
		rcpt smtp.Rcpt
	}

	command  string // the line being answered, for the log
	reason   string // why it ended, for the log
	reading  bool   // a body is coming in
	chunk    *chunk // is coming in; nil: none
	welcome  bool   // the greeting was no refusal
	badInput bool   // what is being answered is no command
	hungUp   bool   // a reply was the last
	securing bool   // the reply to STARTTLS is being written
	cipher   string // of TLS, as log and Received line have it
	quitting bool   // and the client asked for it
	away     bool   // and the client never had a session
	mails    int    // accepted
	errors   int
	failures int     // to authenticate
	scram    uint8   // whether it is offered, once that is known
	unknown  int     // recipients refused
	events   []Event // to be reported after the reply

	// deadline of what the session waits for, monotonic; the server's sweep
	// looks at it in its own goroutine.
	deadline atomic.Int64
}

// The ends of a session that are not the client's doing.
var (
	errTimeout  = errors.New("timeout")
	errShutdown = errors.New("shutdown")
)

// start talks to the client until the session ends.
func (s *Session) start() {
	if s.Listener.Proxy && !s.proxied() {
		s.leave()
		return
	}
	if s.greet() {
		s.serve()
	}
	s.end()
}

// greet does what comes before the first command, and tells whether to go on.
func (s *Session) greet() bool {
	s.extend(idleTime)
	s.Admitted = true
	if err := s.srv.backend.Admit(s); err != nil {
		s.turnAway(smtp.FromError(err))
		return false
	}
	if s.Listener.Socket {
		s.Client.Name = Name{Host: s.Hostname, Forward: true}
	} else {
		s.Client.Name = s.srv.backend.Lookup(s.srv.ctx, s.Client.Addr.Addr())
	}
	if !smtp.ValidHost(s.Client.Name.Host) {
		s.Client.Name.Host = "" // it will stand in a header and in the log
	}
	if s.Listener.Hostnames != "" {
		if name := s.srv.backend.Hostname(s.srv.ctx, s); name != "" {
			s.Hostname = name
		}
	}
	s.srv.log.SMTPConnected(s.ID, s.Address(), s.Host())
	s.report(Event{Kind: LinkConnect})
	if t := s.Listener.TLS; t != nil && t.Immediate {
		if err := s.secure(); err != nil {
			s.lost(err)
			return false
		}
	}
	r := s.filterRow(&connected, s.Address())
	if r.Code == 0 {
		return false
	}
	s.say(&connected, r)
	if s.welcome = !r.Refused(); s.welcome {
		s.report(Event{Kind: LinkGreeting})
	}
	return !s.hungUp
}

// turnAway ends a session before it has begun. A client that waits for TLS would
// not understand a word. Who has too many must not get more by them, so it ends at
// once.
func (s *Session) turnAway(r smtp.Reply) {
	s.srv.log.SMTPConnected(s.ID, s.Address(), s.Host())
	s.report(Event{Kind: LinkConnect})
	if t := s.Listener.TLS; t == nil || !t.Immediate {
		s.hangUp(r)
	}
	s.away, s.reason = true, "refused"
}

// greeting is the reply to the connection itself. A client that does not wait
// for it (RFC 5321 section 4.3.1) is refused: no mail server does that, and
// HTTP clients do. A proxy may have held back what came before it connected, so
// that behind one nobody can be told to have talked early.
func (s *Session) greeting(string) smtp.Reply {
	if !s.Listener.Proxy {
		early, err := s.in.talked()
		switch {
		case err != nil:
			s.lost(err)
			return smtp.Reply{}
		case early && !s.Listener.Socket:
			return earlyTalker
		}
	}
	return smtp.Reply{Code: 220, Text: s.Hostname + " ESMTP " + Software}
}

// serve answers commands until the session is over.
func (s *Session) serve() {
	for !s.hungUp {
		var err error
		switch {
		case s.reading:
			err = s.readBody()
		case s.securing:
			err = s.secure()
		case s.chunk != nil:
			err = s.readChunk()
		default:
			err = s.readCommand()
		}
		if err != nil {
			s.lost(err)
			return
		}
	}
}

// readCommand waits for a line and answers it.
func (s *Session) readCommand() error {
	s.extend(idleTime)
	if s.srv.stopping.Load() {
		return s.idle()
	}
	for {
		line, err := s.in.line(s.auth != nil)
		if err == errWoken {
			if err := s.idle(); err != nil {
				return err
			}
			continue
		}
		switch {
		case err == nil && s.auth != nil:
			s.credentials(string(line))
		case err == nil:
			s.run(string(line))
		case err == errLong:
			s.auth = nil
			s.refuse(commandTooLong)
		case err == errFlood:
			s.refuse(lineTooLong)
		default:
			return err
		}
		return nil
	}
}

// idle is called when a wait was interrupted: the time is up or the server stops.
func (s *Session) idle() error {
	switch {
	case s.srv.stopping.Load():
		s.hangUp(shuttingDown)
		return errShutdown
	case s.late():
		s.report(Event{Kind: Timeout})
		s.hangUp(timedOut)
		return errTimeout
	}
	return nil
}

// run answers one command line.
func (s *Session) run(line string) {
	s.command = withoutSecret(line, "(...)")
	shown := withoutSecret(line, hidden)
	if s.srv.trace("smtp") {
		s.srv.log.SMTPTrace(s.ID, "<<<", shown)
	}
	s.report(Event{Kind: ProtocolClient, Text: shown})
	cmd := smtp.ParseCommand(line)
	row := find(cmd.Verb)
	r := unrecognized
	if row != nil {
		r = s.do(row, cmd)
	}
	if row != nil && row.flags&last != 0 && r.Refused() && len(s.in.unread()) > 0 {
		r.Close = true
	}
	if r.Code != 0 { // otherwise there is more to come first
		s.answer(row, r)
	}
}

// answer replies to a command, late where the client errs too often.
func (s *Session) answer(row *row, r smtp.Reply) {
	s.slow(row, r)
	s.say(row, r)
}

// do takes a command through its row: state, syntax, filters, and then what it
// does.
func (s *Session) do(row *row, cmd smtp.Command) smtp.Reply {
	switch {
	case row.flags&noArg != 0 && cmd.HasArg:
		return noArguments
	case row.flags&needWelcome != 0 && !s.welcome,
		row.flags&needHelo != 0 && s.Helo == "",
		row.flags&needTx != 0 && s.tx == nil,
		row.flags&noTx != 0 && s.tx != nil:
		return notNow
	}
	if row.check != nil {
		if r := row.check(s, cmd.Arg); r.Code != 0 {
			return r
		}
	}
	if row.phase == NoPhase {
		return row.proceed(s, cmd.Arg)
	}
	return s.filterRow(row, cmd.Arg)
}

// slow makes a client that errs again and again wait for its answer, and counts.
func (s *Session) slow(row *row, r smtp.Reply) {
	if r.Code < 500 {
		return
	}
	count := &s.errors
	if row != nil && row.phase == PhaseRcptTo {
		count = &s.unknown
	}
	*count++
	if *count <= slowAfter || s.Listener.Socket {
		return
	}
	if err := s.in.flush(); err != nil {
		return // the next wait finds the same
	}
	s.srv.pause(errorPause)
}

// refuse answers input that is no command.
func (s *Session) refuse(r smtp.Reply) {
	s.badInput = true
	s.answer(nil, r)
	s.badInput = false
}

// say is where every reply is written, logged and reported.
func (s *Session) say(row *row, r smtp.Reply) {
	if !r.Close && (s.errors > maxErrors || s.unknown > maxUnknown) && !s.Listener.Socket {
		r = tooManyErrors
	}
	s.in.put(r.Append)
	if s.srv.trace("smtp") {
		s.srv.log.SMTPTrace(s.ID, ">>>", r.String())
	}
	s.reportReply(row, r)
	switch {
	case !r.Refused():
	case s.badInput:
		s.srv.log.SMTPBadInput(s.ID, r.String())
	default:
		s.srv.log.SMTPFailedCommand(s.ID, s.command, r.String())
	}
	s.hungUp = s.hungUp || r.Close
	s.quitting = s.quitting || row != nil && row.phase == PhaseQuit && r.Close
}

// hangUp writes a last reply without the client having asked.
func (s *Session) hangUp(r smtp.Reply) {
	s.in.put(r.Append)
	s.report(Event{Kind: ProtocolServer, Text: r.String()})
	s.hungUp = true
}

// lost notes why the connection ended, for the log.
func (s *Session) lost(err error) {
	switch {
	case err == errTimeout:
		s.reason = "timeout"
	case err == errShutdown:
		s.reason = "quit"
	case errors.Is(err, io.EOF):
		s.reason = "disconnect"
	default:
		s.reason = "io-error: " + err.Error()
	}
}

// end closes the connection and accounts for it. It runs once.
func (s *Session) end() {
	s.rollback()
	if s.reason == "" {
		s.reason = "quit"
	}
	if s.hungUp {
		s.extend(lingerTime)
	}
	if err := s.in.flush(); err == nil && s.hungUp {
		s.in.farewell()
		if !s.quitting && !s.away && !s.srv.stopping.Load() {
			s.linger()
		}
	}
	s.close()
	s.srv.log.SMTPDisconnected(s.ID, s.reason)
	s.reportLater()
	s.report(Event{Kind: LinkDisconnect})
	s.srv.forget(s)
}

// leave ends a session that was none yet.
func (s *Session) leave() {
	s.close()
	s.srv.forget(s)
}

func (s *Session) close() {
	if s.hungUp {
		s.in.drain(drainSize) // who is not waited for reads the reply all the same
	}
	s.in.release()
	_ = s.in.nc.Close() // nothing is owed to the client any more
}

// linger reads on for a while after a hang-up: to close a connection with
// input unread resets it, and the client would never see the reply.
func (s *Session) linger() {
	s.in.halfClose()
	for got := 0; got < lingerSize; {
		s.in.take(len(s.in.unread()))
		err := s.in.receive()
		if err == errWoken && !s.late() && !s.srv.stopping.Load() {
			continue
		}
		if err != nil {
			return
		}
		got += len(s.in.unread())
	}
}

// extend gives the client d from now.
func (s *Session) extend(d time.Duration) { s.deadline.Store(int64(s.srv.clock.Mono() + d)) }

// late tells whether the client has used up its time.
func (s *Session) late() bool { return int64(s.srv.clock.Mono()) >= s.deadline.Load() }

// blocked and woken make s the owner of its stream.
func (s *Session) blocked() {
	if !s.hungUp {
		s.extend(idleTime)
	}
}

func (s *Session) woken() error {
	switch {
	case s.late():
		return errTimeout
	case s.srv.killed.Load():
		return errShutdown
	}
	return nil
}

// impatient is woken for a handshake, in which a server that stops does not wait.
func (s *Session) impatient() error {
	if s.srv.stopping.Load() {
		return errShutdown
	}
	return s.woken()
}

// Address is the client's address as OpenSMTPD writes it: "192.0.2.1",
// "[2001:db8::1]", "local".
func (s *Session) Address() string {
	if s.Listener.Socket {
		return "local"
	}
	a := s.Client.Addr.Addr()
	if a.Is4() {
		return a.String()
	}
	return "[" + a.String() + "]"
}

// Host is the client's name, or "<unknown>".
func (s *Session) Host() string {
	if s.Client.Name.Host == "" {
		return "<unknown>"
	}
	return s.Client.Name.Host
}

// Local is the address that the client has reached; zero on the local socket.
func (s *Session) Local() netip.AddrPort {
	if t, ok := s.in.nc.LocalAddr().(*net.TCPAddr); ok {
		a := t.AddrPort()
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return netip.AddrPort{}
}

// Transaction returns the message being received, or nil.
func (s *Session) Transaction() *Transaction { return s.tx }
