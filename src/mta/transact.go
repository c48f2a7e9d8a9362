package mta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/mta/client"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

// deliver sends one message and reports what became of it. It is false when the
// session has ended.
func (s *session) deliver(ctx context.Context, t *task) bool {
	s.m.count.running.Add(1)
	defer s.m.count.running.Sub(1)
	if t.tries == 0 {
		s.m.Queue.Taken(t.Task)
	}
	body, err := s.open(ctx, t)
	if err != nil {
		if ctx.Err() != nil {
			s.m.giveBack(t)
			return false
		}
		s.all(t, mailerr.Temporary(451, 3, 0, "Cannot read message", err))
		return true
	}
	tr := s.transaction(t, body)
	if e := s.unfit(t, &tr); e != nil {
		s.all(t, e)
		return true
	}
	reused := s.begun > 0
	s.begun++
	tr.Answered = s.tell(t, &tr)
	a, err := s.conn.Begin(&tr)
	if reused && t.tries < 2 && (err != nil && a.Mail.Code == 0 || a.Mail.Code == 421) {
		// It was closed while it was idle: nothing is wrong with the message.
		s.lost(a.Mail, err)
		s.putBack(t)
		return false
	}
	o := outcome{answers: a, err: s.reason(err)}
	if err == nil && a.Accepted() > 0 {
		o.final, err = s.send(ctx, t, body, a.Accepted())
		o.err, o.sent = s.reason(err), true
	}
	good := s.report(t, &o)
	if a.Mail.OK() {
		s.heard.Done(t.Envelopes[0].ID.Message(), good > 0, t.Size)
	}
	if o.err != nil || o.closes() {
		s.lost(client.Reply{}, o.err)
		return false
	}
	if good > 0 {
		s.sent++
		s.tried = 0
		s.m.grow(s)
		return true
	}
	s.tried++
	if o.sent {
		return true
	}
	r, err := s.conn.Reset()
	if err != nil || !r.OK() {
		s.lost(r, s.reason(err))
		return false
	}
	return true
}

// tell returns what tells filters of each answer to a message that is offered;
// nil when nobody wants to hear.
func (s *session) tell(t *task, tr *client.Transaction) func(*client.Answers) {
	if s.heard == nil {
		return nil
	}
	id := t.Envelopes[0].ID.Message()
	return func(a *client.Answers) {
		switch n := len(a.Rcpts) - 1; {
		case a.Data.Code != 0:
			s.heard.Data(id, a.Data.Code)
		case n >= 0:
			s.heard.Rcpt(id, t.Envelopes[n].ID, a.Rcpts[n].Code, tr.Rcpts[n].To)
		default:
			s.heard.Mail(id, a.Mail.Code, tr.From)
		}
	}
}

// lost tells that the connection is no good any more.
func (s *session) lost(r client.Reply, err error) {
	if errors.Is(err, errTimeout) {
		s.heard.Timeout()
	}
	switch {
	case errors.Is(err, errStopping):
	case err != nil:
		s.m.Log.MTAError(s.id, s.sent, sentence(err))
	case r.Code != 0:
		s.m.Log.MTAError(s.id, s.sent, r.String())
	default:
		s.m.Log.MTADisconnected(s.id, "closed-by-peer", s.sent)
	}
}

// putBack leaves a task to another session.
func (s *session) putBack(t *task) {
	s.m.mu.Lock()
	stopping := s.m.stopping
	if !stopping {
		t.tries++
		s.relay.line = append([]*task{t}, s.relay.line...)
	}
	s.m.mu.Unlock()
	if stopping {
		s.m.giveBack(t)
	}
}

// message is the body of a task: all of it, or its first piece.
type message struct {
	first []byte
	whole bool
}

func (s *session) open(ctx context.Context, t *task) (message, error) {
	if t.Inline {
		return message{t.Body, true}, nil
	}
	s.wait(dialTime)
	b, err := s.m.Queue.Body(ctx, t.Task, 0, s.buf)
	if err != nil {
		return message{}, err
	}
	s.buf = b
	if n := min(t.Size, msg.MaxRelayBody); uint64(len(b)) < n {
		return message{}, fmt.Errorf("%d bytes instead of %d", len(b), n)
	}
	return message{b, t.Size <= msg.MaxRelayBody}, nil
}

// transaction is what is said before the message.
func (s *session) transaction(t *task, b message) client.Transaction {
	e := &t.Envelopes[0]
	tr := client.Transaction{
		From: t.sender.SMTP(), Return: e.DSNRet, EnvID: e.DSNEnvID,
		Size: int64(t.Size + t.Size/32), EightBit: true, // no worse than a guess
		Rcpts: make([]client.Rcpt, len(t.Envelopes)),
	}
	if b.whole {
		tr.Size = int64(len(b.first) + bytes.Count(b.first, []byte{'\n'}))
		tr.EightBit = s.conn.Ext().EightBit && !ascii(b.first)
	}
	tr.UTF8 = !ascii([]byte(tr.From))
	tr.TLS = e.Flags&envelope.RequireTLS != 0
	for i := range t.Envelopes {
		e := &t.Envelopes[i]
		tr.Rcpts[i] = client.Rcpt{To: e.Dest.SMTP(), Notify: e.DSNNotify, ORcpt: e.DSNORcpt}
		tr.UTF8 = tr.UTF8 || !ascii([]byte(tr.Rcpts[i].To))
	}
	if e.Flags&envelope.SMTPUTF8 != 0 && !tr.UTF8 {
		// Without need a server that lacks it is none the less good.
		tr.UTF8 = s.conn.Ext().UTF8 || !ascii(header(b.first))
	}
	return tr
}

