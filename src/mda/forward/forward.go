// Package forward reads what users write for the expansion of addresses:
// ~/.forward with the refusals of forward(5), and files of :include:. It runs in
// an agent with the rights of the user, so that nothing is read which the user
// could not read himself; the checks keep others from writing it for him.
package forward

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"opensmtpd/src/mailerr"
)

// MaxSize is one more than the most that a .forward may hold, in bytes.
const MaxSize = 4096

// refused is what the sender is told for good, for now; both are those of any
// expansion that fails.
func refused(cause error) *mailerr.Error {
	return mailerr.Permanent(524, 2, 4, "Mailing list expansion problem", cause)
}

func deferred(cause error) *mailerr.Error {
	return mailerr.Temporary(424, 2, 4, "Mailing list expansion problem", cause)
}

// Read returns what ~/.forward holds, and whether there is one. The error's
// Cause says why it is refused:
//
//   - for now: a sticky home directory, a file of MaxSize bytes or more, a disk
//     that fails;
//   - for good: a symbolic link, what is not a regular file or has more than one
//     name, a file that is not the user's or that group or others may write, a
//     home that is neither the user's nor root's or that group or others may
//     write.
func Read(home string, uid uint32) (data []byte, found bool, _ *mailerr.Error) {
	if !filepath.IsAbs(home) {
		return nil, false, nil
	}
	var dir unix.Stat_t
	if err := unix.Stat(home, &dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		return nil, false, deferred(&fs.PathError{Op: "stat", Path: home, Err: err})
	}
	if uint32(dir.Mode)&unix.S_ISVTX != 0 {
		return nil, false, deferred(fmt.Errorf("%s is sticky", home))
	}
	path := home + "/.forward"
	f, err := open(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, false, openError(err)
	}
	if f == nil {
		return nil, false, nil
	}
	defer f.Close()
	if err := check(f, &dir, uid); err != nil {
		return nil, true, refused(fmt.Errorf("%s: insecure file: %w", path, err))
	}
	data, err = io.ReadAll(io.LimitReader(f, MaxSize))
	if err != nil {
		return nil, true, deferred(err)
	}
	if len(data) >= MaxSize {
		return nil, true, deferred(fmt.Errorf("%s: forward file exceeds max size", path))
	}
	return data, true, nil
}

// open opens without waiting for anybody; nil without an error when there is no
// such file.
func open(path string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EINTR:
		case unix.ENOENT:
			return nil, nil
		default:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func openError(err error) *mailerr.Error {
	for _, passing := range []error{unix.EMFILE, unix.ENFILE, unix.EIO, unix.ENOMEM, unix.ESTALE, unix.ETIMEDOUT} {
		if errors.Is(err, passing) {
			return deferred(err)
		}
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) {
		err = fmt.Errorf("cannot follow symbolic links: %w", err)
	}
	return refused(err)
}

// check looks at the open file, so that nobody can exchange it afterwards.
func check(f *os.File, dir *unix.Stat_t, uid uint32) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if err2 := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); err2 != nil || err != nil {
		return errors.Join(err, err2)
	}
	switch {
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case st.Nlink != 1:
		return errors.New("has more than one name")
	case st.Uid != uid:
		return fmt.Errorf("belongs to uid %d", st.Uid)
	case st.Mode&0o022 != 0:
		return errors.New("group or others may write it")
	case dir.Uid != uid && dir.Uid != 0:
		return fmt.Errorf("home belongs to uid %d", dir.Uid)
	case dir.Mode&0o022 != 0:
		return errors.New("group or others may write the home directory")
	}
	return nil
}

// Include returns what a file named by :include: holds, at most limit bytes, and
// whether there is one.
func Include(path string, limit int) (data []byte, found bool, _ *mailerr.Error) {
	if !filepath.IsAbs(path) {
		return nil, false, refused(fmt.Errorf("%q: an include must be an absolute path", path))
	}
	f, err := open(path, 0)
	if err != nil {
		return nil, false, deferred(err)
	}
	if f == nil {
		return nil, false, nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, true, deferred(errors.Join(fmt.Errorf("%s: not a regular file", path), err))
	}
	data, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, true, deferred(err)
	}
	if len(data) > limit {
		return nil, true, deferred(fmt.Errorf("%s: more than %d bytes", path, limit))
	}
	return data, true, nil
}
