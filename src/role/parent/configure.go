package parent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/safefile"
)

// controlIdentity names the control socket among the files of control.
const controlIdentity = "control"

// keptGenerations is how many configurations are remembered: deliveries go by
// the one under which queue began them.
const keptGenerations = 5

// generations are the configurations that may still be asked for.
type generations struct {
	confs map[mail.Gen]*load.Loaded
}

func (g *generations) add(gen mail.Gen, l *load.Loaded) {
	if g.confs == nil {
		g.confs = make(map[mail.Gen]*load.Loaded)
	}
	g.confs[gen] = l
	if gen > keptGenerations {
		delete(g.confs, gen-keptGenerations)
	}
}

// config returns the configuration of a generation, nil when it is gone.
func (p *Parent) config(gen mail.Gen) *conf.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.confs.confs[gen]; l != nil {
		return l.Config
	}
	return nil
}

// load reads the configuration and shows what is wrong with it.
func (p *Parent) load(ctx context.Context) (*load.Loaded, error) {
	l, diags := p.read(ctx)
	return l, p.show(diags)
}

// read reads the configuration, for a start and for a reload alike.
func (p *Parent) read(ctx context.Context) (*load.Loaded, *diag.List) {
	return load.File(ctx, machine(p.clock.Now()), p.opt.Conf, p.opt.Macros)
}

// show writes diagnostics for whoever started the daemon.
func (p *Parent) show(diags *diag.List) error {
	if err := diags.Write(p.stderr, diag.Warning); err != nil {
		return err
	}
	if diags.HasErrors() {
		return errReported
	}
	return nil
}

// inOneLine makes an error of diagnostics for the log and for smtpctl.
func inOneLine(diags *diag.List) error {
	errs := diags.Of(diag.Error)
	if len(errs) == 0 {
		return nil
	}
	first, _, _ := strings.Cut(diags.Format(errs[0]), "\n")
	if len(errs) > 1 {
		first += fmt.Sprintf(" (and %d more: see smtpd -n)", len(errs)-1)
	}
	return errors.New(first)
}

// plan is a configuration with what was opened for it.
type plan struct {
	gen    mail.Gen
	loaded *load.Loaded
	open   map[string]bool // listeners of this generation
	files  map[proc.Role][]proc.File
	// programs are those of this generation by identity, started the ones of
	// them that did not run before.
	programs map[string]bool
	started  []*program
}

// close closes what was not handed over, and ends what was not committed.
func (pl *plan) close() {
	for _, g := range pl.started {
		g.end()
	}
	for _, files := range pl.files {
		for _, f := range files {
			f.File.Close()
		}
	}
}

// machine is this one, with what lookup would say of maps, and dispatcher of
// certificates.
func machine(now time.Time) load.Machine {
	m := pki.Machine(load.System(), now)
	m.CheckMap, m.Values = mapdb.Check, table.Words(m.Values)
	return m
}

// openAll opens the listeners that are not open yet, and the table files. What
// cannot be opened is in diags.
func (p *Parent) openAll(ctx context.Context, gen mail.Gen, l *load.Loaded, diags *diag.List) *plan {
	pl := &plan{
		gen: gen, loaded: l, open: make(map[string]bool), files: make(map[proc.Role][]proc.File),
		programs: make(map[string]bool),
	}
	for i := range l.Listeners {
		if li := &l.Listeners[i]; !li.Socket {
			p.openListener(ctx, pl, li, diags)
		}
	}
	for _, t := range l.Tables {
		p.openTable(pl, t, diags)
	}
	p.certs = certState(l) // before they are read: what changes meanwhile has changed
	openCerts(pl, diags)
	if !diags.HasErrors() {
		p.openPrograms(ctx, pl, diags)
	}
	return pl
}

func (p *Parent) openListener(ctx context.Context, pl *plan, l *load.Listener, diags *diag.List) {
	pl.open[l.Identity] = true
	if n := l.Listen; p.who.unprivileged && n.Auth != conf.NoAuth && n.AuthTable == "" {
		diags.Errorf(n.Place("auth"), "%v: the system's passwords are read by root alone, which smtpd -S is not: give auth a table", l.Addr)
		return
	}
	if p.open[l.Identity] {
		return
	}
	pos := l.Listen.Place("on")
	if p.who.rootAlone && !l.Local {
		diags.Errorf(pos, "%v: as root without privileges to drop only loopback is served", l.Addr)
		return
	}
	f, err := listen(ctx, l)
	if err != nil {
		diags.Errorf(pos, "%v: %s", l.Addr, reason(err))
		return
	}
	pl.files[proc.Dispatcher] = append(pl.files[proc.Dispatcher], proc.File{Identity: l.Identity, File: f})
}

// listen opens a listening socket: reusable at once after a restart, with the
// longest backlog that the system allows; package net does both.
func listen(ctx context.Context, l *load.Listener) (*os.File, error) {
	network := "tcp4"
	if l.Addr.Addr().Is6() {
		network = "tcp6"
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, network, l.Addr.String())
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	return ln.(*net.TCPListener).File()
}

