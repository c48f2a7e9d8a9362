// Package clock passes time in: wall time for what is stored, monotonic time
// for what waits. Logic never calls package time for the hour.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time and wakes.
type Clock interface {
	// Now returns wall time, to be stored or shown.
	Now() time.Time
	// Mono returns the time since an arbitrary start; it never goes back.
	Mono() time.Duration
	// After returns a channel that receives once d of monotonic time has
	// passed, and a function that cancels the wait.
	After(d time.Duration) (<-chan struct{}, func())
}

// System is the machine's clock.
type System struct{ start time.Time }

// NewSystem returns the machine's clock; Mono counts from now.
func NewSystem() *System { return &System{time.Now()} }

func (s *System) Now() time.Time      { return time.Now() }
func (s *System) Mono() time.Duration { return time.Since(s.start) }

func (s *System) After(d time.Duration) (<-chan struct{}, func()) {
	ch := make(chan struct{})
	t := time.AfterFunc(d, func() { close(ch) })
	return ch, func() { t.Stop() }
}

// Fake is a clock for tests: it moves only when told.
type Fake struct {
	mu      sync.Mutex
	wall    time.Time
	mono    time.Duration
	waiters map[*waiter]struct{}
	changed chan struct{}
}

type waiter struct {
	at time.Duration
	ch chan struct{}
}

// NewFake returns a clock that stands at wall.
func NewFake(wall time.Time) *Fake {
	return &Fake{wall: wall, waiters: make(map[*waiter]struct{}), changed: make(chan struct{})}
}

func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wall
}

func (f *Fake) Mono() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mono
}

func (f *Fake) After(d time.Duration) (<-chan struct{}, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &waiter{f.mono + d, make(chan struct{})}
	if d <= 0 {
		close(w.ch)
		return w.ch, func() {}
	}
	f.waiters[w] = struct{}{}
	f.announce()
	return w.ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.waiters, w)
		f.announce()
	}
}

func (f *Fake) announce() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Advance moves wall and monotonic time on by d and wakes those whose time has
// come.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall = f.wall.Add(d)
	f.mono += d
	for w := range f.waiters {
		if w.at <= f.mono {
			delete(f.waiters, w)
			close(w.ch)
		}
	}
	f.announce()
}

// Jump sets wall time alone, as an administrator or NTP would.
func (f *Fake) Jump(wall time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall = wall
}

// BlockUntil returns when at least n waits are pending, so that a test can
// advance without a race.
func (f *Fake) BlockUntil(n int) { f.block(func(have int) bool { return have >= n }) }

// BlockWhile returns when no more than n waits are pending: one that is over is
// cancelled a little later, and would be taken for the next.
func (f *Fake) BlockWhile(n int) { f.block(func(have int) bool { return have <= n }) }

func (f *Fake) block(until func(waits int) bool) {
	for {
		f.mu.Lock()
		have, changed := len(f.waiters), f.changed
		f.mu.Unlock()
		if until(have) {
			return
		}
		<-changed
	}
}
