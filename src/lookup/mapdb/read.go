package mapdb

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"opensmtpd/src/safefile"
)

// Reader is an open map. Its methods may be called from several goroutines.
type Reader struct {
	name string
	kind Kind
	db   *bolt.DB

	// One transaction lasts as long as the Reader, for a fault while bbolt
	// begins one would leave its locks behind. A lookup takes a few
	// microseconds, so that they can take turns.
	mu     sync.Mutex
	tx     *bolt.Tx
	broken error
}

// lockWait is how long to wait for a lock that only a foreign program could
// hold: makemap never writes to a file in place.
const lockWait = time.Second

// Open opens the map at path.
func Open(path string) (*Reader, error) {
	f, err := safefile.Open(path)
	if err != nil {
		return nil, err
	}
	return OpenFile(f)
}

// Check tells what is wrong with the map at path. The error does not name it.
func Check(path string) error {
	r, err := Open(path)
	if err == nil {
		return r.Close()
	}
	for _, known := range []error{ErrBerkeley, ErrNotMap, ErrDamaged} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

// OpenFile opens the map in f, which must be open for reading and belongs to the
// Reader from now on, also when there is an error. In a process without files
// this is how a map gets in. The file is read once, then mapped.
func OpenFile(f *os.File) (_ *Reader, err error) {
	name := f.Name()
	fail := func(err error) (*Reader, error) {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !st.Mode().IsRegular() {
		return fail(ErrNotMap)
	}
	if err := sniff(f); err != nil {
		return fail(err)
	}
	if err := verify(f, st.Size()); err != nil {
		return fail(err)
	}
	r := &Reader{name: name}
	if err := r.open(f); err != nil {
		return fail(err)
	}
	return r, nil
}

func (r *Reader) open(f *os.File) (err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	r.db, err = bolt.Open(r.name, 0, &bolt.Options{
		ReadOnly: true,
		Timeout:  lockWait,
		OpenFile: opened(f),
	})
	if err != nil {
		return fmt.Errorf("%w (%v)", ErrDamaged, err)
	}
	if r.tx, err = r.db.Begin(false); err != nil {
		r.db.Close()
		return err
	}
	if r.kind, err = check(r.tx); err != nil {
		r.Close()
	}
	return err
}

// Kind tells how the map was made.
func (r *Reader) Kind() Kind { return r.kind }

// Each calls fn for every entry in the order of bytes, until it returns an
// error, which Each returns. The slices are valid until fn returns.
func (r *Reader) Each(fn func(key, value []byte) error) error {
	return r.view(func(b *bolt.Bucket) error { return b.ForEach(fn) })
}

// view calls fn with the entries. After damage was met once, it is not looked
// for again.
func (r *Reader) view(fn func(*bolt.Bucket) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	err := guarded(func() error { return fn(r.tx.Bucket(bucketMap)) })
	if errors.Is(err, ErrDamaged) {
		r.broken = fmt.Errorf("%s: %w", r.name, err)
		return r.broken
	}
	return err
}

func guarded(fn func() error) (err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return fn()
}

// Close unmaps and closes the file. No method may be called afterwards.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.tx.Rollback(); err != nil {
		return err
	}
	return r.db.Close()
}
