// Package queue is the process that keeps mail and decides when each envelope is
// tried: it takes messages in, runs the run queue, hands local mail to delivery
// agents, and tells senders what became of their mail.
//
// SECURITY. The process runs as _smtpq, locked into the spool, without network.
// Dispatcher, which speaks to strangers, can give it bodies and ask for commits
// of messages whose identifiers it was given; it cannot author an envelope, for
// those come from lookup alone. Lookup can add envelopes only to messages that
// are being received. Whatever either sends is bounded in number and memory, and
// what is wrong ends that message, never the process. A delivery agent, which
// runs as some user, gets bodies and returns results; texts of its choice are
// cleaned before they are kept. Control has checked who asks before a request
// comes here; what only operators may see is checked here, because only here it
// is known whose mail it is.
package queue

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/runq"
	"opensmtpd/src/stat"
)

// Options are what a test or a later part gives instead of the usual.
type Options struct {
	// Disk opens the spool when Run begins; nil: the directory Env.Dir.
	Disk func() (disk.FS, error)
	// Relayer takes envelopes for other servers; nil: dispatcher does.
	Relayer Relayer
}

// agents is what is used of mda.Pool.
type agents interface {
	Deliver(*mda.Delivery)
	SetLimits(mda.Limits)
	Load() (all, running, users int)
	Close(context.Context)
}

// Role is the queue process. It is a proc.Program.
type Role struct {
	env     proc.Env
	relayer Relayer
	leases  *leases // nil: relayer is another
	disk    func() (disk.FS, error)
	pool    agents
	stats   stat.Set
	count   counters
	session atomic.Uint64 // of the last delivery, for the log

	checkOwner bool  // of the spool
	segment    int64 // bytes of a journal segment; 0: as the store likes

	ready chan struct{} // closed when store may be used
	store *store.Store

	wake     chan struct{} // tells Run that there may be something to do
	announce chan struct{} // tells Run that intake may have changed
	pumped   chan struct{} // tells a test that Run has done what was due
	work     sync.WaitGroup

	conf atomic.Pointer[generation]

	mu       sync.Mutex // of what follows; never held while the store is called
	prepared map[mail.Gen]*generation
	rq       *runq.Queue
	incoming incoming
	reports  reports
	intake   intake
	listing  listing
	pinned   int64 // bytes of bodies in memory for deliveries
	updated  updated
	later    []func() // for Run to do
	stopping bool     // nothing new is begun
	closed   bool     // the store may not be used any more
}

// New reads the first configuration. Nothing is opened before Run.
func New(env proc.Env, o Options) (*Role, error) {
	g, err := decode(env.Conf)
	if err != nil {
		return nil, err
	}
	r := &Role{
		env: env, relayer: o.Relayer, disk: o.Disk,
		ready: make(chan struct{}), wake: make(chan struct{}, 1), announce: make(chan struct{}, 1), pumped: make(chan struct{}, 1),
		prepared: make(map[mail.Gen]*generation),
		updated:  updated{envs: make(map[mail.EnvelopeID]*envelope.Envelope)},
	}
	if r.relayer == nil {
		r.leases = newLeases(r)
		r.relayer = r.leases
	}
	if r.disk == nil {
		r.checkOwner = true
		r.disk = func() (disk.FS, error) { return disk.NewReal(env.Dir) }
	}
	r.count.init(&r.stats)
	r.conf.Store(g)
	r.incoming.init()
	r.reports.init()
	r.session.Store(random64())
	r.rq = runq.New(env.Clock, r.runqConf(g))
	for _, what := range env.Paused {
		switch what {
		case "mda":
			r.rq.Pause(envelope.MDA)
		case "mta":
			r.rq.Pause(envelope.MTA)
		}
	}
	r.pool = mda.NewPool(env.Peers[proc.Parent], mda.Options{Clock: env.Clock, Log: env.Log, Limits: g.mdaLimits()})
	return r, nil
}

// random64 is a number nobody can foresee.
func random64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return binary.LittleEndian.Uint64(b[:])
}

// Handlers is the table of what other processes may ask.
func (r *Role) Handlers() []proc.Handler {
	return append(r.leases.handlers(), []proc.Handler{
		{From: proc.Lookup, Type: msg.TypeAddEnvelope, Do: r.addEnvelope},
		{From: proc.Dispatcher, Type: msg.TypeReserveIDs, Concurrent: true, Do: r.reserveIDs},
		{From: proc.Dispatcher, Type: msg.TypeBodyChunk, Do: r.bodyChunk},
		{From: proc.Dispatcher, Type: msg.TypeCommit, Do: r.commit},
		{From: proc.Dispatcher, Type: msg.TypeDiscard, Do: r.discard},
		{From: proc.Dispatcher, Type: msg.TypeKeep, Do: r.keep},
		{From: proc.Dispatcher, Type: msg.TypeKept, Concurrent: true, Do: r.kept},
		{From: proc.Control, Type: msg.TypeControl, Concurrent: true, Do: r.control},
		{From: proc.Control, Type: msg.TypeStats, Do: r.showStats},
	}...)
}

