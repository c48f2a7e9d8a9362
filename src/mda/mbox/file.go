package mbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a mailbox for appending, and makes it, mode 0600, where there is
// none. It takes only a regular file, and waits for nobody. Unless links is set,
// which is for those who act with the rights of the file's user, it follows no
// link at the end of the path and takes no file with a second name.
func Open(path string, links bool) (*os.File, error) {
	flags := unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_NONBLOCK | unix.O_CLOEXEC
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
	raw, err := s.SyscallConn()
	if err != nil {
		return fmt.Errorf("mailbox: %w", err)
	}
	err2 := raw.Control(func(fd uintptr) { err = unix.FcntlFlock(fd, unix.F_SETLK, &l) })
	if err == nil {
		err = err2
	}
	return err
}
