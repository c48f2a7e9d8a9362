package parent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// newPrograms ties the programs to the roles that speak to them.
func (p *Parent) newPrograms() *programs {
	return newPrograms(p.clock, p.log, func(role proc.Role, identity string, f *os.File) {
		c := p.child(role)
		if c == nil {
			f.Close()
			return
		}
		// It fails when the role is gone, and then the daemon stops.
		if err := c.Peer.SendFile(context.Background(), &msg.Program{Identity: identity}, f); err != nil {
			p.log.Debugf("debug: smtpd: program %s: %v", identity, err)
		}
	})
}

// openPrograms starts the filter and table programs that do not run yet.
func (p *Parent) openPrograms(ctx context.Context, pl *plan, diags *diag.List) {
	add := func(pos conf.Pos, spec programSpec, as *conf.Proc) {
		if pl.programs[spec.Identity] {
			return
		}
		pl.programs[spec.Identity] = true
		if p.programs.has(spec.Identity) {
			return
		}
		if err := p.startProgram(ctx, pl, spec, as); err != nil {
			diags.Errorf(pos, "%s: %s", spec.Name, reason(err))
		}
	}
	for _, f := range project.FilterPrograms(pl.loaded) {
		add(f.Pos, filterProgram(&f), f.Start)
	}
	for _, t := range pl.loaded.Tables {
		if spec, ok := tableProgram(t); ok {
			add(t.Pos, spec, &conf.Proc{})
		}
	}
}

func (p *Parent) startProgram(ctx context.Context, pl *plan, spec programSpec, as *conf.Proc) error {
	cred, err := p.credential(ctx, as)
	if err != nil {
		return err
	}
	if spec.Credential = cred; cred != nil {
		spec.Chroot = as.Chroot // which an ordinary user cannot
	}
	g, f, err := p.programs.start(spec)
	if err != nil {
		return err
	}
	pl.started = append(pl.started, g)
	pl.files[spec.Role] = append(pl.files[spec.Role], proc.File{Identity: spec.Identity, File: f})
	return nil
}

// filterProgram is the program of a filter. A command without a directory is
// looked for in the usual places, one with a relative path below libexec.
func filterProgram(f *project.FilterProgram) programSpec {
	command := f.Start.Command
	word, _, _ := strings.Cut(command, " ")
	if strings.Contains(word, "/") && !filepath.IsAbs(word) {
		command = filepath.Join(libExec(), word) + command[len(word):]
	}
	return programSpec{Identity: f.Identity, Name: f.Shown(), Role: proc.Dispatcher, Command: command}
}

// tableProgram is the program of a table, when it has one: it is called by the
// table's name, with the configuration as its argument.
func tableProgram(t *conf.Table) (programSpec, bool) {
	spec := programSpec{Identity: load.TableIdentity(t), Name: t.Name, Role: proc.Lookup, Argv: []string{t.Name}}
	name, args, ok := load.TableProgram(t)
	if !ok {
		return programSpec{}, false
	}
	if spec.Path = name; !filepath.IsAbs(name) {
		spec.Path = findProgram(name)
	}
	spec.Argv = append(spec.Argv, args...)
	return spec, true
}

// credential is who runs a program: by default the daemon's user. Nil means
// that we cannot choose.
func (p *Parent) credential(ctx context.Context, as *conf.Proc) (*syscall.Credential, error) {
	if p.who.unprivileged {
		return nil, nil
	}
	name := as.User
	if name == "" {
		name = paths.User
	}
	u, found, err := p.users.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("unknown user %s", name)
	}
	gid := u.GID
	if as.Group != "" {
		if gid, err = groupID(ctx, as.Group); err != nil {
			return nil, err
		}
	}
	return &syscall.Credential{Uid: u.UID, Gid: gid, Groups: []uint32{gid}}, nil
}

// groupID finds a group in /etc/group, else by getent(1).
func groupID(ctx context.Context, name string) (uint32, error) {
	data, err := os.ReadFile("/etc/group")
	if err != nil {
		return 0, err
	}
	if gid, ok := groupIn(string(data), name); ok {
		return gid, nil
	}
	ctx, cancel := context.WithTimeout(ctx, getentTime)
	defer cancel()
	c := exec.CommandContext(ctx, "/usr/bin/getent", "group", "--", name)
	c.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	out, err := c.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if gid, ok := groupIn(string(out), name); ok {
		return gid, nil
	}
	return 0, fmt.Errorf("unknown group %s", name)
}

// groupIn finds a group in lines of group(5).
func groupIn(lines, name string) (uint32, bool) {
	for line := range strings.Lines(lines) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			return uint32(gid), true
		}
	}
	return 0, false
}
