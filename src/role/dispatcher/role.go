// Package dispatcher is the process that speaks SMTP.
//
// SECURITY. This is the process that strangers talk to. It runs as _smtpd in an
// empty root, opens no file, starts no program, and sees no private key. The
// listeners come as descriptors from parent. Who may send to whom is decided by
// lookup, which also makes the envelopes and gives them to queue: a dispatcher
// that has been taken over can offer mail, as any client can, but cannot write
// an envelope. It sees the passwords that clients send, and asks lookup about
// them; it sees no hash. Everything that is read here is hostile: commands are at most
// 4,096 bytes and credentials 12,288, lines of a message 65,535, and all else has a bound that is named
// in smtp/server.
package dispatcher

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/filter"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/mta"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/smtp/server"
	"opensmtpd/src/stat"
)

// Role is the dispatcher.
type Role struct {
	clock  clock.Clock
	log    *mlog.Logger
	env    proc.Env
	smtp   *server.Server
	back   *backend
	stats  counters
	gate   gate
	places int // sessions that there can be
	relay  *relaying
	turns  *pki.Turns
	ctx    context.Context // of what sessions ask crypto; ends with the process
	began  time.Time
	// programs are the filter programs of all generations.
	programs *filter.Programs
	grey     *greylisting

	mu       sync.Mutex
	prepared *generation
	current  *generation
	doors    map[string]*door // by identity
	running  context.Context  // of the accept loops; nil before Run
	loops    sync.WaitGroup
}

// counters are what "smtpctl show stats" shows of this process.
type counters struct {
	set                          stat.Set
	session, local, inet4, inet6 *stat.Counter
	tls, smtps                   *stat.Counter
}

// New returns the role with its first generation in force. Nothing is accepted
// before Run.
func New(env proc.Env) (*Role, error) {
	for _, need := range []proc.Role{proc.Lookup, proc.Queue, proc.Crypto} {
		if env.Peers[need] == nil {
			return nil, fmt.Errorf("dispatcher: no connection to %s", need)
		}
	}
	r := &Role{
		clock: env.Clock, log: env.Log, env: env, doors: make(map[string]*door),
		turns: pki.NewTurns(signatures()), ctx: context.Background(), began: env.Clock.Now(),
	}
	r.stats.session = r.stats.set.Counter(stat.SMTPSession)
	r.stats.local = r.stats.set.Counter(stat.SMTPSessionLocal)
	r.stats.inet4 = r.stats.set.Counter(stat.SMTPSessionInet4)
	r.stats.inet6 = r.stats.set.Counter(stat.SMTPSessionInet6)
	r.stats.tls = r.stats.set.Counter(stat.SMTPTLS)
	r.stats.smtps = r.stats.set.Counter(stat.SMTPSMTPS)
	r.back = newBackend(env, r.over)
	r.places = maxSessions()
	r.relay = newRelaying(env, &r.stats, nil)
	r.programs = newPrograms(env)
	r.grey = newGreylisting(env)
	r.smtp = server.New(server.Config{Backend: r.back, Clock: env.Clock, Log: env.Log, NewID: rand.Uint64, Trace: env.Trace, Quiet: debug.FreeOSMemory,
		Secured: func(s *server.Session) { r.secure(s).Add(1) }})
	for _, what := range env.Paused {
		r.gate.paused = r.gate.paused || what == "smtp"
	}
	if err := r.Prepare(context.Background(), env.Conf); err != nil {
		return nil, err
	}
	r.Commit(env.Conf.Gen)
	return r, nil
}

// generation is a configuration that is or was in force. Sessions keep the
// listeners of the one under which they began.
type generation struct {
	gen    mail.Gen
	net    []*server.Listener
	socket *server.Listener // nil: there is none
	most   int              // sessions; 0: as many as there can be
	each   int              // with one address; 0: any number
	relay  *mta.Config
	files  map[string]*os.File
	chains map[string]*pki.Chain // by the name of their pki

	filters  *filter.Set
	programs map[string]*filter.Program
}

