package parent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/priv"
	"opensmtpd/src/privsep/proc"
)

// The topology, the links and the policies must know the same roles.
func TestTopology(t *testing.T) {
	known := make(map[proc.Role]bool)
	policies := priv.Policies()
	for _, row := range topology() {
		if known[row.role] {
			t.Errorf("%s is there twice", row.role)
		}
		known[row.role] = true
		if _, ok := policies[string(row.role)]; !ok {
			t.Errorf("%s has no policy", row.role)
		}
		if row.stage < 0 || row.stage >= stages {
			t.Errorf("%s ends in stage %d of %d", row.role, row.stage, stages)
		}
		if _, err := projection(row.role, &load.Loaded{Config: &conf.Config{}}); err != nil {
			t.Error(err)
		}
	}
	if len(known) != len(policies) {
		t.Errorf("%d roles and %d policies", len(known), len(policies))
	}
	seen := make(map[[2]proc.Role]bool)
	for _, l := range links() {
		slices.Sort(l[:])
		if !known[l[0]] || !known[l[1]] || l[0] == l[1] || seen[l] {
			t.Errorf("bad link %v", l)
		}
		seen[l] = true
	}
}

func TestMembers(t *testing.T) {
	group := "root:x:0:\noperators:x:50:eve,gone,bob\nstaff:x:51:dan\nbroken\n"
	passwd := "root:x:0:0::/root:/bin/sh\neve:x:1000:1000::/home/eve:/bin/sh\nbob:x:1001:51::/:/bin/sh\n" +
		"olga:x:1002:50::/:/bin/sh\ndan:x:1003:51::/:/bin/sh\nbad:x:nan:50::/:/bin/sh\n"
	for name, want := range map[string]string{"operators": "[1000 1001 1002]", "none": "[]", "staff": "[1001 1003]"} {
		if got := fmt.Sprint(members([]byte(group), []byte(passwd), name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestSpoolDir(t *testing.T) {
	me, group := uint32(os.Getuid()), uint32(os.Getgid())
	for name, tc := range map[string]struct {
		before func(path string) error
		owner  uint32
		group  uint32
		perm   os.FileMode
		want   string
	}{
		"missing":        {func(string) error { return nil }, me, group, 0o700, ""},
		"as it must be":  {func(p string) error { return os.Mkdir(p, 0o700) }, me, group, 0o711, ""},
		"open to others": {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o755)) }, me, group, 0o700, "has mode 0755, must not be more than 0700"},
		"wrong owner":    {func(p string) error { return os.Mkdir(p, 0o700) }, me + 1, group, 0o700, "must belong to _smtpq"},
		"wrong group":    {func(p string) error { return os.Mkdir(p, 0o700) }, me, group + 1, 0o770, "must have group"},
		"a file":         {func(p string) error { return os.WriteFile(p, nil, 0o600) }, me, group, 0o700, "is not a directory"},
		"a link":         {func(p string) error { return os.Symlink("/tmp", p) }, me, group, 0o700, "is not a directory"},
	} {
		path := filepath.Join(t.TempDir(), "queue")
		if err := tc.before(path); err != nil {
			t.Fatal(err)
		}
		d := spoolDir{path, tc.perm, User{Name: "_smtpq", UID: tc.owner}, tc.group}
		err := d.ensure(false)
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
			continue
		}
		if fi, serr := os.Stat(path); err != nil || serr != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, err, serr)
		}
	}
}

// newTestParent returns a parent with a state directory and nothing started.
func newTestParent(t *testing.T) *Parent {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "parent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	places, err := paths.In(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &Parent{
		opt: Options{Paths: places}, clock: clock.NewFake(time.Unix(0, 0)), open: make(map[string]bool),
		programs: newPrograms(clock.NewSystem(), nil, nil),
	}
	if p.who, err = p.identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOneInstance(t *testing.T) {
	a := newTestParent(t)
	if err := a.prepareSpool(); err != nil {
		t.Fatal(err)
	}
	c := clock.NewFake(time.Unix(0, 0))
	b := &Parent{opt: a.opt, who: a.who, clock: c}
	taken := make(chan error, 1)
	// inVain lets b try as long as it does when the roles of a dead parent may
	// be about to end.
	inVain := func(try func() error) error {
		go func() { taken <- try() }()
		for {
			c.Advance(orphanTime / 10)
			select {
			case err := <-taken:
				return err
			default:
			}
		}
	}
	if err := inVain(b.prepareSpool); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("the lock was taken twice: %v", err)
	}
	// Queue holds a copy: the lock stays when parent is gone.
	copied, err := dup(a.lock)
	if err != nil {
		t.Fatal(err)
	}
	a.lock.Close()
	if err := inVain(b.takeLock); err == nil {
		t.Error("the lock went with parent although queue lives")
	}
	go func() { taken <- b.takeLock() }()
	c.BlockUntil(1) // it has found the lock taken, and waits
	copied.Close()
	c.Advance(orphanTime / 2)
	if err := <-taken; err != nil {
		t.Errorf("after both have gone: %v", err)
	}
	defer b.lock.Close()

	if err := b.alone(); err != nil {
		t.Errorf("no socket yet: %v", err)
	}
	f, err := b.listenControl()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.alone(); err == nil {
		t.Error("a socket that answers was not noticed")
	}
	f.Close()
	// Dead now, and in the way of nobody.
	if err := b.alone(); err != nil {
		t.Errorf("a dead socket: %v", err)
	}
	if f, err = b.listenControl(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if fi, err := os.Stat(b.opt.Paths.Socket); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("socket: %v, %v", fi.Mode(), err)
	}
}

