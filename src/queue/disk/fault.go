package disk

import "syscall"

// Fault makes operations fail until lifted.
type Fault struct {
	sim  *Sim
	err  syscall.Errno
	from int
	left int // how often; -1: always
}

// Fail makes operations fail with err, from the n-th that err can happen to
// (1 is the next), count times, or until Lift when count is -1. ENOSPC meets
// what allocates, EROFS what changes, EMFILE what opens, EIO everything.
func (s *Sim) Fail(err syscall.Errno, n, count int) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &Fault{s, err, n, count}
	s.faults = append(s.faults, f)
	return f
}

// Lift ends the fault.
func (f *Fault) Lift() {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	f.left = 0
}

// Hit tells whether the fault has struck.
func (f *Fault) Hit() bool {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	return f.from <= 0
}

func (f *Fault) meets(op string) bool {
	switch f.err {
	case syscall.ENOSPC, syscall.EDQUOT:
		return op == "create" || op == "mkdir" || op == "write" || op == "rename"
	case syscall.EROFS:
		return op == "create" || op == "mkdir" || op == "write" || op == "rename" || op == "remove" || op == "truncate"
	case syscall.EMFILE:
		return op == "create" || op == "open" || op == "readdir" || op == "syncdir"
	}
	return op != "close"
}
