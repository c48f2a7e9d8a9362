package dispatcher

import (
	"context"
	"sync"
)

// A gate lets listeners accept: not while the administrator has paused them, and
// not when there are as many sessions as descriptors allow.
type gate struct {
	mu     sync.Mutex
	paused bool
	live   int // sessions
	max    int
	full   bool          // it has been said that there are too many
	change chan struct{} // closed at a change; nil when nobody waits for one
}

// admit waits until a session may begin. It is false when ctx has ended. full
// tells that the caller is the first to be turned away.
func (g *gate) admit(ctx context.Context, full func()) bool {
	for {
		g.mu.Lock()
		if !g.paused && g.live < g.max {
			g.mu.Unlock()
			return ctx.Err() == nil
		}
		said := g.full || g.paused
		g.full = g.full || g.live >= g.max
		if g.change == nil {
			g.change = make(chan struct{})
		}
		change := g.change
		g.mu.Unlock()
		if !said {
			full()
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}

// limit sets how many sessions there may be; those that are there stay.
func (g *gate) limit(max int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.max = max
	g.changed()
}

// enter counts a session.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live++
}

// leave counts one less, and tells whether listeners go on because of it.
func (g *gate) leave() (again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live--
	// A few free places first, so that it is not said at every session.
	if g.full && g.live <= g.max-max(1, g.max/16) {
		g.full, again = false, true
	}
	g.changed()
	return again
}

// open tells whether a session may begin now. It is for who cannot wait outside.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.paused && g.live < g.max
}

// pause stops or goes on.
func (g *gate) pause(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = on
	g.changed()
}

func (g *gate) isPaused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

func (g *gate) changed() {
	if g.change != nil {
		close(g.change)
		g.change = nil
	}
}
