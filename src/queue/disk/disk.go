// Package disk is the only door from the queue to the disk: an interface for
// everything the queue does with files, the real disk, and a simulated one that
// crashes and fails on demand. Names are relative to the root of the spool, with
// "/" between components; no symbolic link is ever followed.
package disk

import (
	"errors"
	"io"
	"io/fs"
)

// ErrLocked tells that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// FS is a tree of files rooted at the spool directory. A change of a directory
// (create, rename, remove) is durable only after SyncDir of that directory, for
// a rename that of the target; the contents of a file only after its Sync.
// Errors wrap the errno. All methods may be called at the same time.
type FS interface {
	// Create makes a file that must not exist, mode 0600, open for reading
	// and writing.
	Create(name string) (File, error)
	// Open opens an existing regular file for reading and, when write is
	// set, writing.
	Open(name string, write bool) (File, error)
	// Rename moves a file or directory; an existing file is replaced.
	Rename(from, to string) error
	// Remove unlinks a file or an empty directory.
	Remove(name string) error
	// Mkdir makes a directory, mode 0700.
	Mkdir(name string) error
	// ReadDir returns the names in a directory, in no particular order.
	ReadDir(name string) ([]string, error)
	// Stat looks at a name without following a link.
	Stat(name string) (Info, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a file, created if need be; it fails at
	// once with ErrLocked while another process holds it. Closing releases.
	Lock(name string) (io.Closer, error)
	// Space tells how full the file system is.
	Space() (Space, error)
}

// File is an open file. Offsets are absolute; there is no cursor.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the contents durable (fdatasync). After an error nothing is
	// known about what was written since the last success.
	Sync() error
	// Truncate cuts or extends the file to size bytes.
	Truncate(size int64) error
	// Size returns the length in bytes.
	Size() (int64, error)
}

// Info is what Stat tells.
type Info struct {
	Mode fs.FileMode
	Size int64
	UID  uint32
}

// Space is what is free, in percent of what ordinary users may use; 100 where
// the file system does not say.
type Space struct {
	Bytes  float64
	Inodes float64
}

// percent returns how much avail is of avail and used together. File systems
// without a count say 0 or all ones.
func percent(total, free, avail uint64) float64 {
	if total == 0 || free == 0 && avail == 0 && total == ^uint64(0) || free == ^uint64(0) {
		return 100
	}
	used := total - free
	if avail+used == 0 {
		return 100
	}
	return 100 * float64(avail) / float64(avail+used)
}
