package disk

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// ErrCrashed is what everything returns after the simulated power failure.
var ErrCrashed = errors.New("simulated crash")

// Sim is a disk in memory for tests. It knows, beside what a program sees, what
// would survive a power failure; it crashes after a chosen event and fails
// operations on demand.
//
// Every write, truncation and change of a directory is pending until a sync
// covers it. At a crash each pending change is lost, kept or (a write) torn,
// each on its own, as Choice says. A rename is one change: kept or lost whole.
// After a failed Sync of a file what was pending is never made durable by a
// later success, as on Linux.
type Sim struct {
	mu      sync.Mutex
	root    *inode
	pending []*change // of directories, oldest first
	locks   map[string]bool
	space   Space

	ops     int      // operations so far, reading ones too
	events  []string // changing operations so far, as text
	crashAt int      // events until the crash; -1: never
	crashed bool
	faults  []*Fault
}

// NewSim returns an empty disk.
func NewSim() *Sim {
	return &Sim{root: newDir(), locks: make(map[string]bool), space: Space{100, 100}, crashAt: -1}
}

type inode struct {
	names  map[string]*inode // directory: what is seen; nil for a file
	stable map[string]*inode // directory: what is durable

	data    []byte // file: what is seen
	durable []byte // file
	writes  []write
	failed  bool // a Sync failed: pending writes stay pending
}

func newDir() *inode {
	return &inode{names: make(map[string]*inode), stable: make(map[string]*inode)}
}

func (n *inode) dir() bool { return n.names != nil }

// write is a pending write; data nil is a truncation to off.
type write struct {
	off  int64
	data []byte
}

func (w write) apply(b []byte) []byte {
	if w.data == nil {
		if w.off <= int64(len(b)) {
			return b[:w.off]
		}
		return append(b, make([]byte, w.off-int64(len(b)))...)
	}
	if end := w.off + int64(len(w.data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[w.off:], w.data)
	return b
}

// change is a pending change of directories.
type change struct {
	edges []edge
	by    *inode // the directory whose sync makes it durable
}

type edge struct {
	dir  *inode
	name string
	node *inode // nil: removed
}

func (c *change) apply() {
	for _, e := range c.edges {
		if e.node == nil {
			delete(e.dir.stable, e.name)
		} else {
			e.dir.stable[e.name] = e.node
		}
	}
}

func (c *change) touches(o *change) bool {
	return slices.ContainsFunc(c.edges, func(e edge) bool {
		return slices.ContainsFunc(o.edges, func(f edge) bool { return e.dir == f.dir && e.name == f.name })
	})
}

// SetSpace says what Space answers.
func (s *Sim) SetSpace(sp Space) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space = sp
}

// CrashAfter lets n more changing operations happen; what comes after them
// fails with ErrCrashed.
func (s *Sim) CrashAfter(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashAt = len(s.events) + n
}

// Events returns the changing operations so far, as text.
func (s *Sim) Events() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Crashed tells whether the crash has happened.
func (s *Sim) Crashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashed
}

// Near tells whether the crash is at most n changing operations away.
func (s *Sim) Near(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashAt >= 0 && s.crashAt-len(s.events) <= n
}

// begin counts an operation and returns the error it must fail with.
func (s *Sim) begin(op, name string, changes bool) error {
	s.ops++
	if s.crashed || changes && s.crashAt >= 0 && len(s.events) >= s.crashAt {
		s.crashed = true
		return &fs.PathError{Op: op, Path: name, Err: ErrCrashed}
	}
	for _, f := range s.faults {
		if !f.meets(op) || f.left == 0 {
			continue
		}
		if f.from--; f.from > 0 {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return &fs.PathError{Op: op, Path: name, Err: f.err}
	}
	if changes {
		s.events = append(s.events, op+" "+name)
	}
	return nil
}

func pathErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// find returns the directory that holds name, the last component, and what it
// names, nil when it does not exist.
func (s *Sim) find(name string) (dir *inode, base string, node *inode, err error) {
	dir = s.root
	if name == "." {
		return dir, name, dir, nil
	}
	parts := strings.Split(name, "/")
	for _, p := range parts[:len(parts)-1] {
		if dir = dir.names[p]; dir == nil {
			return nil, "", nil, syscall.ENOENT
		}
		if !dir.dir() {
			return nil, "", nil, syscall.ENOTDIR
		}
	}
	base = parts[len(parts)-1]
	return dir, base, dir.names[base], nil
}

func (s *Sim) change(by *inode, edges ...edge) {
	for _, e := range edges {
		if e.node == nil {
			delete(e.dir.names, e.name)
		} else {
			e.dir.names[e.name] = e.node
		}
	}
	s.pending = append(s.pending, &change{edges, by})
}

// add makes a new name.
func (s *Sim) add(op, name string, node *inode) error {
	dir, base, old, err := s.find(name)
	switch {
	case err != nil:
	case old != nil:
		err = syscall.EEXIST
	default:
		if err = s.begin(op, name, true); err != nil {
			return err
		}
		s.change(dir, edge{dir, base, node})
		return nil
	}
	return pathErr(op, name, err)
}

// Create implements FS.
func (s *Sim) Create(name string) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &inode{}
	if err := s.add("create", name, n); err != nil {
		return nil, err
	}
	return &simFile{s, n, name, true}, nil
}

