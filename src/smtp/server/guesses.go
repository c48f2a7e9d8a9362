package server

import (
	"net/netip"
	"sync"
	"time"

	"opensmtpd/src/clock"
)

// Limits of those who try passwords.
const (
	// maxFailures is how often a session may fail to authenticate.
	maxFailures = 3
	// maxGuesses is how often the clients of an address may, until guessMemory
	// has passed without a failure. What is being verified counts as failed.
	maxGuesses  = 20
	guessMemory = 10 * time.Minute
	// A failure is answered after firstWait; each further one of the address
	// doubles that, up to lastWait.
	firstWait = time.Second
	lastWait  = 8 * time.Second
	// maxGuessers is how many addresses are remembered.
	maxGuessers = 10000
)

// guesses counts failures by Customer. It is safe for use by many goroutines.
type guesses struct {
	clock clock.Clock
	mu    sync.Mutex
	of    map[netip.Prefix]*guesser
}

type guesser struct {
	failed  int
	running int
	last    time.Duration // monotonic
}

// Customer is under what the client at an address is counted: of IPv6 all 64 bits
// that one customer gets, in which he can have any address. It is false for those
// who are not counted: whoever speaks from this machine speaks for many users.
func Customer(a netip.Addr) (netip.Prefix, bool) {
	if a = a.Unmap().WithZone(""); !a.IsValid() || a.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// begin tells whether a client at a may try. end must follow.
func (g *guesses) begin(a netip.Addr) bool {
	p, counted := Customer(a)
	if !counted {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Mono()
	u := g.of[p]
	if u == nil {
		g.room(now)
		u = &guesser{}
		g.of[p] = u
	}
	if now-u.last >= guessMemory {
		u.failed = 0
	}
	if u.failed+u.running >= maxGuesses {
		return false
	}
	u.running++
	u.last = now
	return true
}

// end accounts for a try and returns how long the answer to a failure has to
// wait.
func (g *guesses) end(a netip.Addr, failed bool) time.Duration {
	p, counted := Customer(a)
	if !counted {
		return firstWait
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.of[p]
	u.running--
	if failed {
		u.failed++
		u.last = g.clock.Mono()
	} else if u.failed == 0 && u.running == 0 {
		delete(g.of, p)
	}
	return min(firstWait<<min(max(u.failed-1, 0), 8), lastWait)
}

// room makes sure that one more fits: it forgets those that have been quiet for
// long enough, or else the one that has been quiet longest.
func (g *guesses) room(now time.Duration) {
	if g.of == nil {
		g.of = make(map[netip.Prefix]*guesser)
	}
	if len(g.of) < maxGuessers {
		return
	}
	var oldest netip.Prefix
	var since *guesser
	for p, u := range g.of {
		switch {
		case u.running > 0:
		case now-u.last >= guessMemory:
			delete(g.of, p)
		case since == nil || u.last < since.last:
			oldest, since = p, u
		}
	}
	if len(g.of) >= maxGuessers && since != nil {
		delete(g.of, oldest)
	}
}
