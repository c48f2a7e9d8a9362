// Package priv takes from a process what it does not need: root directory,
// user, and, where the system can, files, network and system calls. What each
// role keeps is one table. Nothing here can be undone by the process.
package priv

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Policy is what a role may still do once it is confined. Descriptors that it
// holds, or is sent, work in any case.
type Policy struct {
	Files   bool // work in its directory: open, create, rename, remove
	Connect bool // make sockets and connect to the network
	Accept  bool // accept on listeners that it was given
	Pair    bool // make socketpairs, to hand to others
	// Promises are the pledges of OpenBSD for the same.
	Promises string
	// Capsicum tells that the role can live in FreeBSD's capability mode.
	Capsicum bool
}

// Policies returns the table of the roles, by the words of ps(1). Parent and
// agents are not in it: what they start would inherit the confinement, and
// set-gid delivery programs would break.
func Policies() map[string]Policy {
	return map[string]Policy{
		"dispatcher": {Connect: true, Accept: true, Promises: "stdio inet unix sendfd recvfd"},
		"lookup":     {Connect: true, Promises: "stdio inet flock sendfd recvfd"},
		"queue":      {Files: true, Promises: "stdio rpath wpath cpath fattr flock sendfd recvfd"},
		"control":    {Accept: true, Pair: true, Promises: "stdio unix sendfd recvfd", Capsicum: true},
		"crypto":     {Promises: "stdio recvfd", Capsicum: true},
	}
}

// Options say how a process is to be confined.
type Options struct {
	Role   string // a key of Policies
	Chroot string // the new root directory
	UID    uint32
	GID    uint32
	// Unprivileged tells that the process runs as an ordinary user, or as a
	// root that has nobody to become: root directory and user stay.
	Unprivileged bool
	// Dir is where an unprivileged process may work; "" for nowhere.
	Dir string
}

// Result tells what holds.
type Result struct {
	Layers  []string // in force: chroot, user, nodump, landlock, seccomp, pledge, unveil, capsicum
	Missing []string // what this system cannot do, with the reason
}

func (r *Result) have(layer string) { r.Layers = append(r.Layers, layer) }

func (r *Result) miss(layer string, err error) {
	r.Missing = append(r.Missing, fmt.Sprintf("%s (%v)", layer, err))
}

// Sandboxed tells whether the system itself confines the process, beyond root
// directory and user.
func (r Result) Sandboxed() bool {
	for _, l := range r.Layers {
		switch l {
		case "landlock", "seccomp", "pledge", "capsicum":
			return true
		}
	}
	return false
}

// Confine drops everything, in this order: root directory, groups, group, user,
// the proof that they are gone, core dumps, then the layers of the system. An
// error means that the process holds what it should not and must end; a layer
// that the system lacks is not an error.
func Confine(o Options) (Result, error) {
	var r Result
	p, ok := Policies()[o.Role]
	if !ok {
		return r, fmt.Errorf("no policy for %q", o.Role)
	}
	if o.Unprivileged {
		if err := os.Chdir(o.workDir()); err != nil {
			return r, err
		}
	} else {
		if err := o.drop(); err != nil {
			return r, err
		}
		if err := o.prove(); err != nil {
			return r, err
		}
		r.have("chroot")
		r.have("user")
	}
	return r, o.sandbox(p, &r)
}

// workDir is where the process is and, if its policy says so, may work.
func (o *Options) workDir() string {
	if o.Unprivileged && o.Dir != "" {
		return o.Dir
	}
	return "/"
}

// drop changes root directory and user, in every thread: package syscall does
// that, other packages' system calls do not.
func (o *Options) drop() error {
	if o.UID == 0 || o.GID == 0 {
		return errors.New("refusing to run as root")
	}
	if err := syscall.Chroot(o.Chroot); err != nil {
		return fmt.Errorf("chroot %s: %w", o.Chroot, err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("chroot %s: %w", o.Chroot, err)
	}
	if err := syscall.Setgroups([]int{int(o.GID)}); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	return setIDs(int(o.UID), int(o.GID))
}

// prove tries to get back what was dropped.
func (o *Options) prove() error {
	uid, gid := int(o.UID), int(o.GID)
	if os.Getuid() != uid || os.Geteuid() != uid || os.Getgid() != gid || os.Getegid() != gid {
		return fmt.Errorf("still uid %d/%d, gid %d/%d", os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid())
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g != gid {
			return fmt.Errorf("still in group %d", g)
		}
	}
	for what, try := range map[string]func() error{
		"setuid":    func() error { return syscall.Setuid(0) },
		"setreuid":  func() error { return syscall.Setreuid(-1, 0) },
		"setgid":    func() error { return syscall.Setgid(0) },
		"setgroups": func() error { return syscall.Setgroups([]int{0}) },
		"chroot":    func() error { return syscall.Chroot(".") },
	} {
		if try() == nil {
			return fmt.Errorf("privileges were dropped, but %s gets them back", what)
		}
	}
	return nil
}
