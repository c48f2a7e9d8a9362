package lka

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/table"
)

// lookEvery is how often a map's file is looked at, while it is asked: a new one
// is in use within a second.
const lookEvery = 500 * time.Millisecond

// mapFile is a db: table. makemap(8) puts a new file in the place of the old one;
// the next question finds that and has the new one opened.
type mapFile struct {
	*table.Static
	watch *watch
}

// Match implements table.Table.
func (m mapFile) Match(ctx context.Context, s table.Service, key string) (bool, error) {
	m.watch.look(ctx)
	return m.Static.Match(ctx, s, key)
}

// Lookup implements table.Table.
func (m mapFile) Lookup(ctx context.Context, s table.Service, key string) (string, bool, error) {
	m.watch.look(ctx)
	return m.Static.Lookup(ctx, s, key)
}

// Fetch implements table.Table.
func (m mapFile) Fetch(ctx context.Context, s table.Service) (string, bool, error) {
	m.watch.look(ctx)
	return m.Static.Fetch(ctx, s)
}

// static returns the content of a table that is in memory, or nil.
func static(t table.Table) *table.Static {
	switch t := t.(type) {
	case *table.Static:
		return t
	case mapFile:
		return t.Static
	}
	return nil
}

// watch tells when the file of a map was replaced. It keeps the descriptor, whose
// status changes when its name goes to another file.
type watch struct {
	role *Role
	g    *generation
	name string // of a table of this file, for parent

	mu     sync.Mutex
	static *table.Static
	file   *os.File
	was    status
	next   time.Time
	failed string // why the new file is not in use, as it was logged
}

// status is what changes of a file when it is written to or replaced.
type status struct {
	size         int64
	mtime, ctime unix.Timespec
}

func statusOf(f *os.File) (status, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return status{st.Size, st.Mtim, st.Ctim}, err
}

// mapTable makes a table of a map. Two tables of the same file share its content
// and its watch.
func (r *Role) mapTable(p *project.LookupConf, t *project.Table, g, before *generation, files map[string]*os.File) (table.Table, error) {
	if w := g.watches[t.Identity]; w != nil {
		return mapFile{w.static.As(t.Name), w}, nil
	}
	var f *os.File
	var err error
	switch {
	case files[t.Identity] != nil:
		f, err = again(files[t.Identity])
	case before != nil && before.watches[t.Identity] != nil:
		f, err = before.watches[t.Identity].again()
	default:
		err = fmt.Errorf("no descriptor for %s", t.Config)
	}
	if err != nil {
		return nil, err
	}
	s, err := table.NewDB(t.Name, t.Config, f, p.SubAddrDelim)
	if err != nil {
		f.Close()
		return nil, err
	}
	w := &watch{role: r, g: g, name: t.Name, static: s, file: f}
	if w.was, err = statusOf(f); err != nil {
		f.Close()
		return nil, err
	}
	g.watches[t.Identity] = w
	return mapFile{s, w}, nil
}

// again returns another descriptor of an open file.
func again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (w *watch) again() (*os.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return again(w.file)
}

// look has a file that was replaced opened again, unless somebody is at it. When
// that fails the old content stays, and the next look tries again.
func (w *watch) look(ctx context.Context) {
	if !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	now := w.role.env.Clock.Now()
	if w.file == nil || now.Before(w.next) && w.next.Sub(now) <= lookEvery {
		return
	}
	w.next = now.Add(lookEvery)
	if is, err := statusOf(w.file); err != nil || is == w.was {
		return
	}
	f, err := w.role.openTable(ctx, w.g.gen, w.name)
	if err == nil {
		err = w.take(f)
	}
	switch {
	case err == nil:
		w.role.log.TableUpdated(w.name)
		w.role.complain(w.g, w.name)
		w.failed = ""
	case ctx.Err() == nil && err.Error() != w.failed:
		w.role.log.TableNotUpdated(w.name, err)
		w.failed = err.Error()
	}
}

// use reads f, which it takes, and watches it from now on.
func (w *watch) use(f *os.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.take(f)
}

func (w *watch) take(f *os.File) error {
	was, err := statusOf(f)
	if err == nil {
		err = w.g.update(w.static, f)
	}
	if err != nil {
		f.Close()
		return err
	}
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.was = f, was
	return nil
}

// close lets the descriptor go; the content stays for sessions that use it.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}