// Mkdir implements FS.
func (s *Sim) Mkdir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add("mkdir", name, newDir())
}

// Open implements FS.
func (s *Sim) Open(name string, write bool) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("open", name, false); err != nil {
		return nil, err
	}
	_, _, n, err := s.find(name)
	switch {
	case err != nil:
	case n == nil:
		err = syscall.ENOENT
	case n.dir():
		err = syscall.EISDIR
	default:
		return &simFile{s, n, name, write}, nil
	}
	return nil, pathErr("open", name, err)
}

// Rename implements FS.
func (s *Sim) Rename(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fdir, fbase, node, err := s.find(from)
	if err == nil && node == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return pathErr("rename", from, err)
	}
	tdir, tbase, old, err := s.find(to)
	switch {
	case err != nil:
	case old != nil && old.dir() && len(old.names) > 0:
		err = syscall.ENOTEMPTY
	case old != nil && old.dir() != node.dir():
		err = syscall.EEXIST
	default:
		if err = s.begin("rename", from+" "+to, true); err == nil {
			s.change(tdir, edge{fdir, fbase, nil}, edge{tdir, tbase, node})
		}
		return err
	}
	return pathErr("rename", to, err)
}

// Remove implements FS.
func (s *Sim) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, base, node, err := s.find(name)
	switch {
	case err != nil:
	case node == nil:
		err = syscall.ENOENT
	case node.dir() && len(node.names) > 0:
		err = syscall.ENOTEMPTY
	default:
		if err = s.begin("remove", name, true); err == nil {
			s.change(dir, edge{dir, base, nil})
		}
		return err
	}
	return pathErr("remove", name, err)
}

// ReadDir implements FS.
func (s *Sim) ReadDir(name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("readdir", name, false); err != nil {
		return nil, err
	}
	_, _, n, err := s.find(name)
	if err == nil && n == nil {
		err = syscall.ENOENT
	} else if err == nil && !n.dir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathErr("readdir", name, err)
	}
	names := make([]string, 0, len(n.names))
	for name := range n.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Stat implements FS. Everything belongs to user 0.
func (s *Sim) Stat(name string) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("stat", name, false); err != nil {
		return Info{}, err
	}
	_, _, n, err := s.find(name)
	switch {
	case err != nil:
		return Info{}, pathErr("stat", name, err)
	case n == nil:
		return Info{}, pathErr("stat", name, syscall.ENOENT)
	case n.dir():
		return Info{Mode: fs.ModeDir | 0o700}, nil
	}
	return Info{Mode: 0o600, Size: int64(len(n.data))}, nil
}

// SyncDir implements FS.
func (s *Sim) SyncDir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, n, err := s.find(name)
	if err == nil && n == nil {
		err = syscall.ENOENT
	} else if err == nil && !n.dir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return pathErr("syncdir", name, err)
	}
	if err := s.begin("syncdir", name, true); err != nil {
		return err
	}
	s.settle(n)
	return nil
}

// settle makes durable what waits for a sync of dir, with what it builds on: a
// journalling file system does not reorder changes of one name.
func (s *Sim) settle(dir *inode) {
	now := make([]bool, len(s.pending))
	for i := len(s.pending) - 1; i >= 0; i-- {
		c := s.pending[i]
		now[i] = c.by == dir
		for j := i + 1; j < len(s.pending) && !now[i]; j++ {
			now[i] = now[j] && s.pending[j].touches(c)
		}
	}
	var rest []*change
	for i, c := range s.pending {
		if now[i] {
			c.apply()
		} else {
			rest = append(rest, c)
		}
	}
	s.pending = rest
}

// Lock implements FS.
func (s *Sim) Lock(name string) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crashed {
		return nil, pathErr("lock", name, ErrCrashed)
	}
	if s.locks[name] {
		return nil, pathErr("lock", name, ErrLocked)
	}
	s.locks[name] = true
	return simLock{s, name}, nil
}

type simLock struct {
	s    *Sim
	name string
}

func (l simLock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.locks, l.name)
	return nil
}

// Space implements FS.
func (s *Sim) Space() (Space, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("statfs", ".", false); err != nil {
		return Space{}, err
	}
	return s.space, nil
}
