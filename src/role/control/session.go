package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"opensmtpd/src/ctl"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/version"
)

// session is one connection of a client.
type session struct {
	*Role
	conn     *ctl.ServerConn
	creds    ctl.Creds
	operator bool
}

// serve does everything for one connection.
func (r *Role) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	creds, err := r.peerOf(c)
	if err != nil {
		r.env.Log.ControlAccept(err)
		return
	}
	conn := ctl.NewServerConn(c, r.env.Clock.Now, r.idle)
	if !r.admit(c, creds.UID) {
		r.env.Log.ControlLimit(creds.UID)
		// Whether this arrives does not matter: the connection ends.
		_ = conn.Fail(&ctl.Refused{Text: "too many connections", Temp: true})
		return
	}
	defer r.leave(c, creds.UID)
	if ctx.Err() != nil { // closeAll may have run before admit
		return
	}
	r.sessions.Add(1)
	defer r.sessions.Sub(1)
	s := &session{Role: r, conn: conn, creds: creds, operator: r.isOperator(creds.UID)}
	if err := s.run(ctx); !errors.Is(err, io.EOF) && ctx.Err() == nil {
		r.env.Log.ControlPeer(creds.UID, err)
	}
}

// run answers requests until the client is done, which is io.EOF, or breaks the
// rules.
func (s *session) run(ctx context.Context) error {
	if err := s.conn.Hello(version.Build); err != nil {
		return err
	}
	for {
		q, err := s.conn.Request()
		if err != nil {
			return err
		}
		if err := s.answer(ctx, q); err != nil {
			return err
		}
	}
}

// answer serves one request. An error is one of the connection; what the client
// may not have he is told.
func (s *session) answer(ctx context.Context, q ctl.Request) error {
	v, ok := s.table[q.Verb]
	if !ok {
		return s.refuse("unknown command", nil)
	}
	if v.allow == operators && !s.operator {
		return s.refuse("permission denied", nil)
	}
	if err := v.args(q.Args); err != nil {
		return s.refuse("bad argument", err)
	}
	switch q.Verb {
	case ctl.VerbSession:
		return s.enqueue(ctx)
	case ctl.VerbStatus:
		return s.rows(s.status())
	case ctl.VerbStats:
		return s.showStats(ctx)
	case ctl.VerbDigest:
		return s.rows(digest(s.counters(ctx)))
	}
	if what, pause, ok := pauses(q.Verb); ok {
		return s.pauseOrResume(ctx, v, what, pause)
	}
	return s.forward(ctx, v, q.Args)
}

func (s *session) refuse(text string, err error) error {
	if err != nil {
		text += ": " + err.Error()
	}
	return s.conn.Fail(&ctl.Refused{Text: text})
}

// fail tells the client what a role said. The cause is for the log, and for an
// operator, who may read the log.
func (s *session) fail(err error) error {
	e := mailerr.From(err)
	text := e.Text
	if s.operator && e.Cause != nil {
		text = e.Cause.Error()
	}
	return s.conn.Fail(&ctl.Refused{Text: text, Temp: e.Class == mailerr.Temp})
}

// forward passes a request on and sends back what comes, page by page.
func (s *session) forward(ctx context.Context, v verb, args []string) error {
	m := &msg.Control{Verb: v.name, UID: s.creds.UID, Operator: s.operator, Args: args}
	var changed uint32
	for {
		page, err := s.ask(ctx, v, m)
		if err != nil {
			return s.fail(err)
		}
		if err := s.conn.Rows(page.Rows, page.Raw); err != nil {
			return err
		}
		changed += page.Count
		if page.Next == "" {
			return s.conn.Done(changed)
		}
		if page.Next == m.Cursor {
			return s.fail(fmt.Errorf("%s does not get beyond %q", v.to, m.Cursor))
		}
		m.Cursor = page.Next
	}
}

// ask makes one call.
func (s *session) ask(ctx context.Context, v verb, m *msg.Control) (*msg.ControlRows, error) {
	peer := s.env.Peers[v.to]
	if peer == nil {
		return nil, fmt.Errorf("no connection to %s", v.to)
	}
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	var page msg.ControlRows
	if err := peer.Call(ctx, m, &page); err != nil {
		return nil, err
	}
	return &page, nil
}

// enqueue gives the client one end of a new connection and dispatcher the other.
func (s *session) enqueue(ctx context.Context) error {
	if s.isPaused("smtp") {
		return s.conn.Fail(&ctl.Refused{Text: "smtp is paused", Temp: true})
	}
	theirs, ours, err := imsg.Pair()
	if err != nil {
		return s.fail(err)
	}
	defer theirs.Close()
	peer := s.env.Peers[proc.Dispatcher]
	if peer == nil {
		ours.Close()
		return s.fail(fmt.Errorf("no connection to %s", proc.Dispatcher))
	}
	ctx, cancel := context.WithTimeout(ctx, short)
	defer cancel()
	m := &msg.LocalSession{UID: s.creds.UID, GID: s.creds.GID}
	if err := peer.SendFile(ctx, m, ours); err != nil {
		return s.fail(err)
	}
	return s.conn.Session(theirs)
}
