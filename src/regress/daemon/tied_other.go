//go:build !linux

package daemon

import "syscall"

// tied makes a child in a group of its own; here it cannot be made to end with
// the test program.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
