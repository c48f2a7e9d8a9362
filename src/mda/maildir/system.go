package maildir

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// System is the machine's file system. It goes past package os: a file there
// costs an allocation, a finalizer and a vain attempt to poll it, for each
// message.
type System struct{}

// retry repeats a system call that a signal interrupted.
func retry(op, path string, call func() error) error {
	for {
		err := call()
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
}

// Create implements FS.
func (System) Create(path string) (File, error) {
	f := new(sysFile)
	err := retry("open", path, func() (err error) {
		f.fd, err = unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.path = path
	return f, nil
}

// Mkdir implements FS.
func (System) Mkdir(path string) error { return os.Mkdir(path, 0o700) }

// IsDir implements FS.
func (System) IsDir(path string) (bool, error) {
	st, err := os.Stat(path)
	return err == nil && st.IsDir(), err
}

// Rename implements FS.
func (System) Rename(from, to string) error {
	return retry("rename", to, func() error { return unix.Rename(from, to) })
}

// Remove implements FS.
func (System) Remove(path string) error { return os.Remove(path) }

// SyncDir implements FS.
func (System) SyncDir(path string) error {
	fd := -1
	err := retry("open", path, func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil // a directory that we may write but not read: /var/mail of some
		}
		return err
	}
	err = retry("fsync", path, func() error { return unix.Fsync(fd) })
	unix.Close(fd)
	if errors.Is(err, unix.EINVAL) {
		return nil // a file system that cannot
	}
	return err
}

type sysFile struct {
	fd   int
	path string
}

func (f *sysFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(f.fd, p[done:])
		if n > 0 {
			done += n
		}
		if err != nil && err != unix.EINTR {
			return done, &fs.PathError{Op: "write", Path: f.path, Err: err}
		}
	}
	return done, nil
}

func (f *sysFile) Flush() { startWriting(f.fd) }

func (f *sysFile) Sync() error {
	return retry("fsync", f.path, func() error { return unix.Fsync(f.fd) })
}

func (f *sysFile) Close() error {
	// Never repeated: after EINTR the descriptor is gone, or another's.
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR {
		return &fs.PathError{Op: "close", Path: f.path, Err: err}
	}
	return nil
}
