package disk

import (
	"math/rand/v2"
	"slices"
)

// Choice picks one of n outcomes, 0 to n-1, for a change that was not yet durable
// when the power failed. Of a change of a directory: lost, kept. Of a write:
// lost, kept, torn; then for each 512-byte sector of a torn one: lost, kept.
type Choice func(n int) int

// Lose loses everything that was not synced.
func Lose(int) int { return 0 }

// Keep keeps everything.
func Keep(n int) int { return min(n-1, 1) }

// Random tosses a coin for each change, the same for the same seed.
func Random(seed uint64) Choice {
	r := rand.New(rand.NewPCG(seed, 0))
	return r.IntN
}

// Choices goes through every possible run of choices. Use:
//
//	for c := new(Choices); c.Next(); { sim.Reboot(c.Pick); … }
type Choices struct {
	taken, of []int
	at        int
	begun     bool
}

// Next moves to the next run; false when there is none.
func (c *Choices) Next() bool {
	if !c.begun {
		c.begun = true
		return true
	}
	c.taken, c.of = c.taken[:c.at], c.of[:c.at]
	c.at = 0
	for i := len(c.taken) - 1; i >= 0; i-- {
		if c.taken[i]+1 < c.of[i] {
			c.taken[i]++
			c.taken, c.of = c.taken[:i+1], c.of[:i+1]
			return true
		}
	}
	return false
}

// Pick is the Choice.
func (c *Choices) Pick(n int) int {
	if c.at == len(c.taken) {
		c.taken, c.of = append(c.taken, 0), append(c.of, n)
	}
	c.at++
	return c.taken[c.at-1]
}

// Kill ends the process, now or where the crash was, but not the machine: the disk that is returned has all that
// was done, synced or not, and what was pending still is. Events are counted on.
// The old Sim fails as after a crash.
func (s *Sim) Kill() *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := NewSim()
	next.root, next.pending, next.space = s.root, s.pending, s.space
	next.events = s.events
	if !s.crashed {
		next.crashAt = s.crashAt
	}
	s.crashed = true
	return next
}

// Reboot returns the disk as found after a power failure now (or at the crash):
// what was durable, and of the rest what choose keeps. The old Sim stays as it
// is, crashed.
func (s *Sim) Reboot(choose Choice) *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
	r := &reboot{choose: choose, made: make(map[*inode]*inode)}
	for _, c := range s.pending {
		if choose(2) == 1 {
			r.kept = append(r.kept, c)
		}
	}
	next := NewSim()
	next.space = s.space
	next.root = r.copy(s.root)
	return next
}

type reboot struct {
	choose Choice
	kept   []*change
	made   map[*inode]*inode
}

func (r *reboot) copy(n *inode) *inode {
	if c := r.made[n]; c != nil {
		return c
	}
	if !n.dir() {
		c := &inode{data: r.contents(n)}
		c.durable = slices.Clone(c.data)
		r.made[n] = c
		return c
	}
	c := newDir()
	r.made[n] = c
	names := make(map[string]*inode, len(n.stable))
	for name, child := range n.stable {
		names[name] = child
	}
	for _, k := range r.kept {
		for _, e := range k.edges {
			if e.dir == n && e.node == nil {
				delete(names, e.name)
			} else if e.dir == n {
				names[e.name] = e.node
			}
		}
	}
	sorted := make([]string, 0, len(names)) // the same choices in each run
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		child := r.copy(names[name])
		c.names[name], c.stable[name] = child, child
	}
	return c
}

func (r *reboot) contents(n *inode) []byte {
	data := slices.Clone(n.durable)
	for _, w := range n.writes {
		outcomes := 3
		if len(w.data) < 2 {
			outcomes = 2
		}
		switch r.choose(outcomes) {
		case 1:
			data = w.apply(data)
		case 2:
			data = r.tear(w, data)
		}
	}
	return data
}

// tear keeps some sectors of a write.
func (r *reboot) tear(w write, data []byte) []byte {
	const sector = 512
	for at := 0; at < len(w.data); {
		end := min(at+sector-int((w.off+int64(at))%sector), len(w.data))
		if r.choose(2) == 1 {
			data = write{w.off + int64(at), w.data[at:end]}.apply(data)
		}
		at = end
	}
	return data
}
