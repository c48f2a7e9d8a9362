package filter

import (
	"fmt"
	"net"
	"os"
	"sync"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mlog"
)

// Programs are the filter programs that run, across the generations of the
// configuration.
type Programs struct {
	clock clock.Clock
	log   *mlog.Logger
	// end has parent end a program, to be started again. It must not wait.
	end func(identity string)
	wg  sync.WaitGroup

	mu   sync.Mutex
	list map[string]*Program // of the generation in force, by identity
	all  map[*process]struct{}
	over bool
}

// NewPrograms returns an empty set.
func NewPrograms(c clock.Clock, log *mlog.Logger, end func(identity string)) *Programs {
	return &Programs{clock: c, log: log, end: end, list: make(map[string]*Program), all: make(map[*process]struct{})}
}

// Program is one program, through all its lives.
type Program struct {
	owner    *Programs
	identity string
	name     string
	told     project.Told

	mu   sync.Mutex
	now  *process // nil: it is to be started again
	gone bool     // it is of no generation any more
}

// start gives a program its next life, behind f.
func (g *Program) start(f *os.File) error {
	nc, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("filter program %s: %w", g.name, err)
	}
	g.begin(nc)
	return nil
}

func (g *Program) begin(nc net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now != nil {
		old := g.now // parent knows better than we do that it is dead
		g.now = nil
		g.owner.wg.Go(func() { old.fail(nil) })
	}
	if g.gone {
		_ = nc.Close()
		return
	}
	g.now = newProcess(g, nc)
	g.owner.track(g.now)
}

func (ps *Programs) track(p *process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.all[p] = struct{}{}
	if ps.over {
		ps.wg.Go(func() { p.fail(nil) })
	}
}

// lost is told that a process is no good any more, or not needed.
func (g *Program) lost(p *process, err error, leaving bool) {
	g.mu.Lock()
	current, gone := g.now == p, g.gone
	if current {
		g.now = nil
	}
	g.mu.Unlock()
	ps := g.owner
	ps.mu.Lock()
	delete(ps.all, p)
	over := ps.over
	ps.mu.Unlock()
	if current && !gone && !over && !leaving {
		ps.log.FilterLost(g.name, err)
		ps.end(g.identity)
	}
}

// join makes a session known to the program, and waits for its handshake. It
// returns nil when the program is not there.
func (g *Program) join(t *talk) *link {
	g.mu.Lock()
	p := g.now
	g.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.ready: // dead, should it take too long
		return p.join(t)
	case <-p.dead:
		return nil
	}
}

// drop ends the program when its last session has ended.
func (g *Program) drop() {
	g.mu.Lock()
	p := g.now
	g.gone = true
	g.mu.Unlock()
	if p != nil {
		p.leave()
	}
}

// Prepare returns the programs of a generation by their names. take returns the
// pipe of one that has been started, nil when there is none.
func (ps *Programs) Prepare(d *project.DispatcherConf, take func(identity string) *os.File) (map[string]*Program, error) {
	out := make(map[string]*Program, len(d.Procs))
	fail := func(err error) (map[string]*Program, error) {
		ps.Abort(out)
		return nil, err
	}
	for i := range d.Procs {
		c := &d.Procs[i]
		ps.mu.Lock()
		g := ps.list[c.Identity]
		ps.mu.Unlock()
		f := take(c.Identity)
		switch {
		case f != nil:
			g = &Program{owner: ps, identity: c.Identity, name: c.Shown(), told: c.Told}
			if err := g.start(f); err != nil {
				return fail(err)
			}
		case g == nil:
			return fail(fmt.Errorf("no descriptor for the filter program %s", c.Shown()))
		}
		out[c.Name] = g
	}
	return out, nil
}

// Commit makes programs that Prepare returned those in force.
func (ps *Programs) Commit(programs map[string]*Program) {
	ps.mu.Lock()
	old := ps.list
	ps.list = make(map[string]*Program, len(programs))
	for _, g := range programs {
		ps.list[g.identity] = g
	}
	keep := ps.list
	ps.mu.Unlock()
	for id, g := range old {
		if keep[id] != g {
			g.drop()
		}
	}
}

// Abort forgets programs that Prepare returned, but for those in force.
func (ps *Programs) Abort(programs map[string]*Program) {
	ps.mu.Lock()
	list := ps.list
	ps.mu.Unlock()
	for _, g := range programs {
		if list[g.identity] != g {
			g.drop()
		}
	}
}

// Restarted takes the pipe of a program that parent has started again.
func (ps *Programs) Restarted(identity string, f *os.File) error {
	ps.mu.Lock()
	g := ps.list[identity]
	ps.mu.Unlock()
	if g == nil {
		f.Close()
		return nil // a reload has dropped it
	}
	return g.start(f)
}

// Release lets no session wait for a program any longer: the daemon stops.
func (ps *Programs) Release() {
	ps.mu.Lock()
	ps.over = true
	var list []*process
	for p := range ps.all {
		list = append(list, p)
	}
	ps.mu.Unlock()
	for _, p := range list {
		p.fail(nil)
	}
}

// Close ends all, after the sessions, and waits for the goroutines.
func (ps *Programs) Close() {
	ps.Release()
	ps.wg.Wait()
}
