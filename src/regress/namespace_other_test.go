//go:build !linux

package regress

import (
	"errors"
	"syscall"
)

var errLinux = errors.New("the privileged tests need Linux namespaces")

func reexec() (int, error) { return 0, errLinux }

func apart() *syscall.SysProcAttr { return nil }

func furnish() error { return errLinux }
