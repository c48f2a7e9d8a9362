//go:build !linux && !openbsd && !freebsd

package priv

import "errors"

// sandbox has nothing to add: this system has no means that we know to use.
func (o *Options) sandbox(_ Policy, r *Result) error {
	r.miss("sandbox", errors.ErrUnsupported)
	return nil
}
