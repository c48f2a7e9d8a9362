package mbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"opensmtpd/src/safefile"
)

// Open opens a mailbox for appending, and makes it, mode 0600, where there is
// none. It takes only a regular file, and waits for nobody. Unless links is set,
// which is for those who act with the rights of the file's user, it follows no
// link at the end of the path and takes no file with a second name.
func Open(path string, links bool) (*os.File, error) {
	f, err := open(path, unix.O_CREAT, links)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() == 0 { // it may be new
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenFor opens the mailbox of a user on behalf of somebody with more rights,
// who owns the directory. A mailbox that is not there is made and given to the
// user; one that belongs to somebody else is refused.
func OpenFor(path string, uid, gid uint32) (*os.File, error) {
	f, err := open(path, 0, false)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path, uid, gid)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		f.Close()
		return nil, err
	}
	if st.Uid != uid {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("belongs to uid %d", st.Uid)}
	}
	return f, nil
}

// create makes the mailbox; what fails leaves none behind, since one of the wrong
// owner would be refused ever after.
func create(path string, uid, gid uint32) (*os.File, error) {
	f, err := open(path, unix.O_CREAT|unix.O_EXCL, false)
	if err != nil {
		return nil, err
	}
	err = f.Chown(int(uid), int(gid))
	if err == nil {
		err = f.Chmod(0o600)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(path)
		f.Close()
		return nil, err
	}
	return f, nil
}

// syncDir makes a new mailbox durable, unless the directory may be written but not
// read, or its file system cannot.
func syncDir(path string) error {
	err := safefile.SyncDir(path)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func open(path string, flags int, links bool) (*os.File, error) {
	flags |= unix.O_RDWR | unix.O_APPEND | unix.O_NONBLOCK | unix.O_CLOEXEC
	if !links {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(path, flags, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("not a regular file")
	case st.Nlink > 1 && !links:
		err = errors.New("has more than one name")
	default:
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// System is an open mailbox of this machine.
type System struct{ *os.File }

// Size implements File.
func (s System) Size() (int64, error) {
	st, err := s.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Lock implements File.
func (s System) Lock(on bool) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if !on {
		l.Type = unix.F_UNLCK
	}
	return control(s.File, func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &l) })
}

func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("mailbox: %w", err)
	}
	err2 := raw.Control(func(fd uintptr) { err = do(int(fd)) })
	if err == nil {
		err = err2
	}
	return err
}
