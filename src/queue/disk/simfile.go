package disk

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
)

type simFile struct {
	s     *Sim
	n     *inode
	name  string
	write bool
}

func (f *simFile) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.s.begin("read", f.name, false); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if !f.write {
		return 0, pathErr("write", f.name, syscall.EBADF)
	}
	err := f.s.begin("write", fmt.Sprintf("%s %d+%d", f.name, off, len(p)), true)
	if err != nil && errors.Is(err, syscall.ENOSPC) {
		p = p[:len(p)/2] // what fits is written
	} else if err != nil {
		return 0, err
	}
	if len(p) > 0 {
		w := write{off, slices.Clone(p)}
		f.n.data = w.apply(f.n.data)
		f.n.writes = append(f.n.writes, w)
	}
	return len(p), err
}

func (f *simFile) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.s.begin("truncate", f.name, true); err != nil {
		return err
	}
	w := write{off: size}
	f.n.data = w.apply(f.n.data)
	f.n.writes = append(f.n.writes, w)
	return nil
}

func (f *simFile) Sync() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.s.begin("sync", f.name, true); err != nil {
		f.n.failed = f.n.failed || !f.s.crashed
		return err
	}
	if f.n.failed {
		return nil
	}
	for _, w := range f.n.writes {
		f.n.durable = w.apply(f.n.durable)
	}
	f.n.writes = nil
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *simFile) Close() error { return nil }
