package proc

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Code returns a function that gives back the pages of the program's code and
// constants which were touched so far. Most that a start needs are never needed
// again; what is comes back from the page cache. The map of the memory is read at
// once, since a chroot hides it; without /proc the function does nothing.
func Code() (forget func()) {
	type span struct{ start, length uintptr }
	var spans []span
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return func() {}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return func() {}
	}
	for line := range strings.Lines(string(maps)) {
		// start-end perms offset device inode path
		f := strings.Fields(line)
		if len(f) < 6 || f[5] != self || strings.Contains(f[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			spans = append(spans, span{uintptr(start), uintptr(end - start)})
		}
	}
	return func() {
		for _, s := range spans {
			// Advice: if it is not taken nothing is lost.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, s.start, s.length, unix.MADV_DONTNEED)
		}
	}
}
