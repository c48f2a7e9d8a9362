package dispatcher

import (
	"context"
	"net"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
	"opensmtpd/src/stat"
)

// intake is told by queue whether it takes mail.
func (r *Role) intake(_ context.Context, q proc.Request) {
	var m msg.Intake
	if err := q.Parse(&m); err != nil {
		r.log.Warnf("warn: smtp: intake from %s: %v", q.From(), err)
		return
	}
	if !m.Open && m.Err == nil {
		m.Err = mailerr.Temporary(452, 3, 1, "Mail system full", nil)
	}
	if m.Open {
		m.Err = nil
	}
	r.back.closed.Store(m.Err)
}

// localSession begins a session for a process of this machine, on a descriptor
// that control has made.
func (r *Role) localSession(_ context.Context, q proc.Request) {
	var m msg.LocalSession
	f := q.File()
	if f == nil {
		r.log.Warnf("warn: smtp: local session without a descriptor")
		return
	}
	defer f.Close()
	if err := q.Parse(&m); err != nil {
		r.log.Warnf("warn: smtp: local session: %v", err)
		return
	}
	nc, err := net.FileConn(f)
	if err != nil {
		r.log.Warnf("warn: smtp: local session: %v", err)
		return
	}
	r.mu.Lock()
	l := r.current.socket
	r.mu.Unlock()
	if l == nil || !r.gate.open() {
		refuse(nc)
		return
	}
	r.serve(nc, l, server.Client{UID: m.UID})
}

// refuse tells a local process to come again. The socket is new, so that a line
// fits without waiting.
func refuse(nc net.Conn) {
	line := smtp.Fail(421, 3, 2, "System not accepting messages").Append(nil)
	_, _ = nc.Write(line) // who does not read it sees the end
	_ = nc.Close()
}

// control serves smtpctl.
func (r *Role) control(ctx context.Context, q proc.Request) {
	var m msg.Control
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Permanent(500, 5, 2, "Syntax error", err))
		return
	}
	rows, failed, mine := r.relay.control(&m)
	if !mine {
		rows, failed, mine = r.grey.control(ctx, &m)
	}
	if failed != nil {
		q.Fail(failed)
		return
	} else if mine {
		q.Reply(rows)
		return
	}
	switch m.Verb {
	case msg.VerbPauseSMTP:
		r.pause(true)
	case msg.VerbResumeSMTP:
		r.pause(false)
	default:
		q.Fail(mailerr.Permanent(500, 5, 1, "dispatcher does not know "+string(m.Verb), nil))
		return
	}
	q.Reply(&msg.ControlRows{})
}

// pause stops the listeners or lets them go on. Sessions are not touched, and
// connections wait in the backlog.
func (r *Role) pause(on bool) {
	r.gate.pause(on)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.doors {
		d.interrupt(on)
	}
}

// serve begins a session and counts it.
func (r *Role) serve(nc net.Conn, l *server.Listener, c server.Client) {
	r.gate.enter()
	r.stats.session.Add(1)
	switch {
	case l.Socket:
		r.stats.local.Add(1)
	case c.Addr.Addr().Is4():
		r.stats.inet4.Add(1)
	default:
		r.stats.inet6.Add(1)
	}
	if !r.smtp.Serve(nc, l, c) {
		r.leave()
	}
}

// secure is the gauge of sessions in TLS that s belongs to.
func (r *Role) secure(s *server.Session) *stat.Counter {
	if s.Listener.TLS.Immediate {
		return r.stats.smtps
	}
	return r.stats.tls
}

// over is told that a session has ended.
func (r *Role) over(s *server.Session) {
	if s.TLS != nil {
		r.secure(s).Sub(1)
	}
	r.leave()
}

func (r *Role) leave() {
	r.stats.session.Sub(1)
	if r.gate.leave() {
		r.log.SMTPEnabled()
	}
}
