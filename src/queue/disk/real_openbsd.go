package disk

import "golang.org/x/sys/unix"

func datasync(fd int) error { return unix.Fsync(fd) }

func space(read func(*unix.Statfs_t) error) (Space, error) {
	var st unix.Statfs_t
	if err := read(&st); err != nil {
		return Space{}, err
	}
	return Space{
		percent(st.F_blocks, st.F_bfree, uint64(max(st.F_bavail, 0))),
		percent(st.F_files, st.F_ffree, uint64(max(st.F_favail, 0))),
	}, nil
}
