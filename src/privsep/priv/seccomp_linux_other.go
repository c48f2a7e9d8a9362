//go:build linux && !amd64 && !arm64

package priv

import (
	"errors"
	"runtime"
)

// seccomp has no table of system calls for this architecture.
func (p Policy) seccomp() error { return errors.New("no table of calls for " + runtime.GOARCH) }
