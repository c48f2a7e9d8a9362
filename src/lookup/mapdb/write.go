package mapdb

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"opensmtpd/src/safefile"
)

// Entry is a line of a map's source.
type Entry struct {
	Key, Value []byte
	Line       int
}

// EntryError is what is wrong with an entry.
type EntryError struct {
	Line int // of the source
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("%d: %v", e.Line, e.Err) }
func (e *EntryError) Unwrap() error { return e.Err }

// Owner is to whom a new file shall belong, and with which permissions.
type Owner struct {
	Mode     os.FileMode
	UID, GID int // -1: as they come
}

// batch is how many entries go into one transaction: its pages are kept in
// memory until it commits.
const batch = 50_000

// fill packs pages full, for keys come in order and nothing is inserted later.
const fill = 1.0

// Write makes the map at path out of entries, which it sorts and whose keys it
// may change to lower case. What stood at path stays whole until the new map,
// with its owner, is on stable storage. A key that stands twice, or
// is empty or too long, is an *EntryError.
func Write(path string, kind Kind, entries []Entry, owner Owner) error {
	for i := range entries {
		entries[i].Key = fold(entries[i].Key)
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return bytes.Compare(a.Key, b.Key) })
	for i := 1; i < len(entries); i++ {
		if bytes.Equal(entries[i-1].Key, entries[i].Key) {
			return &EntryError{entries[i].Line, fmt.Errorf("duplicate entry for %s, first on line %d",
				entries[i].Key, entries[i-1].Line)}
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	if err := write(f, path, kind, entries, owner); err != nil {
		os.Remove(f.Name())
		return err
	}
	return nil
}

// write fills f, which it closes, and renames it to path.
func write(f *os.File, path string, kind Kind, entries []Entry, owner Owner) error {
	name := f.Name()
	db, err := bolt.Open(name, 0, &bolt.Options{
		Timeout:  time.Second,
		OpenFile: opened(f),
		NoSync:   true, // seal does, once
		// The list of free pages is not needed in a file that is never
		// written to again.
		NoFreelistSync: true,
	})
	if err != nil {
		f.Close()
		return err
	}
	err = put(db, kind, entries)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = seal(name, owner)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	return safefile.SyncDir(filepath.Dir(path))
}

func setOwner(f *os.File, o Owner) error {
	if o.UID >= 0 || o.GID >= 0 {
		if err := f.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	return f.Chmod(o.Mode) // after chown, which takes set-id bits away
}

// put stores entries, in order.
func put(db *bolt.DB, kind Kind, entries []Entry) error {
	err := db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(bucketMap); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		if err := meta.Put(keyFormat, []byte(format)); err != nil {
			return err
		}
		return meta.Put(keyKind, []byte(kind))
	})
	for part := range slices.Chunk(entries, batch) {
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketMap)
			b.FillPercent = fill
			for _, e := range part {
				if err := b.Put(e.Key, e.Value); err != nil {
					return &EntryError{e.Line, err}
				}
			}
			return nil
		})
	}
	return err
}
