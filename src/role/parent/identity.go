package parent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	"opensmtpd/src/paths"
)

// identities are the users that roles become.
type identities struct {
	daemon, queue User
	// unprivileged tells that all roles stay who we are: smtpd -S.
	unprivileged bool
	// rootAlone tells that this is root, with nobody to become.
	rootAlone bool
	operators []uint32
}

// identify finds out who the roles will be, and whom mail can be for.
func (p *Parent) identify(ctx context.Context) (identities, error) {
	if p.opt.Paths.State != "" {
		me := User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
		if u, err := user.Current(); err == nil {
			me.Name, me.Home = u.Username, u.HomeDir
		}
		p.users = OnlyUser(me)
		return identities{daemon: me, queue: me, unprivileged: true, rootAlone: me.UID == 0}, nil
	}
	p.users = NewUsers(p.clock)
	var who identities
	for name, to := range map[string]*User{paths.User: &who.daemon, paths.QueueUser: &who.queue} {
		u, err := p.systemUser(ctx, name)
		if err != nil {
			return who, err
		}
		if u.UID == 0 || u.GID == 0 {
			return who, fmt.Errorf("user %s has the rights of root: uid %d, gid %d", name, u.UID, u.GID)
		}
		*to = u
	}
	if who.daemon.UID == who.queue.UID {
		return who, fmt.Errorf("users %s and %s are the same", paths.User, paths.QueueUser)
	}
	who.operators = operators()
	return who, p.checkChroot()
}

// systemUser finds one of the users that the installation makes.
func (p *Parent) systemUser(ctx context.Context, name string) (User, error) {
	u, found, err := p.users.Lookup(ctx, name)
	if err != nil {
		return User{}, fmt.Errorf("user %s: %w", name, err)
	}
	if !found {
		return User{}, fmt.Errorf("unknown user %s: the system must have the users %s and %s", name, paths.User, paths.QueueUser)
	}
	return u, nil
}

// operators returns the members of the group that may use smtpctl: those that
// the group names, and those whose own group it is. No such group, no members.
func operators() []uint32 {
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil
	}
	return members(group, passwd, paths.Operators)
}

// members reads a group's members out of the two files.
func members(group, passwd []byte, name string) []uint32 {
	gid, named := "", map[string]bool{}
	for line := range bytes.Lines(group) {
		if f := strings.Split(strings.TrimSpace(string(line)), ":"); len(f) == 4 && f[0] == name {
			gid = f[2]
			for _, m := range strings.Split(f[3], ",") {
				named[m] = true
			}
		}
	}
	if gid == "" {
		return nil
	}
	var uids []uint32
	for line := range bytes.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 7 || !named[f[0]] && f[3] != gid {
			continue
		}
		if uid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			uids = append(uids, uint32(uid))
		}
	}
	return uids
}

// checkChroot sees to the empty directory that roles without files live in.
func (p *Parent) checkChroot() error {
	dir := p.opt.Paths.Chroot
	err := os.Mkdir(dir, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("root directory of the roles: %w", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("root directory of the roles: %w", err)
	}
	if uid, _ := ownerOf(fi); !fi.IsDir() || uid != 0 || fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s must be a directory that belongs to root and that nobody else may write", dir)
	}
	return nil
}
