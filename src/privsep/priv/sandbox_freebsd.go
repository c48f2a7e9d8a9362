package priv

import "golang.org/x/sys/unix"

// sandbox adds the layers of FreeBSD: a role that opens and connects nothing
// goes into capability mode.
func (o *Options) sandbox(p Policy, r *Result) error {
	if !p.Capsicum {
		return nil
	}
	if err := unix.CapEnter(); err != nil {
		r.miss("capsicum", err)
		return nil
	}
	r.have("capsicum")
	return nil
}