func TestGenerations(t *testing.T) {
	p := &Parent{}
	for gen := mail.Gen(1); gen <= 20; gen++ {
		p.confs.add(gen, &load.Loaded{Config: &conf.Config{Server: conf.Server{Name: genName(gen)}}})
	}
	if len(p.confs.confs) != keptGenerations {
		t.Errorf("%d configurations are kept", len(p.confs.confs))
	}
	if c := p.config(20); c == nil || c.Server.Name != genName(20) {
		t.Errorf("config(20) = %v", c)
	}
	if c := p.config(3); c != nil {
		t.Errorf("config(3) = %v", c)
	}
}

func TestOpenTableOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "aliases")
	if err := os.WriteFile(file, []byte("root: eve\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Parent{}
	p.confs.add(1, &load.Loaded{Config: &conf.Config{Tables: []*conf.Table{
		{Name: "aliases", Backend: "file", Config: file},
		{Name: "inline", Backend: "static", Config: file},
		{Name: "gone", Backend: "file", Config: file + ".not"},
	}}})
	f, err := p.openTableOf(1, "aliases")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	// Lookup may be in the hands of an attacker: it names tables, not paths.
	for _, tc := range []struct {
		gen  mail.Gen
		name string
	}{{1, file}, {1, "/etc/passwd"}, {1, "inline"}, {1, "gone"}, {2, "aliases"}, {1, ""}} {
		if f, err := p.openTableOf(tc.gen, tc.name); err == nil {
			f.Close()
			t.Errorf("table %q of generation %d was opened", tc.name, tc.gen)
		}
	}
}

func TestInOneLine(t *testing.T) {
	var d diag.List
	if err := inOneLine(&d); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	d.Warnf(conf.Pos{File: "c", Line: 1, Col: 1}, "careful")
	d.Errorf(conf.Pos{File: "c", Line: 3, Col: 2}, "second")
	d.Errorf(conf.Pos{File: "c", Line: 2, Col: 4}, "first")
	d.Source("c", "one\ntwo\nthree\n")
	if err := inOneLine(&d); err == nil || err.Error() != "c:2:4: first (and 1 more: see smtpd -n)" {
		t.Errorf("got %v", err)
	}
}

// A listener that cannot be opened is an error at its place in the file; one
// that is open already is not touched.
func TestOpenListeners(t *testing.T) {
	p := newTestParent(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().(*net.TCPAddr).AddrPort()
	on := &conf.Listen{On: "127.0.0.1"}
	on.Pos = conf.Pos{File: "c", Line: 7, Col: 1}
	l := &load.Loaded{Config: &conf.Config{}, Listeners: []load.Listener{
		{Identity: "tcp:a", Addr: addr, Local: true, Listen: on}, {Identity: load.SocketIdentity, Socket: true, Listen: on},
	}}
	var d diag.List
	p.openAll(context.Background(), 1, l, &d).close()
	if err := inOneLine(&d); err == nil || !strings.Contains(err.Error(), "c:7:") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port in use: %v", err)
	}
	p.open["tcp:a"] = true
	d = diag.List{}
	pl := p.openAll(context.Background(), 2, l, &d)
	defer pl.close()
	if err := inOneLine(&d); err != nil || !pl.open["tcp:a"] || len(pl.files) != 0 {
		t.Errorf("a listener that is open: %v, %v", err, pl.files)
	}
	p.who.rootAlone = true
	l.Listeners[0].Identity, l.Listeners[0].Local = "tcp:b", false
	p.openAll(context.Background(), 3, l, &d).close()
	if err := inOneLine(&d); err == nil || !strings.Contains(err.Error(), "only loopback") {
		t.Errorf("root alone: %v", err)
	}
}

func TestCABundle(t *testing.T) {
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	if err := errors.Join(os.WriteFile(empty, []byte("# none\n"), 0o600),
		os.WriteFile(full, []byte("-----BEGIN CERTIFICATE-----\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", empty)
	if _, err := caBundle(true); err == nil {
		t.Error("no certificates, though they are needed, is no error")
	}
	if b, err := caBundle(false); err != nil || b != "" {
		t.Errorf("not needed: %q, %v", b, err)
	}
	t.Setenv("SSL_CERT_FILE", full)
	if b, err := caBundle(true); err != nil || b == "" {
		t.Errorf("one certificate: %q, %v", b, err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LD_PRELOAD", "/tmp/evil.so")
	t.Setenv("GODEBUG", "x=1")
	t.Setenv("TZ", "Europe/Paris")
	env := environment()
	if len(env) != 2 || !strings.HasPrefix(env[0], "PATH=/") || env[1] != "TZ=Europe/Paris" {
		t.Errorf("environment %q", env)
	}
	if z := zoneName(); z != "Europe/Paris" {
		t.Errorf("zone %q", z)
	}
}

func genName(g mail.Gen) string { return fmt.Sprintf("generation-%d", g) }

// Reasons for not starting are lines: one that names five directories can be
// read.
func TestFatal(t *testing.T) {
	var b mlog.Memory
	p := &Parent{log: mlog.New(&b, false)}
	p.fatal(errors.Join(errors.New("spool: one"), errors.New("spool: two")))
	if got := strings.Join(b.Take(), "|"); got != "fatal: smtpd: spool: one|fatal: smtpd: spool: two" {
		t.Errorf("logged %q", got)
	}
}
