// Package control is the control process: it owns the control socket, decides
// by the peer's credentials who may do what, and passes checked requests on to
// the role that serves them.
//
// SECURITY. Any user of the machine may write to the socket. What arrives is
// bounded in length before it is read, parsed by package ctl without
// allocating more, and ends at most the connection it came from. Nothing that a
// client sent goes further than a verb of the table in verbs.go whose arguments
// passed their check. Rows come back in pages, fetched when the client has
// taken the page before, so that a client who does not read holds back no
// other. The process has no files, no network and no secrets. It runs as
// _smtpd in an empty root and needs, beyond what every role needs, accept4,
// getsockopt, socketpair, and sendmsg with a descriptor.
package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/mail"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/stat"
)

// ListenerIdentity names the control socket among the files of a configuration.
const ListenerIdentity = "control"

// Limits of the control socket.
const (
	// maxPerUser is OpenSMTPD's: a user's cron jobs and scripts at once.
	maxPerUser = 32
	// maxConns bounds what all users together can take; root is let in
	// beyond it, to find out what is going on.
	maxConns = 256
	maxRoot  = 64
	// idle is how long a client may keep us waiting for a request, or for
	// taking an answer.
	idle = 60 * time.Second
)

// Role is the control process. It is a proc.Program.
type Role struct {
	env      proc.Env
	table    map[msg.Verb]verb
	peerOf   ctl.PeerCreds
	idle     time.Duration
	listener *net.UnixListener
	started  time.Duration
	stats    stat.Set
	sessions *stat.Counter

	mu        sync.Mutex
	owner     uint32 // in unprivileged mode, who runs the daemon
	operators map[uint32]bool
	prepared  map[mail.Gen][]uint32 // operators of generations in preparation
	conns     map[*net.UnixConn]bool
	perUser   map[uint32]int

	pausing sync.Mutex // one change of paused at a time
	paused  map[string]bool
}

// New takes the listening socket out of the first configuration.
func New(env proc.Env) (*Role, error) {
	r := &Role{
		env:      env,
		table:    make(map[msg.Verb]verb),
		peerOf:   ctl.KernelCreds,
		idle:     idle,
		started:  env.Clock.Mono(),
		prepared: make(map[mail.Gen][]uint32),
		conns:    make(map[*net.UnixConn]bool),
		perUser:  make(map[uint32]int),
		paused:   make(map[string]bool),
	}
	r.sessions = r.stats.Counter(stat.ControlSession)
	for _, v := range verbs() {
		r.table[v.name] = v
	}
	for _, what := range env.Paused {
		r.paused[what] = true
	}
	r.setOperators(env.Conf.Resources.Operators)
	for _, f := range env.Conf.Files {
		if f.Identity == ListenerIdentity {
			return r, r.listen(f.File)
		}
	}
	return nil, fmt.Errorf("no control socket was handed over")
}

func (r *Role) listen(f *os.File) error {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return fmt.Errorf("control socket: it is a %s socket", l.Addr().Network())
	}
	ul.SetUnlinkOnClose(false) // the name is parent's
	r.listener = ul
	return nil
}

// Handlers is empty: nobody asks anything of control but its clients.
func (r *Role) Handlers() []proc.Handler { return nil }

// Prepare notes who the operators of the new generation are. The socket stays.
func (r *Role) Prepare(_ context.Context, c proc.Conf) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prepared[c.Gen] = c.Resources.Operators
	return nil
}

// Commit makes the prepared generation current.
func (r *Role) Commit(gen mail.Gen) {
	r.mu.Lock()
	uids := r.prepared[gen]
	delete(r.prepared, gen)
	r.mu.Unlock()
	r.setOperators(uids)
}

// Abort forgets the prepared generation.
func (r *Role) Abort(gen mail.Gen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.prepared, gen)
}

func (r *Role) setOperators(uids []uint32) {
	m := make(map[uint32]bool, len(uids))
	for _, uid := range uids {
		m[uid] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operators = m
}

// isOperator tells whether a user may do everything.
func (r *Role) isOperator(uid uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return uid == 0 || r.operators[uid] || r.env.Unprivileged && uid == r.owner
}

// Run accepts until ctx ends; then it closes every connection and returns when
// their goroutines have.
func (r *Role) Run(ctx context.Context) error {
	r.mu.Lock()
	r.owner = uint32(os.Getuid())
	r.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		r.listener.Close()
		r.closeAll()
	})
	defer stop()
	for {
		c, err := r.listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			r.env.Log.ControlAccept(err)
			if !r.pause(ctx, time.Second) {
				return nil
			}
			continue
		}
		wg.Go(func() { r.serve(ctx, c) })
	}
}

// pause waits, after an error that the next accept would only repeat.
func (r *Role) pause(ctx context.Context, d time.Duration) bool {
	ch, cancel := r.env.Clock.After(d)
	defer cancel()
	select {
	case <-ch:
		return true
	case <-ctx.Done():
		return false
	}
}

// admit counts a connection, or tells that there are too many.
func (r *Role) admit(c *net.UnixConn, uid uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit, total := maxPerUser, maxConns
	if uid == 0 {
		limit, total = maxRoot, maxConns+maxRoot
	}
	if r.perUser[uid] >= limit || len(r.conns) >= total {
		return false
	}
	r.perUser[uid]++
	r.conns[c] = true
	return true
}

func (r *Role) leave(c *net.UnixConn, uid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	if r.perUser[uid]--; r.perUser[uid] == 0 {
		delete(r.perUser, uid)
	}
}

func (r *Role) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}
