package mta

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"opensmtpd/src/filter"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mta/client"
)

const (
	// dialTime is how long a connection may take to come about.
	dialTime = 30 * time.Second
	// watchEvery is how exactly time-outs are kept.
	watchEvery = 10 * time.Second
	// idleTime is how long a session waits for more to do while others of its
	// relay are open; the last one waits for session-keepalive.
	idleTime = 2 * time.Second
	// maxTries is how many messages in a row a server may refuse before the
	// session ends.
	maxTries = 10
)

var (
	errStopping = errors.New("stopping")
	errTimeout  = errors.New("connection timeout")
)

// session is one connection, and the goroutine that works on it.
type session struct {
	m         *MTA
	id        mail.SessionID
	relay     *relay
	connector *connector
	route     *route
	server    server
	next      chan *task // what comes while it is idle

	// Guarded by MTA.mu, or set before collect.
	ready     bool
	badSource bool
	lacks     *mailerr.Error // what the server lacks for strict mail
	trouble   string

	conn     *client.Conn
	heard    *filter.Outgoing // nil: nobody hears of the session
	from     string           // our address, as the log has it
	begun    int              // transactions
	sent     int              // messages taken
	tried    int              // messages refused in a row
	failures int              // recipients refused in a row
	buf      []byte           // for bodies

	deadline atomic.Int64 // on the monotonic clock, 0: none
	ctx      context.Context
	cancel   context.CancelFunc
	cutMu    sync.Mutex
	nc       net.Conn
	cutBy    error
}

func newSession(r *relay, c *connector, rt *route, s server) *session {
	n := &session{m: r.m, id: r.m.sessionID(), relay: r, connector: c, route: rt, server: s, next: make(chan *task, 1)}
	n.ctx, n.cancel = context.WithCancel(r.m.ctx)
	n.m.at(n.m.Clock.Mono()+watchEvery, n.watch)
	return n
}

// wait sets how long what follows may take.
func (s *session) wait(d time.Duration) { s.deadline.Store(int64(s.m.Clock.Mono() + d)) }

// watch cuts a session that waits for too long.
func (s *session) watch() {
	if _, live := s.m.sessions[s]; !live {
		return
	}
	now := s.m.Clock.Mono()
	if d := s.deadline.Load(); d != 0 && now >= time.Duration(d) {
		s.cut(errTimeout)
		return
	}
	s.m.at(now+watchEvery, s.watch)
}

// cut ends the connection from outside.
func (s *session) cut(why error) {
	s.cutMu.Lock()
	if s.cutBy == nil {
		s.cutBy = why
	}
	nc := s.nc
	s.cutMu.Unlock()
	s.cancel()
	if nc != nil {
		nc.Close()
	}
}

// use makes nc the connection, unless the session was cut.
func (s *session) use(nc net.Conn) error {
	s.cutMu.Lock()
	defer s.cutMu.Unlock()
	if s.cutBy != nil {
		nc.Close()
		return s.cutBy
	}
	s.nc = nc
	return nil
}

// reason returns why an operation failed: whoever cut the connection knows best.
func (s *session) reason(err error) error {
	s.cutMu.Lock()
	defer s.cutMu.Unlock()
	if err != nil && s.cutBy != nil {
		return s.cutBy
	}
	return err
}

// run is the life of a session.
func (s *session) run(ctx context.Context) {
	defer s.m.collect(s)
	defer s.cut(nil)
	defer func() { s.heard.End() }()
	if err := s.establish(s.ctx); err != nil {
		err = s.reason(err)
		s.trouble = sentence(err)
		s.badSource = errors.Is(err, syscall.EADDRNOTAVAIL)
		if s.relay.act.policy == strict {
			s.lacks = lacks(err)
		}
		if !errors.Is(err, errStopping) {
			s.m.Log.MTAError(s.id, 0, s.trouble)
		}
		if s.lacks != nil && !errors.Is(err, client.ErrTLS) {
			_ = s.conn.Quit() // the server is not to blame
		}
		return
	}
	s.m.markReady(s)
	for {
		t := s.take(ctx)
		if t == nil {
			s.quit()
			return
		}
		if !s.deliver(ctx, t) {
			return
		}
	}
}

// maxTrouble is how much of an error is told, in bytes: a server's certificate may
// have any number of names.
const maxTrouble = 1000

// sentence writes an error as OpenSMTPD does: with a capital. What a server has put
// into it stays in one line.
func sentence(err error) string {
	var op *net.OpError
	text := err.Error()
	switch {
	case errors.Is(err, client.ErrTLS) && errors.As(err, &op):
		text = client.ErrTLS.Error() + ": " + plainError(op).Error()
	case errors.As(err, &op):
		text = plainError(op).Error()
	}
	if text == "" {
		return "Unknown error"
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), maxTrouble)], "?"))
	return strings.ToUpper(text[:1]) + text[1:]
}

// quit ends a session in good order.
func (s *session) quit() {
	if err := s.conn.Quit(); err != nil {
		s.m.Log.Debugf("debug: mta: %016x: quit: %v", uint64(s.id), s.reason(err))
	}
	s.m.Log.MTADisconnected(s.id, "quit", s.sent)
}

// take returns what to do next, nil when there is nothing more.
func (s *session) take(ctx context.Context) *task {
	r, m := s.relay, s.m
	s.deadline.Store(0)
	if d := r.limits.SessionTransactionLag; d > 0 && s.begun > 0 && !s.pause(ctx, d) {
		return nil
	}
	m.mu.Lock()
	switch {
	case m.stopping, s.sent >= r.limits.SessionMailMax, s.full():
		m.mu.Unlock()
		return nil
	case s.tried >= maxTries:
		m.mu.Unlock()
		m.Log.MTARejectsAll(s.id)
		return nil
	case r.limits.MaxFailuresPerSession > 0 && s.failures >= r.limits.MaxFailuresPerSession:
		m.mu.Unlock()
		return nil
	}
	if len(r.line) > 0 {
		t := r.line[0]
		r.line[0] = nil
		r.line = r.line[1:]
		if s.begun == 0 {
			r.look() // the route works: others may follow
		}
		m.unlock()
		return t
	}
	keep := r.limits.SessionKeepalive
	if r.conns > 1 {
		keep = min(keep, idleTime)
	}
	if keep <= 0 {
		m.mu.Unlock()
		return nil
	}
	r.idle = append(r.idle, s)
	m.mu.Unlock()
	return s.hangOn(ctx, keep)
}

// full tells that the server takes no more in this session.
func (s *session) full() bool {
	most := s.conn.Ext().MaxMail
	return most > 0 && s.begun >= most
}

// hangOn waits for a task.
func (s *session) hangOn(ctx context.Context, keep time.Duration) *task {
	late, cancel := s.m.Clock.After(keep)
	defer cancel()
	select {
	case t := <-s.next:
		return t
	case <-late:
	case <-ctx.Done():
	}
	s.m.mu.Lock()
	i := slices.Index(s.relay.idle, s)
	if i >= 0 {
		s.relay.idle = slices.Delete(s.relay.idle, i, i+1)
	}
	s.m.mu.Unlock()
	if i >= 0 {
		return nil
	}
	return <-s.next // it has been given meanwhile
}

// pause waits between two transactions.
func (s *session) pause(ctx context.Context, d time.Duration) bool {
	over, cancel := s.m.Clock.After(d)
	defer cancel()
	select {
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}