// Run opens the store, and schedules until ctx ends.
func (r *Role) Run(ctx context.Context) error {
	fs, err := r.disk()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s, err := store.Open(ctx, fs, store.Options{
		Clock: r.env.Clock, Log: r.env.Log, Intake: r.storeIntake, SegmentSize: r.segment,
		CheckOwner: r.checkOwner, Owner: uint32(os.Geteuid()),
	})
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return r.serve(ctx, s)
}

// serve works with an open store, which it closes.
func (r *Role) serve(ctx context.Context, s *store.Store) error {
	r.store = s
	r.load()
	close(r.ready)
	// Work in progress outlives ctx: stop ends it.
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	r.work.Go(func() { r.announcer(working) })
	r.work.Go(func() { r.verify(working) })
	r.loop(ctx, working)
	return r.stop(r.env.GraceAfter(ctx), cancel)
}

// load gives the run queue what the store has.
func (r *Role) load() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store.Each(func(s store.Summary) bool {
		r.rq.Insert(r.summaryItem(s))
		return true
	})
	c := r.rq.Counts()
	r.count.envelopes.Add(int64(c.Envelopes))
	r.env.Log.QueueLoaded(c.Envelopes, c.Messages)
}

// verifyAgain is how long to wait when the spool could not be read.
const verifyAgain = time.Minute

// verify compares spool and index in the background; the store needs it done
// once.
func (r *Role) verify(ctx context.Context) {
	for {
		_, err := r.compare(ctx)
		if err == nil {
			r.env.Log.SpoolRead()
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		r.env.Log.SpoolUnread(err)
		again, cancel := r.env.Clock.After(verifyAgain)
		select {
		case <-again:
		case <-ctx.Done():
			cancel()
			return
		}
	}
}

// compare takes in what was found in the spool and forgets what is gone from
// it; it returns what was found.
func (r *Role) compare(ctx context.Context) (found []mail.EnvelopeID, err error) {
	err = r.store.Verify(ctx, func(s store.Summary) {
		r.mu.Lock()
		if r.rq.Insert(r.summaryItem(s)) {
			r.count.envelopes.Add(1)
			found = append(found, s.ID)
		}
		r.mu.Unlock()
		r.poke()
	}, func(id mail.EnvelopeID) {
		r.mu.Lock()
		gone, flying := r.rq.Remove(runq.Selection{Envelope: id})
		r.mu.Unlock()
		r.count.envelopes.Sub(int64(len(gone) + len(flying)))
	})
	return found, err
}

// poke makes Run look what there is to do.
func (r *Role) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// soon leaves f to Run: for what must not be done where it was found out.
func (r *Role) soon(f func()) {
	r.mu.Lock()
	r.later = append(r.later, f)
	r.mu.Unlock()
	r.poke()
}

// loop does what is due, then waits for more, until ctx ends.
func (r *Role) loop(ctx, working context.Context) {
	var alarm <-chan struct{}
	var rings time.Duration // when alarm does, if there is one
	cancel := func() {}
	defer func() { cancel() }()
	for {
		at := r.pump(working)
		select {
		case r.pumped <- struct{}{}:
		default:
		}
		if alarm == nil || at < rings {
			cancel()
			rings = at
			alarm, cancel = r.env.Clock.After(at - r.env.Clock.Mono())
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-alarm:
			alarm = nil
		}
	}
}

// pump does all that is due and returns when it must be called again at the
// latest.
func (r *Role) pump(working context.Context) time.Duration {
	r.doLater()
	r.forgetUpdates()
	r.lateCommits()
	r.watchSpace()
	r.startReports(working)
	for {
		r.mu.Lock()
		if r.stopping {
			r.mu.Unlock()
			break
		}
		job, ok := r.rq.Next()
		r.mu.Unlock()
		if !ok {
			break
		}
		r.count.inflight.Add(1)
		r.start(job)
	}
	r.relayer.Flush()
	return r.nextWake()
}

func (r *Role) doLater() {
	r.mu.Lock()
	todo := r.later
	r.later = nil
	r.mu.Unlock()
	for _, f := range todo {
		f()
	}
}

func (r *Role) nextWake() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.intake.look
	if t, ok := r.rq.Wake(); ok {
		at = min(at, t)
	}
	if t, ok := r.incoming.deadline(); ok {
		at = min(at, t)
	}
	if t, ok := r.reports.deadline(); ok {
		at = min(at, t)
	}
	return at
}

// stop ends what runs: deliveries have some time left, reports and messages being
// received are given up, the rest is made durable.
func (r *Role) stop(left time.Duration, cancel context.CancelFunc) error {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	grace, end := context.WithCancel(context.Background())
	late, unwait := r.env.Clock.After(left)
	r.work.Go(func() {
		select {
		case <-late:
			end()
		case <-grace.Done():
		}
	})
	relays := make(chan struct{})
	r.work.Go(func() {
		defer close(relays)
		r.relayer.Close(grace)
	})
	r.pool.Close(grace)
	<-relays
	cancel()
	r.giveUpIncoming()
	end()
	unwait()
	r.work.Wait()
	r.doLater()
	return r.store.Close()
}

// closing is what a request gets that comes too late.
func closing() *mailerr.Error {
	return mailerr.Temporary(451, 3, 2, "Temporary failure", fmt.Errorf("queue is stopping"))
}
