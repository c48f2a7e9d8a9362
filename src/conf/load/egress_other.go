//go:build unix && !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package load

import "errors"

func egress() ([]string, error) {
	return nil, errors.New("default routes cannot be read on this system")
}
