package parent

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/proc"
)

const (
	// A program that dies is started again after firstPause, then after twice
	// as long each time up to lastPause, so that one that cannot work costs
	// nothing; one that ran for wellFor begins anew.
	firstPause = time.Second
	lastPause  = 60 * time.Second
	wellFor    = 60 * time.Second
	// drain is how long a program that a reload dropped may serve the sessions
	// that began before: a message of their timeout, and some time besides.
	drain = 10 * time.Minute
	// programGrace is what a program gets from SIGTERM to SIGKILL.
	programGrace = 3 * time.Second
)

// programSpec says how to start a program that somebody else speaks to.
type programSpec struct {
	Identity string    // names its pipes; the same while it is started in the same way
	Name     string    // in the log
	Role     proc.Role // who speaks to it
	Command  string    // what the shell runs; or
	Path     string    // a program, and
	Argv     []string  // its arguments, from the name that it is called by on
	Chroot   string    // "": none
	// Credential is who runs it; nil: whoever we are.
	Credential *syscall.Credential
}

// programs keeps filter and table programs running. Each has a goroutine of its
// own, which starts it again when it has died.
type programs struct {
	clock clock.Clock
	log   *mlog.Logger
	// give hands the pipe of a program that was started again to its role.
	give func(role proc.Role, identity string, f *os.File)

	mu       sync.Mutex
	running  map[string]*program // of the generation in force, by identity
	all      map[*program]struct{}
	stopping bool
	wg       sync.WaitGroup
}

func newPrograms(c clock.Clock, log *mlog.Logger, give func(proc.Role, string, *os.File)) *programs {
	return &programs{
		clock: c, log: log, give: give,
		running: make(map[string]*program), all: make(map[*program]struct{}),
	}
}

// program is one of them through all its deaths.
type program struct {
	spec programSpec
	own  *programs

	once      sync.Once
	kept      chan struct{} // closed when its generation is in force
	dropped   chan struct{} // closed when a later one is that has it no more
	stop      chan struct{} // closed when it has to end now
	misbehave chan struct{} // receives when its role gives it up
}

// has tells whether a program runs already, so that its role has its pipe.
func (ps *programs) has(identity string) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.running[identity] != nil
}

// start starts a program for a generation that is being prepared, and returns
// the pipe for its role. It ends unless commit takes it.
func (ps *programs) start(spec programSpec) (*program, *os.File, error) {
	r, f, err := ps.launch(spec)
	if err != nil {
		return nil, nil, err
	}
	g := &program{
		spec: spec, own: ps,
		kept: make(chan struct{}), dropped: make(chan struct{}), stop: make(chan struct{}), misbehave: make(chan struct{}, 1),
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.stopping {
		g.end()
	}
	ps.all[g] = struct{}{}
	ps.wg.Go(func() {
		g.live(r)
		ps.mu.Lock()
		defer ps.mu.Unlock()
		delete(ps.all, g)
	})
	return g, f, nil
}

// commit makes those wanted by identity the ones that run: of the programs
// before, and of started. Others end once they are not needed.
func (ps *programs) commit(wanted map[string]bool, started []*program) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for id, g := range ps.running {
		if !wanted[id] {
			close(g.dropped)
			delete(ps.running, id)
		}
	}
	for _, g := range started {
		close(g.kept)
		ps.running[g.spec.Identity] = g
	}
}

// giveUp is told by a role that a program does not keep to its protocol.
func (ps *programs) giveUp(role proc.Role, identity string) {
	ps.mu.Lock()
	g := ps.running[identity]
	ps.mu.Unlock()
	if g == nil || g.spec.Role != role {
		return
	}
	select {
	case g.misbehave <- struct{}{}:
	default:
	}
}

// retire starts nothing again from now on.
func (ps *programs) retire() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.stopping = true
}

// close ends all programs and waits until they are gone.
func (ps *programs) close() {
	ps.mu.Lock()
	ps.stopping = true
	for g := range ps.all {
		g.end()
	}
	ps.mu.Unlock()
	ps.wg.Wait()
}

func (ps *programs) isStopping() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.stopping
}

// end ends a program now.
func (g *program) end() { g.once.Do(func() { close(g.stop) }) }

// live sees a program through its lives, the first of which is r.
func (g *program) live(r *run) {
	pause := firstPause
	for {
		how, over := g.attend(r)
		if over || g.own.isStopping() {
			return
		}
		if g.own.clock.Mono()-r.since >= wellFor {
			pause = firstPause
		}
		g.own.log.ProgramDied(g.spec.Name, how, pause)
		if r, pause = g.again(pause); r == nil {
			return
		}
	}
}

// attend waits for a life to end. over tells that there shall be no other.
func (g *program) attend(r *run) (how string, over bool) {
	select {
	case <-r.exited:
		select {
		case <-g.dropped:
			over = true
		case <-g.stop:
			over = true
		default:
		}
	case <-g.misbehave:
		r.kill()
		<-r.exited
	case <-g.stop:
		r.end(g.own.clock)
		over = true
	case <-g.dropped:
		late, cancel := g.own.clock.After(drain)
		defer cancel()
		select {
		case <-r.exited:
		case <-late:
		case <-g.stop:
		}
		r.end(g.own.clock)
		over = true
	}
	r.finish(g.own.clock)
	return r.how, over
}

// again starts the program after a pause and returns its next life and the
// pause to come; nil when it shall not live again.
func (g *program) again(pause time.Duration) (*run, time.Duration) {
	for {
		if !g.rest(pause) {
			return nil, 0
		}
		pause = min(2*pause, lastPause)
		select { // what was asked of the life before is done
		case <-g.misbehave:
		default:
		}
		r, f, err := g.own.launch(g.spec)
		if err != nil {
			g.own.log.ProgramFailed(g.spec.Name, err, pause)
			continue
		}
		g.own.log.ProgramStarted(g.spec.Name)
		g.own.give(g.spec.Role, g.spec.Identity, f)
		return r, pause
	}
}

// rest waits before a program is started again, and until its generation is in
// force: before, its role does not know it. It is false when it is to end.
func (g *program) rest(pause time.Duration) bool {
	due, cancel := g.own.clock.After(pause)
	defer cancel()
	for _, wait := range []<-chan struct{}{due, g.kept} {
		select {
		case <-wait:
		case <-g.stop:
			return false
		case <-g.dropped:
			return false
		}
	}
	return !g.own.isStopping()
}

// programEnd is told by dispatcher or lookup to kill a program.
func (p *Parent) programEnd(_ context.Context, r proc.Request) {
	id, err := programOf(r)
	if err != nil {
		p.log.RequestFailed(string(proc.Parent), string(r.From()), uint16(r.Type()), err)
		return
	}
	p.programs.giveUp(r.From(), id)
}
