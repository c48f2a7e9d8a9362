package disk

import "golang.org/x/sys/unix"

// datasync writes contents and size, but not the times, which saves a write of
// the inode for an overwrite in place.
func datasync(fd int) error { return unix.Fdatasync(fd) }

func space(read func(*unix.Statfs_t) error) (Space, error) {
	var st unix.Statfs_t
	if err := read(&st); err != nil {
		return Space{}, err
	}
	return Space{
		percent(uint64(st.Blocks), uint64(st.Bfree), uint64(st.Bavail)),
		percent(uint64(st.Files), uint64(st.Ffree), uint64(st.Ffree)),
	}, nil
}
