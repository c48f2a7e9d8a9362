//go:build !linux

package proc

// SetTitle changes what ps(1) shows of this process; here it cannot.
func SetTitle(string) bool { return false }

// nameProcess has nothing to do: the program was started by its own name.
func nameProcess() {}
