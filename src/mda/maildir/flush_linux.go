package maildir

import "golang.org/x/sys/unix"

// startWriting lets the blocks of a file be allocated and written while others
// are still being prepared, so that the first fsync of a batch commits the
// metadata of all. It is a hint; fsync reports what fails.
func startWriting(fd int) { unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) }
