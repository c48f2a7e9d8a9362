// Package load makes a configuration ready for use: it reads the file through a
// front end, has its meaning checked, looks up what depends on the machine
// (interfaces, host names, ports, files), and fills in the defaults of the manual.
package load

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/check"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/hcl"
	"opensmtpd/src/conf/legacy"
	"opensmtpd/src/conf/native"
)

// Loaded is a configuration with what the machine adds to it.
type Loaded struct {
	*conf.Config
	Listeners  []Listener
	TableFiles []TableFile
	LocalNames []string     // domains of `for local`
	LocalAddrs []netip.Addr // addresses of `from local`, beside the socket
}

// File reads the named file in the grammar that its words show. macros are those
// of the command line. Nothing may be done with the configuration when the list
// has errors.
func File(ctx context.Context, m Machine, name string, macros map[string]string) (*Loaded, *diag.List) {
	cfg, diags := Parse(ctx, m, name, macros)
	path, isHCL := hcl.Path(name)
	secrecy(m, path, diags)
	l := Finish(ctx, m, path, cfg, diags)
	if isHCL {
		diags.EditHints(hcl.Hint)
	}
	return l, diags
}

// Parse is the first half of File: what the file says, whatever this machine is
// like.
func Parse(ctx context.Context, m Machine, name string, macros map[string]string) (*conf.Config, *diag.List) {
	if path, ok := hcl.Path(name); ok {
		return hcl.Parse(m.ReadFile, path, macros)
	}
	found, mixed := legacy.Recognise(m.ReadFile, name, macros)
	if mixed != nil {
		return new(conf.Config), mixed
	}
	if found.Dialect == legacy.Modern {
		return native.Parse(m.ReadFile, name, macros)
	}
	cfg, diags := legacy.Parse(found.Dialect, m.ReadFile, name, macros, legacy.Options{Host: func() string {
		var c conf.Config
		serverName(ctx, m, &c, new(diag.List))
		return c.Server.Name
	}})
	diags.Add(diag.Diag{Severity: diag.Warning, Pos: found.Pos,
		Message: "this file is written for " + found.Releases + ": it means what it meant",
		Hint:    "smtpd -n -C conf -f " + name + " prints it as it is written today"})
	return cfg, diags
}

// Finish does for a configuration that some front end has read what File does.
// name is the file that complaints about the whole are about.
func Finish(ctx context.Context, m Machine, name string, cfg *conf.Config, diags *diag.List) *Loaded {
	l := &Loaded{Config: cfg}
	if len(cfg.Matches) == 0 && !diags.HasErrors() {
		diags.Errorf(conf.Pos{File: name, Line: 1, Col: 1}, "no rules, nothing to do")
	}
	kinds := tableFiles(m, cfg, diags)
	check.Config(cfg, kinds, m.Values, diags)
	certFiles(m, cfg, diags)
	users(m, cfg, diags)
	serverName(ctx, m, cfg, diags)
	addSocket(cfg)
	r := &resolver{ctx: ctx, m: m, diags: diags}
	l.Listeners = r.listeners(cfg)
	l.TableFiles = TableFiles(cfg)
	l.LocalAddrs = r.localAddrs()
	l.LocalNames = localNames(cfg.Server.Name, l.LocalAddrs)
	Defaults(cfg)
	return l
}

// secrecy warns when others could change what a root daemon does.
func secrecy(m Machine, name string, diags *diag.List) {
	fi, err := m.Stat(name)
	if err != nil {
		return
	}
	pos := conf.Pos{File: name, Line: 1, Col: 1}
	if fi.Mode().Perm()&0o002 != 0 {
		diags.Add(diag.Diag{Severity: diag.Warning, Pos: pos, Message: "anybody can change this file", Hint: "chmod o-w " + name})
	}
	if uid, ok := m.Owner(fi); ok && uid != 0 && uid != m.UID {
		diags.Warnf(pos, "this file belongs neither to root nor to who runs smtpd")
	}
}

// addSocket adds the listener that is there without a word.
func addSocket(cfg *conf.Config) {
	for _, l := range cfg.Listens {
		if l.Socket {
			return
		}
	}
	cfg.Listens = append(cfg.Listens, &conf.Listen{Socket: true})
}

// localNames returns the domains of `for local`.
func localNames(server string, addrs []netip.Addr) []string {
	names := []string{"localhost"}
	if server != "localhost" {
		names = append(names, server)
	}
	for _, a := range addrs {
		if a.Is6() {
			names = append(names, "["+a.String()+"]")
		} else {
			names = append(names, a.String())
		}
	}
	return names
}

// certFiles checks the files of pki and ca statements as far as we may see them.
func certFiles(m Machine, cfg *conf.Config, diags *diag.List) {
	for _, p := range cfg.PKIs {
		if p.Bad {
			continue
		}
		cert := certFile(m, p.Cert, p.Place("cert"), 0o022, diags) && certText(m, p.Cert, p.Place("cert"), diags)
		key := certFile(m, p.Key, p.Place("key"), 0o037, diags)
		if m.CheckPair == nil || !cert || !key {
			continue
		}
		if err := m.CheckPair(p.Cert, p.Key); err != nil && !errors.Is(err, fs.ErrPermission) {
			diags.Errorf(p.Place("key"), "%s: %v", p.Key, err)
		}
	}
	for _, a := range cfg.CAs {
		if !a.Bad && certFile(m, a.Cert, a.Place("cert"), 0o022, diags) {
			certText(m, a.Cert, a.Place("cert"), diags)
		}
	}
}

