package proc

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// span is a piece of the address space.
type span struct{ start, length uintptr }

// Code returns a function that gives back the pages of the program's code and
// constants which were touched so far. Most that a start needs are never needed
// again; what is comes back from the page cache. The map of the memory is read at
// once, since a chroot hides it; without /proc the function does nothing.
func Code() (forget func()) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return func() {}
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return func() {}
	}
	spans := unchanged(string(maps), self)
	return func() {
		for _, s := range spans {
			// Advice: if it is not taken nothing is lost.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, s.start, s.length, unix.MADV_DONTNEED)
		}
	}
}

// unchanged lists the pieces of smaps, proc(5), that hold a file as it is on the
// disk and cannot be written. What a loader has relocated cannot be written
// either, but would not come back.
func unchanged(smaps, file string) (list []span) {
	var s span
	for line := range strings.Lines(smaps) {
		// start-end perms offset device inode path, then name: value lines
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case !strings.HasSuffix(f[0], ":"):
			s = span{}
			if len(f) == 6 && f[5] == file && !strings.Contains(f[1], "w") {
				s = parseSpan(f[0])
			}
		case f[0] == "Anonymous:" && len(f) > 1 && f[1] == "0" && s.length > 0:
			list = append(list, s)
		}
	}
	return list
}

func parseSpan(s string) span {
	from, to, _ := strings.Cut(s, "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if err1 != nil || err2 != nil || start >= end {
		return span{}
	}
	return span{uintptr(start), uintptr(end - start)}
}