// take hands over a descriptor.
func (g *generation) take(identity string) *os.File {
	f := g.files[identity]
	delete(g.files, identity)
	return f
}

// Prepare implements proc.Program.
func (r *Role) Prepare(_ context.Context, c proc.Conf) error {
	g := &generation{gen: c.Gen, files: make(map[string]*os.File)}
	for _, f := range c.Files {
		g.files[f.Identity] = f.File
	}
	var p project.DispatcherConf
	err := project.Decode(c.Projection, &p)
	var certs *certificates
	if err == nil {
		certs, err = r.newCertificates(c, &p, g.files)
	}
	if err == nil {
		g.chains = certs.chains
		err = r.listeners(g, &p, certs)
	}
	if err == nil {
		err = r.filters(g, &p)
	}
	if err == nil {
		g.relay, err = relayConf(c, &p, certs)
	}
	if err == nil {
		for _, a := range g.relay.Actions {
			a.ToldTo(g.filters.Outbound(a.Filter))
		}
	}
	if err != nil {
		r.forget(g)
		return fmt.Errorf("dispatcher: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.prepared != nil {
		r.forget(r.prepared)
	}
	r.prepared = g
	return nil
}

// listeners turns the projection into what sessions use, and checks that there
// is a descriptor for each.
func (r *Role) listeners(g *generation, p *project.DispatcherConf, certs *certificates) error {
	g.most, g.each = p.MaxSession, p.MaxPerAddress
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p.Listeners {
		l := listener(g.gen, p, &p.Listeners[i])
		var err error
		if l.TLS, err = certs.listener(&p.Listeners[i]); err != nil {
			return fmt.Errorf("listener %s: %w", l.Identity, err)
		}
		if l.Socket {
			g.socket = l
			continue
		}
		if g.files[l.Identity] == nil && r.doors[l.Identity] == nil {
			return fmt.Errorf("no descriptor for the listener %s", l.Identity)
		}
		g.net = append(g.net, l)
	}
	return nil
}

// listener is one listener as sessions see it.
func listener(gen mail.Gen, p *project.DispatcherConf, l *project.Listener) *server.Listener {
	return &server.Listener{
		Gen: gen, Identity: l.Identity, Hostname: l.Hostname, Hostnames: l.Hostnames, Tag: l.Tag,
		Socket:     l.Socket,
		Proxy:      l.ProxyV2,
		Submission: l.Local || l.Addr.Port() == submissionPort,
		MaskSource: l.MaskSrc, NoDSN: l.NoDSN,
		Auth: authPolicy(l.Auth), AuthClear: l.Local && l.TLS == conf.NoTLS, AuthTable: l.AuthTable,
		Senders: l.Senders, Masquerade: l.Masquerade, SubAddrDelim: p.SubAddrDelim, ReceivedAuth: l.RecvAuth,
		Settings: server.Settings{MaxMails: p.MaxMails, MaxRcpt: p.MaxRcpt, MaxSize: p.MaxMessageSize},
	}
}

func authPolicy(a conf.Auth) server.AuthPolicy {
	switch a {
	case conf.AuthOptional:
		return server.AuthOptional
	case conf.AuthRequire:
		return server.AuthRequire
	case conf.NoAuth:
	}
	return server.NoAuth
}

// submissionPort is where mail clients hand in mail (RFC 6409).
const submissionPort = 587

// Commit implements proc.Program: new listeners begin to accept, those that are
// gone stop, all others go on; sessions are not touched.
func (r *Role) Commit(gen mail.Gen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.prepared
	if g == nil || g.gen != gen {
		return
	}
	r.prepared, r.current = nil, g
	r.relay.mta.Configure(g.relay)
	r.programs.Commit(g.programs)
	r.limit(g)
	keep := make(map[string]bool)
	for _, l := range g.net {
		keep[l.Identity] = true
		d := r.doors[l.Identity]
		if d == nil {
			d = &door{role: r}
			if err := d.open(g.files[l.Identity]); err != nil {
				r.log.Warnf("warn: smtp: listener %s: %v", l.Identity, err)
				continue
			}
			r.doors[l.Identity] = d
		}
		d.listener.Store(l)
		r.startLocked(d)
	}
	for id, d := range r.doors {
		if !keep[id] {
			d.close()
			delete(r.doors, id)
		}
	}
	g.close()
}

// limit brings the limits of a generation into force. One address never gets more
// than half of the places.
func (r *Role) limit(g *generation) {
	most := r.places
	if g.most > 0 {
		most = min(most, g.most)
	}
	r.gate.limit(most)
	each := g.each
	if each > 0 {
		each = min(each, max(most/2, 1))
	}
	r.back.crowd.limit(each)
}

// startLocked lets a door accept, once Run has begun.
func (r *Role) startLocked(d *door) {
	if r.running == nil || d.started {
		return
	}
	if r.gate.isPaused() {
		d.interrupt(true)
	}
	d.started = true
	r.loops.Go(func() { d.accept(r.running) })
}

// Abort implements proc.Program.
func (r *Role) Abort(gen mail.Gen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.prepared != nil && r.prepared.gen == gen {
		r.forget(r.prepared)
		r.prepared = nil
	}
}

// forget ends what a generation has that will not be in force.
func (r *Role) forget(g *generation) {
	g.close()
	r.programs.Abort(g.programs)
}

// close closes the descriptors that nobody has taken.
func (g *generation) close() {
	for _, f := range g.files {
		if f != nil {
			f.Close()
		}
	}
	g.files = nil
}

// Run implements proc.Program.
func (r *Role) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(context.Background())
	defer cancel()
	var helpers sync.WaitGroup
	helpers.Go(func() { r.smtp.Run(inner) })
	helpers.Go(func() { r.back.ids.run(inner) })
	helpers.Go(func() { r.relay.run(inner) })
	helpers.Go(func() { r.grey.run(inner) })
	helpers.Go(func() { r.watchDates(inner, r.began) })

	accepting, stop := context.WithCancel(ctx)
	defer stop()
	r.mu.Lock()
	r.running = accepting
	for _, d := range r.doors {
		r.startLocked(d)
	}
	r.mu.Unlock()

	<-ctx.Done()
	r.mu.Lock()
	for _, d := range r.doors {
		d.close()
	}
	r.mu.Unlock()
	stop()
	r.loops.Wait()
	// Shortly before the daemon's patience ends.
	grace, enough := within(context.Background(), r.clock, r.env.GraceAfter(ctx)*3/4)
	var relays sync.WaitGroup
	relays.Go(func() { r.relay.mta.Stop(grace) })
	release := context.AfterFunc(grace, r.programs.Release)
	r.smtp.Stop(grace)
	relays.Wait()
	release()
	enough()
	r.programs.Close()
	cancel()
	helpers.Wait()
	return nil
}

// within returns a context that ends after d of c's time, and a function that
// ends it and waits for what that takes.
func within(ctx context.Context, c clock.Clock, d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	late, never := c.After(d)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-late:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { never(); cancel(); watch.Wait() }
}

// Handlers implements proc.Program.
func (r *Role) Handlers() []proc.Handler {
	return []proc.Handler{
		{From: proc.Queue, Type: msg.TypeIntake, Do: r.intake},
		{From: proc.Queue, Type: msg.TypeRelayTask, Do: r.relay.task},
		{From: proc.Control, Type: msg.TypeLocalSession, Do: r.localSession},
		{From: proc.Control, Type: msg.TypeControl, Do: r.control},
		{From: proc.Parent, Type: msg.TypeProgram, Do: r.restarted},
		{From: proc.Control, Type: msg.TypeStats, Do: func(_ context.Context, q proc.Request) { q.Reply(r.stats.set.Reply()) }},
	}
}