// certText checks what a file of certificates holds, if we may read it.
func certText(m Machine, path string, pos conf.Pos, diags *diag.List) bool {
	if m.CheckCert == nil {
		return true
	}
	warning, err := m.CheckCert(path)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		diags.Errorf(pos, "%s: %v", path, err)
	}
	if warning != "" {
		diags.Warnf(pos, "%s: %s", path, warning)
	}
	return err == nil
}

// certFile checks that a file exists, is root's or ours, and that its mode has
// none of the forbidden bits. It is true when there is more to see.
func certFile(m Machine, path string, pos conf.Pos, forbidden fs.FileMode, diags *diag.List) bool {
	if path == "" {
		return false
	}
	if !filepath.IsAbs(path) {
		diags.Errorf(pos, "%s is not an absolute path", path)
		return false
	}
	fi, err := m.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission) && m.UID != 0:
		return false // root will see
	case err != nil:
		diags.Errorf(pos, "%s: %s", path, reason(err))
		return false
	case fi.IsDir():
		diags.Errorf(pos, "%s: is a directory", path)
		return false
	}
	if uid, ok := m.Owner(fi); ok && uid != 0 && uid != m.UID {
		diags.Errorf(pos, "%s: not owned by root", path)
	}
	if bad := fi.Mode().Perm() & forbidden; bad != 0 {
		most := 0o777 &^ forbidden
		if forbidden&0o010 != 0 {
			most &^= 0o110
		}
		diags.Add(diag.Diag{Severity: diag.Error, Pos: pos,
			Message: fmt.Sprintf("%s: insecure permissions %04o", path, fi.Mode().Perm()),
			Hint:    fmt.Sprintf("chmod %04o %s", fi.Mode().Perm()&most, path)})
	}
	return true
}

// users warns of users that the system does not have.
func users(m Machine, cfg *conf.Config, diags *diag.List) {
	if m.UserExists == nil {
		return
	}
	ask := func(name string, n *conf.Node) {
		if name == "" || n.Bad {
			return
		}
		if ok, err := m.UserExists(name); err == nil && !ok {
			diags.Warnf(n.Place("user"), "no such user: %s", name)
		}
	}
	for _, a := range cfg.Actions {
		ask(a.User, &a.Node)
	}
	for _, p := range cfg.Procs {
		ask(p.User, &p.Node)
	}
	for _, f := range cfg.Filters {
		if f.Proc != nil {
			ask(f.Proc.User, &f.Node)
		}
	}
}

// Defaults fills in what was not written. Such settings have no place.
func Defaults(cfg *conf.Config) {
	s := &cfg.Server
	if s.BounceWarn.Pos.IsZero() {
		s.BounceWarn.Value = []time.Duration{4 * time.Hour}
	}
	const fourDays = 96 * time.Hour
	orDelay(&s.QueueTTL, fourDays)
	orDelay(&s.SRSTTL, fourDays)
	orNumber(&s.MaxMessageSize, 35<<20)
	orNumber(&s.MTAMaxDeferred, 100)
	if s.SubAddrDelim.Pos.IsZero() {
		s.SubAddrDelim.Value = "+"
	}
	s.MDALimits = orLimits(s.MDALimits, conf.MDALimits())
	s.SMTPLimits = orLimits(s.SMTPLimits, conf.SMTPLimits())
	s.SchedulerLimits = orLimits(s.SchedulerLimits, conf.SchedulerLimits())
	for _, d := range conf.MTALimits() {
		if !slices.ContainsFunc(s.MTALimits, func(l *conf.MTALimit) bool { return l.Domain == "" && l.Key == d.Key }) {
			s.MTALimits = append(s.MTALimits, &conf.MTALimit{Key: d.Key, Value: d.Value})
		}
	}
}

func orDelay(d *conf.Duration, v time.Duration) {
	if d.Pos.IsZero() {
		d.Value = v
	}
}

func orNumber(n *conf.Number, v int64) {
	if n.Pos.IsZero() {
		n.Value = v
	}
}

func orLimits(set []*conf.Limit, defaults []conf.Limit) []*conf.Limit {
	for _, d := range defaults {
		if !slices.ContainsFunc(set, func(l *conf.Limit) bool { return l.Key == d.Key }) {
			set = append(set, &conf.Limit{Key: d.Key, Value: d.Value})
		}
	}
	return set
}

// reason returns what the system says, without the path.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// serverName sets the name of this server: the first line of the mailname file,
// else the host's name, made whole by DNS when it has no domain.
func serverName(ctx context.Context, m Machine, cfg *conf.Config, diags *diag.List) {
	if cfg.Server.Name != "" {
		return
	}
	if name, ok := mailName(m, diags); ok {
		cfg.Server.Name = name
		return
	}
	name, err := m.Hostname()
	if err != nil || name == "" {
		diags.Errorf(conf.Pos{}, "this machine has no host name: write one into %s", m.MailName)
		cfg.Server.Name = "localhost"
		return
	}
	if !strings.Contains(name, ".") {
		if whole, err := m.Canonical(ctx, name); err == nil && whole != "" {
			name = whole
		}
	}
	cfg.Server.Name = name
}

func mailName(m Machine, diags *diag.List) (string, bool) {
	b, err := m.ReadFile(m.MailName)
	if errors.Is(err, fs.ErrNotExist) || m.MailName == "" {
		return "", false
	}
	pos := conf.Pos{File: m.MailName, Line: 1, Col: 1}
	if err != nil {
		diags.Warnf(pos, "%s", reason(err))
		return "", false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSpace(line); line == "" {
		diags.Warnf(pos, "the first line is empty")
		return "", false
	}
	if strings.ContainsAny(line, " \t") {
		diags.Warnf(pos, "%q is not a host name", line)
		return "", false
	}
	return line, true
}
