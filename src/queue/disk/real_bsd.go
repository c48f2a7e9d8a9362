//go:build freebsd || dragonfly || darwin

package disk

import "golang.org/x/sys/unix"

func datasync(fd int) error { return unix.Fsync(fd) }

func space(read func(*unix.Statfs_t) error) (Space, error) {
	var st unix.Statfs_t
	if err := read(&st); err != nil {
		return Space{}, err
	}
	return Space{
		percent(uint64(st.Blocks), uint64(st.Bfree), uint64(max(st.Bavail, 0))),
		percent(uint64(st.Files), uint64(st.Ffree), uint64(st.Ffree)),
	}, nil
}
