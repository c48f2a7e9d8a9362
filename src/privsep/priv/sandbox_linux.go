package priv

import (
	"errors"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// sandbox adds the layers of Linux.
func (o *Options) sandbox(p Policy, r *Result) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	r.have("nodump")
	if err := o.landlock(p); err != nil {
		r.miss("landlock", err)
	} else {
		r.have("landlock")
	}
	if err := p.seccomp(); err != nil {
		r.miss("seccomp", err)
	} else {
		r.have("seccomp")
	}
	return nil
}

// landlock takes away the file system but for the working directory of a role
// that has one, and the network as far as the kernel can.
func (o *Options) landlock(p Policy) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return err
	}
	c := landlock.V11
	var rules []landlock.Rule
	if p.Connect {
		// Connecting is the role's work. It may choose its address, so port 0
		// can be bound, which nobody can find.
		c.HandledAccessNet = ll.AccessNetBindTCP
		rules = append(rules, landlock.BindTCP(0))
	}
	if p.Files {
		if abi < 2 {
			return errors.New("this kernel's cannot let files be renamed between directories")
		}
		rules = append(rules, landlock.RWDirs(o.workDir()).WithRefer())
	}
	return c.BestEffort().Restrict(rules...)
}