// openTable opens the file of a table, once for each identity.
func (p *Parent) openTable(pl *plan, t *conf.Table, diags *diag.List) {
	if t.Backend != "file" && t.Backend != "db" {
		return
	}
	id := load.TableIdentity(t)
	for _, f := range pl.files[proc.Lookup] {
		if f.Identity == id {
			return
		}
	}
	f, err := safefile.Open(t.Config)
	if err != nil {
		diags.Errorf(t.Place("config"), "table %s: %s: %s", t.Name, t.Config, reason(err))
		return
	}
	pl.files[proc.Lookup] = append(pl.files[proc.Lookup], proc.File{Identity: id, File: f})
}

// reason returns what the system says, without what was tried.
func reason(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// projection returns a role's part of a configuration.
func projection(role proc.Role, l *load.Loaded) ([]byte, error) {
	switch role {
	case proc.Dispatcher:
		return project.Encode(project.Dispatcher(l))
	case proc.Lookup:
		return project.Encode(project.Lookup(l))
	case proc.Queue:
		return project.Encode(project.Queue(l))
	case proc.Control:
		return project.Encode(project.Control(l))
	case proc.Crypto:
		return project.Encode(project.Crypto(l))
	}
	return nil, fmt.Errorf("no projection for %s", role)
}

// first brings the first generation into force.
func (p *Parent) first(ctx context.Context, l *load.Loaded) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	var diags diag.List
	pl := p.openAll(ctx, 1, l, &diags)
	defer pl.close()
	if diags.HasErrors() {
		source(&diags)
		return p.show(&diags)
	}
	control, err := p.listenControl()
	if err != nil {
		return err
	}
	p.named = true
	pl.files[proc.Control] = []proc.File{{Identity: controlIdentity, File: control}}
	if err := p.hello(ctx); err != nil {
		return err
	}
	if err := p.prepare(ctx, pl); err != nil {
		return err
	}
	if err := p.writePid(); err != nil {
		return err
	}
	return p.commit(ctx, pl)
}

// source gives diags the text of the files that their places are in, to show
// the lines.
func source(diags *diag.List) {
	seen := make(map[string]bool)
	for _, d := range diags.All() {
		name := d.Pos.File
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if text, err := os.ReadFile(name); err == nil {
			diags.Source(name, string(text))
		}
	}
}

// reload reads the configuration again and, when every role has it ready,
// brings it into force; otherwise nothing has changed.
func (p *Parent) reload(ctx context.Context) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	l, diags := p.read(ctx)
	if err := inOneLine(diags); err != nil {
		return err
	}
	if !p.who.unprivileged {
		p.who.operators = operators()
	}
	pl := p.openAll(ctx, p.gen+1, l, diags)
	defer pl.close()
	if err := inOneLine(diags); err != nil {
		return err
	}
	if err := p.giveSyslog(ctx); err != nil {
		return err
	}
	if err := p.prepare(ctx, pl); err != nil {
		return err
	}
	if err := p.commit(ctx, pl); err != nil {
		return err
	}
	p.log.Reloaded(uint32(p.gen))
	return nil
}

// prepare has every role make the generation ready. When one cannot, all forget
// it.
func (p *Parent) prepare(ctx context.Context, pl *plan) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	// Queue may ask for the configuration as soon as it has the number.
	p.mu.Lock()
	p.confs.add(pl.gen, pl.loaded)
	p.mu.Unlock()
	taken := make([][]proc.File, len(p.children))
	for i, c := range p.children {
		taken[i] = pl.files[c.Role]
	}
	clear(pl.files) // from here on they are the children's
	err := p.each(func(i int, c *proc.Child) error {
		b, err := projection(c.Role, pl.loaded)
		if err == nil {
			err = p.giveResources(ctx, c, topology()[i], pl.loaded)
		}
		if err != nil {
			for _, f := range taken[i] {
				f.File.Close()
			}
			return err
		}
		layers, err := c.Prepare(ctx, pl.gen, b, taken[i])
		if pl.gen == 1 && err == nil {
			p.checkLayers(c.Role, layers)
		}
		return err
	})
	if err == nil {
		return nil
	}
	_ = p.each(func(_ int, c *proc.Child) error { return c.Abort(context.Background(), pl.gen) })
	p.mu.Lock()
	delete(p.confs.confs, pl.gen)
	p.mu.Unlock()
	return err
}

// commit makes the prepared generation current in every role: those that
// answer before those that ask, dispatcher last, so that whatever it accepts
// finds the others ready.
func (p *Parent) commit(ctx context.Context, pl *plan) error {
	for stage := stages - 1; stage >= 0; stage-- {
		err := p.each(func(i int, c *proc.Child) error {
			if topology()[i].stage != stage {
				return nil
			}
			return c.Commit(ctx, pl.gen)
		})
		if err != nil {
			return err // a role is gone: the daemon stops
		}
	}
	p.gen, p.open = pl.gen, pl.open
	p.programs.commit(pl.programs, pl.started)
	pl.started = nil
	return nil
}

// checkLayers says so when the system does not confine a role at all.
func (p *Parent) checkLayers(role proc.Role, layers []string) {
	for _, l := range layers {
		switch l {
		case "landlock", "seccomp", "pledge", "capsicum":
			return
		}
	}
	p.log.NotConfined(string(role))
}
