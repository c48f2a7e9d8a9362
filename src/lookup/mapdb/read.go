package mapdb

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Reader is an open map. Its methods may be called from several goroutines.
type Reader struct {
	db   *bolt.DB
	kind Kind
	name string
}

// lockWait is how long to wait for a lock that only a foreign program could
// hold: makemap never writes to a file in place.
const lockWait = time.Second

// Open opens the map at path.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return OpenFile(f)
}

// OpenFile opens the map in f, which must be open for reading and belongs to the
// Reader from now on, also when there is an error. In a process without files
// this is how a map gets in. The file is mapped, not read.
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
	err = r.db.View(func(tx *bolt.Tx) error {
		if st, err := f.Stat(); err != nil || st.Size() < tx.Size() {
			return fmt.Errorf("%w (cut short)", ErrDamaged)
		}
		r.kind, err = check(tx)
		return err
	})
	if err != nil {
		r.db.Close()
	}
	return err
}

// Kind tells how the map was made.
func (r *Reader) Kind() Kind { return r.kind }

// Lookup returns the value of key, ASCII case apart. A damaged file is an error,
// never a panic.
func (r *Reader) Lookup(key []byte) (value []byte, found bool, err error) {
	err = r.view(func(b *bolt.Bucket) error {
		if v := b.Get(fold(key)); v != nil {
			value, found = bytes.Clone(v), true
		}
		return nil
	})
	return value, found, err
}

// After returns the entry that follows key in the order of bytes, the first one
// for nil; found is false at the end.
func (r *Reader) After(key []byte) (next, value []byte, found bool, err error) {
	err = r.view(func(b *bolt.Bucket) error {
		c := b.Cursor()
		k, v := c.Seek(key)
		if key != nil && bytes.Equal(k, key) {
			k, v = c.Next()
		}
		if k != nil {
			next, value, found = bytes.Clone(k), bytes.Clone(v), true
		}
		return nil
	})
	return next, value, found, err
}

// Each calls fn for every entry in the order of bytes, until it returns an
// error, which Each returns. The slices are valid until fn returns.
func (r *Reader) Each(fn func(key, value []byte) error) error {
	return r.view(func(b *bolt.Bucket) error { return b.ForEach(fn) })
}

func (r *Reader) view(fn func(*bolt.Bucket) error) (err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := r.db.Begin(false)
	if err != nil {
		return err
	}
	// Not a deferred Rollback of View: a panic must not leave the lock on the
	// mapping behind.
	defer tx.Rollback()
	return fn(tx.Bucket(bucketMap))
}

// Close unmaps and closes the file. No method may be called afterwards.
func (r *Reader) Close() error { return r.db.Close() }
