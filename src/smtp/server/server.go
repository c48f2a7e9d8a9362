package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
)

// Config is what a Server needs.
type Config struct {
	Backend Backend
	Clock   clock.Clock
	Log     *mlog.Logger
	// NewID returns a number that nobody else has: for sessions and Message-IDs.
	NewID func() uint64
	// Quiet is called, in the goroutine of Run, when sessions rest after much
	// work: the moment to give memory back. May be nil.
	Quiet func()
	// Secured is told that TLS protects a session from now on. May be nil.
	Secured func(*Session)
	// Trace tells whether a trace is on: "smtp" shows commands and replies. Nil:
	// none is.
	Trace func(name string) bool
}

// Server holds sessions, of any number of listeners. It is safe for use by many
// goroutines.
type Server struct {
	backend Backend
	clock   clock.Clock
	log     *mlog.Logger
	newID   func() uint64
	pools   *pools
	guesses guesses
	trace   func(name string) bool
	secured func(*Session)

	ctx  context.Context // of all sessions; ends when they are killed
	kill context.CancelFunc

	stopping atomic.Bool // no more commands
	killed   atomic.Bool // no more of anything
	stop     chan struct{}

	quiet   func()
	swept   time.Duration // when sweep ran last
	worked  int           // since quiet was called
	resting int           // sweeps without work

	mu       sync.Mutex
	ended    int // sessions, since the last sweep
	sessions map[*Session]struct{}
	empty    chan struct{} // closed when stopping and no session is left
}

// New returns a Server. Run must be going while it has sessions.
func New(c Config) *Server {
	ctx, kill := context.WithCancel(context.Background())
	if c.Trace == nil {
		c.Trace = func(string) bool { return false }
	}
	if c.Secured == nil {
		c.Secured = func(*Session) {}
	}
	return &Server{
		ctx: ctx, kill: kill,
		backend: c.Backend, clock: c.Clock, log: c.Log, newID: c.NewID,
		trace: c.Trace, quiet: c.Quiet, secured: c.Secured,
		pools:    newPools(),
		guesses:  guesses{clock: c.Clock},
		stop:     make(chan struct{}),
		sessions: make(map[*Session]struct{}),
		empty:    make(chan struct{}),
	}
}

// Serve begins a session on nc, which it owns from now on, in a goroutine of
// its own. The session ends with its client, or with Stop. A false return means
// that the server stops and nc has been closed.
func (v *Server) Serve(nc net.Conn, l *Listener, c Client) bool {
	s := &Session{ID: mail.SessionID(v.newID()), Listener: l, Client: c, Hostname: l.Hostname, srv: v}
	s.in.init(nc, v.pools, s)
	if s.extend(idleTime); l.Proxy {
		s.extend(proxyTime)
	}
	v.mu.Lock()
	if v.stopping.Load() {
		v.mu.Unlock()
		_ = nc.Close() // there is nobody to tell
		return false
	}
	v.sessions[s] = struct{}{}
	v.mu.Unlock()
	go s.start()
	return true
}

// Len returns how many sessions there are.
func (v *Server) Len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.sessions)
}

// forget accounts for a session before backend hears that it is over, and lets
// the server end only after.
func (v *Server) forget(s *Session) {
	v.mu.Lock()
	v.ended++
	v.mu.Unlock()
	v.backend.Done(s)
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sessions, s)
	v.checkEmpty()
}

// checkEmpty is called with mu held, after stopping was set or a session left.
func (v *Server) checkEmpty() {
	if !v.stopping.Load() || len(v.sessions) > 0 {
		return
	}
	select {
	case <-v.empty:
	default:
		close(v.empty)
	}
}

// Run keeps the times of the sessions until ctx ends.
func (v *Server) Run(ctx context.Context) {
	for {
		tick, cancel := v.clock.After(sweepEvery)
		select {
		case <-tick:
			v.sweep()
		case <-ctx.Done():
			cancel()
			return
		}
	}
}

// sweep wakes the sessions whose client is late, and notices when there is
// nothing to do any more.
func (v *Server) sweep() {
	now := v.clock.Mono()
	work := v.wakeLate(now)
	v.swept = now
	if work > 0 {
		v.worked += work
		v.resting = 0
		return
	}
	if v.resting++; v.resting == quietSweeps && v.worked >= much {
		v.worked = 0
		if v.quiet != nil {
			v.quiet()
		}
	}
}

// wakeLate returns how many sessions have done something since the last sweep.
func (v *Server) wakeLate(now time.Duration) (work int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	work, v.ended = v.ended, 0
	active := int64(v.swept + idleTime)
	for s := range v.sessions {
		due := s.deadline.Load()
		if int64(now) >= due {
			v.wake(s)
		}
		if due > active {
			work++
		}
	}
	return work
}

// wake interrupts what s waits for. That the connection is closed is news to
// nobody.
func (v *Server) wake(s *Session) { _ = s.in.wake() }

// Stop ends all sessions: clients that are between commands are told to go, a
// message that is coming in may finish until grace ends. It returns when no
// session is left.
func (v *Server) Stop(grace context.Context) {
	v.mu.Lock()
	if !v.stopping.Swap(true) {
		close(v.stop)
	}
	v.checkEmpty()
	v.wakeAll()
	v.mu.Unlock()
	select {
	case <-v.empty:
	case <-grace.Done():
	}
	v.killed.Store(true)
	v.kill()
	v.mu.Lock()
	v.wakeAll()
	v.mu.Unlock()
	<-v.empty
}

func (v *Server) wakeAll() {
	for s := range v.sessions {
		v.wake(s)
	}
}

// pause waits for d, or until the server stops.
func (v *Server) pause(d time.Duration) {
	over, cancel := v.clock.After(d)
	defer cancel()
	select {
	case <-over:
	case <-v.stop:
	}
}
