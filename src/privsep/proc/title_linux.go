package proc

import (
	"bytes"
	"os"
	"strings"
	"unsafe"
)

// SetTitle changes what ps(1) shows of this process, arguments and all. It
// fails when the new title is longer than the arguments were.
func SetTitle(title string) bool {
	args := os.Args
	if len(args) == 0 {
		return false
	}
	// The strings of os.Args lie where the kernel looks for them, one behind
	// the other, each with a NUL.
	start := unsafe.StringData(args[0])
	size := 0
	for _, a := range args {
		if unsafe.Pointer(unsafe.StringData(a)) != unsafe.Add(unsafe.Pointer(start), size) {
			return false
		}
		size += len(a) + 1
	}
	if len(title) >= size {
		return false
	}
	os.Args = make([]string, len(args))
	for i, a := range args {
		os.Args[i] = strings.Clone(a)
	}
	area := unsafe.Slice(start, size)
	clear(area[copy(area, title):])
	shown, err := os.ReadFile("/proc/self/cmdline")
	return err == nil && bytes.HasPrefix(shown, append([]byte(title), 0))
}

// nameProcess gives the process the name that pgrep(1) and the like go by,
// which for a program started through /proc would be "exe".
func nameProcess() {
	_ = os.WriteFile("/proc/self/comm", []byte("smtpd"), 0) // without /proc there is nobody to tell
}