// header is the header of a message, with the empty line behind it.
func header(b []byte) []byte {
	if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
		return b[:i+2]
	}
	return b
}

// ascii tells whether no byte is above 127.
func ascii(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// unfit tells that the server cannot take a message, before it is asked. One
// with bytes above 127 is sent as it is to a server without 8BITMIME, as
// OpenSMTPD does: they all take it.
func (s *session) unfit(t *task, tr *client.Transaction) *mailerr.Error {
	ext := s.conn.Ext()
	switch {
	case ext.MaxSize > 0 && t.Size > uint64(ext.MaxSize):
		return mailerr.Permanent(552, 3, 4, "message too large for peer", nil)
	case tr.UTF8 && !ext.UTF8:
		return mailerr.Permanent(553, 6, 7, "peer does not offer SMTPUTF8, which the message needs", nil)
	}
	return nil
}

// send sends the message and returns what the server said at its end.
func (s *session) send(ctx context.Context, t *task, b message, n int) ([]client.Reply, error) {
	s.conn.Open()
	if err := s.conn.Body(b.first); err != nil {
		return nil, err
	}
	for off := uint64(len(b.first)); !b.whole && off < t.Size; {
		p, err := s.m.Queue.Body(ctx, t.Task, off, s.buf)
		if err == nil && len(p) == 0 {
			err = errors.New("message ends too early")
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read message: %w", err) // and the connection must end
		}
		s.buf = p
		off += uint64(len(p))
		if err := s.conn.Body(p); err != nil {
			return nil, err
		}
	}
	if cap(s.buf) > 64<<10 {
		s.buf = nil
	}
	return s.conn.End(n)
}

// outcome is all that a server said about a message.
type outcome struct {
	answers client.Answers
	final   []client.Reply // at the end of the message
	sent    bool           // the message was begun
	err     error          // why the conversation ended early
}

// closes tells whether the server is about to close the connection (RFC 5321
// section 3.8).
func (o *outcome) closes() bool {
	if o.answers.Mail.Code == 421 || o.answers.Data.Code == 421 {
		return true
	}
	for _, list := range [][]client.Reply{o.answers.Rcpts, o.final} {
		for i := range list {
			if list[i].Code == 421 {
				return true
			}
		}
	}
	return false
}

// of returns what the server said about recipient n, who is the k-th of those
// it accepted; false when it said nothing.
func (o *outcome) of(n, k int, lmtp bool) (client.Reply, phase, bool) {
	a := &o.answers
	switch {
	case a.Mail.Code == 0:
		return client.Reply{}, phaseMail, false
	case !a.Mail.OK():
		return a.Mail, phaseMail, true
	case n >= len(a.Rcpts):
		return client.Reply{}, phaseRcpt, false
	case !a.Rcpts[n].OK():
		return a.Rcpts[n], phaseRcpt, true
	case !o.sent:
		return a.Data, phaseData, a.Data.Code != 0
	}
	if !lmtp {
		k = 0
	}
	if k >= len(o.final) {
		return client.Reply{}, phaseEnd, false
	}
	return o.final[k], phaseEnd, true
}

// report tells the log and the queue what became of every recipient, and
// returns how many got the message.
func (s *session) report(t *task, o *outcome) (good int) {
	res := &msg.RelayResult{Task: t.Task, Results: make([]msg.RelayOutcome, len(t.Envelopes))}
	lmtp := s.relay.scheme() == "lmtp"
	k := 0
	for i := range t.Envelopes {
		r, at, said := o.of(i, k, lmtp)
		if i < len(o.answers.Rcpts) && o.answers.Rcpts[i].OK() {
			k++
		}
		var e *mailerr.Error
		line := ""
		switch {
		case said && at == phaseEnd && r.OK():
			line = r.String()
			good++
			s.failures = 0
		case said:
			line, e = r.String(), classify(at, &r)
			if at == phaseRcpt {
				s.failures++
			}
		case errors.Is(o.err, errStopping):
			res.Results[i] = msg.RelayOutcome{Envelope: t.Envelopes[i].ID, Returned: true}
			continue
		default:
			e = broken(o.err)
			line = e.Text
		}
		res.Results[i] = s.note(t, i, e, line)
	}
	s.m.done(t, res)
	return good
}

// all fails every recipient of a task.
func (s *session) all(t *task, e *mailerr.Error) {
	res := &msg.RelayResult{Task: t.Task}
	for i := range t.Envelopes {
		res.Results = append(res.Results, s.note(t, i, e, e.Text))
	}
	s.m.done(t, res)
}

// note logs one result.
func (s *session) note(t *task, i int, err *mailerr.Error, line string) msg.RelayOutcome {
	e := &t.Envelopes[i]
	now := s.m.Clock.Now()
	s.m.mu.Lock()
	where := s.route.dst.text()
	s.m.stats.set(e.Dest.Domain, line, now, s.m.Clock.Mono())
	s.m.mu.Unlock()
	d := mlog.Relayed{
		Session: s.id, ID: e.ID, From: t.sender.SMTP(), To: e.Dest.SMTP(), Source: s.from, Relay: where,
		Delay: now.Sub(e.Created), Result: result(err), Stat: line,
	}
	if e.Rcpt != (addr.Address{}) {
		d.Rcpt = e.Rcpt.SMTP()
	}
	s.m.Log.MTADelivery(&d)
	return msg.RelayOutcome{Envelope: e.ID, Err: err, Line: line, NoDSN: !s.conn.Ext().DSN}
}
