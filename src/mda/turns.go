package mda

import "time"

// turnTime is how long others wait for an agent that has a turn and gives no
// result: the disk that they share is not so slow, but a home on another machine
// may be.
const turnTime = 250 * time.Millisecond

// turns bounds how many agents write at a time. A sync makes the file system
// commit its journal, which costs the same for one file and for fifty, so agents
// that wait for their turn let a batch gather. Who finds a turn free has it at
// once: nobody waits for company.
//
// A turn ends when all that was given in it has its result. While others wait no
// more than a batch is given.
type turns struct {
	most    int
	taken   int
	line    []*slot // those that wait; empty while a turn is free
	watched bool    // the goroutine that looks for turns without end runs
}

// turn is a slot's part in them. A turn that is not counted is one that others
// need not wait for.
type turn struct {
	counted bool
	lined   bool          // waits for one
	slow    bool          // the last turn took too long: the next is not counted
	late    bool          // this one does
	given   int           // deliveries in this turn
	open    int           // of them without a result
	since   time.Duration // of the last result, or of its begin
}

// mayWrite tells whether the agent may have one more delivery that it will write
// to the disk. If not, it is pumped when its turn comes. p.mu is held.
func (s *slot) mayWrite() bool {
	t, all := &s.turn, &s.p.turns
	switch {
	case t.lined:
		return false
	case t.open > 0:
		if t.counted && len(all.line) > 0 && t.given >= maxBatch {
			return false // it lines up again when this turn is over
		}
	case t.slow:
		s.begin()
	case all.taken < all.most:
		all.taken++
		t.counted = true
		s.begin()
	default:
		s.lineUp()
		return false
	}
	t.given++
	t.open++
	return true
}

// lineUp makes the slot the last of those who wait; p.mu is held.
func (s *slot) lineUp() {
	s.turn.lined = true
	s.p.turns.line = append(s.p.turns.line, s)
	s.p.watchTurns()
}

// begin begins a turn; p.mu is held.
func (s *slot) begin() {
	s.turn.given, s.turn.late, s.turn.since = 0, false, s.p.o.Clock.Mono()
}

// written notes the result of a delivery that mayWrite allowed; p.mu is held.
func (s *slot) written() {
	t, now := &s.turn, s.p.o.Clock.Mono()
	t.late = t.late || now-t.since >= turnTime
	t.since = now
	if t.open--; t.open == 0 {
		t.slow = t.late
		s.giveTurn()
	}
}

// giveTurn gives the turn to those who wait for it, of whom the slot may be the
// last; p.mu is held.
func (s *slot) giveTurn() {
	if !s.turn.counted {
		return
	}
	s.turn.counted = false
	t := &s.p.turns
	t.taken--
	if len(t.line) > 0 && len(s.queue) > 0 && !s.turn.lined {
		s.lineUp()
	}
	for t.taken < t.most && len(t.line) > 0 {
		next := t.line[0]
		t.line[0] = nil
		t.line = t.line[1:]
		next.turn.lined = false
		next.pump() // takes the turn, if there is still something to write
	}
}

// watchTurns starts the goroutine that takes turns from agents which give no
// result, and runs while somebody waits; p.mu is held.
func (p *Pool) watchTurns() {
	if p.turns.watched {
		return
	}
	p.turns.watched = true
	p.wg.Go(func() {
		for {
			tick, stop := p.o.Clock.After(turnTime)
			select {
			case <-tick:
			case <-p.ctx.Done():
				stop()
				return
			}
			if !p.takeTurns() {
				return
			}
		}
	})
}

// takeTurns takes the turns that last too long, and tells whether to go on
// watching.
func (p *Pool) takeTurns() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Clock.Mono()
	for _, s := range p.slots {
		if s.turn.counted && now-s.turn.since >= turnTime {
			s.turn.late = true
			s.giveTurn()
		}
	}
	p.turns.watched = len(p.turns.line) > 0
	return p.turns.watched
}
