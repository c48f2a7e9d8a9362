//go:build unix

package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Real is the machine's disk below one directory.
type Real struct {
	root int // a directory's descriptor, or AT_FDCWD
}

// NewReal opens the directory that becomes the root. After a chroot the root may
// be one that we can search but not read, as OpenSMTPD's spool is: then it must
// be the working directory, and stays so.
func NewReal(dir string) (*Real, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err == unix.EACCES && sameFile(dir, ".") {
		return &Real{unix.AT_FDCWD}, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Real{fd}, nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// Close ends the use of the root; open files stay open.
func (r *Real) Close() error {
	if r.root == unix.AT_FDCWD {
		return nil
	}
	return unix.Close(r.root)
}

// retry repeats a system call that a signal interrupted.
func retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// at calls f with the descriptor of the directory that holds the last component
// of name, walking there without following links.
func (r *Real) at(op, name string, f func(dir int, base string) error) error {
	dir := r.root
	rest := name
	for {
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			break
		}
		next, err := openDir(dir, rest[:i])
		if dir != r.root {
			unix.Close(dir)
		}
		if err != nil {
			return &fs.PathError{Op: op, Path: name, Err: err}
		}
		dir, rest = next, rest[i+1:]
	}
	_, err := retry(func() (struct{}, error) { return struct{}{}, f(dir, rest) })
	if dir != r.root {
		unix.Close(dir)
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func openDir(dir int, name string) (int, error) {
	if name == ".." {
		return -1, unix.EINVAL
	}
	return retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// Create implements FS.
func (r *Real) Create(name string) (File, error) {
	return r.open("create", name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
}

// Open implements FS.
func (r *Real) Open(name string, write bool) (File, error) {
	// O_NONBLOCK: a fifo somebody put there must not hang us.
	flags := unix.O_RDONLY | unix.O_NONBLOCK
	if write {
		flags = unix.O_RDWR | unix.O_NONBLOCK
	}
	return r.open("open", name, flags)
}

func (r *Real) open(op, name string, flags int) (File, error) {
	var file *os.File
	err := r.at(op, name, func(dir int, base string) error {
		fd, err := unix.Openat(dir, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			unix.Close(fd)
			return errors.New("not a regular file")
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &realFile{file}, nil
}

// Rename implements FS.
func (r *Real) Rename(from, to string) error {
	return r.at("rename", from, func(fdir int, fbase string) error {
		return r.at("rename", to, func(tdir int, tbase string) error {
			return unix.Renameat(fdir, fbase, tdir, tbase)
		})
	})
}

// Remove implements FS.
func (r *Real) Remove(name string) error {
	return r.at("remove", name, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err == nil || err == unix.ENOENT {
			return err
		}
		// Systems differ in what they say of a directory: EISDIR, EPERM.
		if derr := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); derr != unix.ENOTDIR {
			return derr
		}
		return err
	})
}

// Mkdir implements FS.
func (r *Real) Mkdir(name string) error {
	return r.at("mkdir", name, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, 0o700)
	})
}

// ReadDir implements FS.
func (r *Real) ReadDir(name string) ([]string, error) {
	f, err := r.dir("readdir", name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (r *Real) dir(op, name string) (*os.File, error) {
	var f *os.File
	err := r.at(op, name, func(dir int, base string) error {
		fd, err := openDir(dir, base)
		if err == nil {
			f = os.NewFile(uintptr(fd), name)
		}
		return err
	})
	return f, err
}

// Stat implements FS.
func (r *Real) Stat(name string) (Info, error) {
	var st unix.Stat_t
	err := r.at("stat", name, func(dir int, base string) error {
		return unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return Info{}, err
	}
	return Info{fileMode(uint32(st.Mode)), st.Size, st.Uid}, nil
}

// fileMode translates the bits that matter here.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}

// SyncDir implements FS.
func (r *Real) SyncDir(name string) error {
	f, err := r.dir("syncdir", name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Lock implements FS, with flock(2).
func (r *Real) Lock(name string) (io.Closer, error) {
	f, err := r.open("lock", name, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	err = f.(*realFile).control(func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
}

// Space implements FS.
func (r *Real) Space() (Space, error) {
	read := func(st *unix.Statfs_t) error { return unix.Fstatfs(r.root, st) }
	if r.root == unix.AT_FDCWD {
		read = func(st *unix.Statfs_t) error { return unix.Statfs(".", st) }
	}
	s, err := retry(func() (Space, error) { return space(read) })
	if err != nil {
		return Space{}, fmt.Errorf("statfs: %w", err)
	}
	return s, nil
}

type realFile struct{ *os.File }

func (f *realFile) control(do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := c.Control(func(fd uintptr) {
		_, err = retry(func() (struct{}, error) { return struct{}{}, do(int(fd)) })
	}); cerr != nil {
		return cerr
	}
	return err
}

func (f *realFile) Sync() error {
	if err := f.control(datasync); err != nil {
		return &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *realFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
