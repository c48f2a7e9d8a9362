//go:build !linux

package regress

import "errors"

var errLinux = errors.New("the privileged tests need Linux namespaces")

func reexec() (int, error) { return 0, errLinux }

func furnish() error { return errLinux }
