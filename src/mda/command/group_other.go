//go:build !linux

package command

import "syscall"

// ownGroup gives a command a session and process group.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
