// Package parent is the process that keeps root: it reads the configuration,
// opens what the others cannot, starts them, and watches over them.
//
// SECURITY. Parent never reads a byte that came over the network, and never
// changes its own user: what must be done as somebody is done by an agent, a
// process started as him. It trusts the configuration file and /etc/passwd. The
// other roles may be in the hands of an attacker; what they ask for is in the
// tables of deliveries and of control.go, and each answer is made from parent's
// own configuration: they can name a user, an action and a table, not a command
// or a path. Lookup may have a name and a password compared with an account's,
// as strangers have sent them: it learns yes or no, at the pace of a few hashes
// at a time, and no hash leaves this process. A frame that does not parse, or that its sender has no business to
// send, ends with that request or that peer.
package parent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/version"
)

const (
	// grace is how long each stage of the stop may take: sessions finish the
	// command at hand, deliveries the message.
	grace = 10 * time.Second
	// overtime is what a role gets beyond its grace before it is killed.
	overtime = 3 * time.Second
	// prepareTime is how long a role may take to make a configuration ready:
	// tables of millions of lines are read in it.
	prepareTime = 5 * time.Minute
)

// Options are what the command line says.
type Options struct {
	Conf    string // path of smtpd.conf
	Macros  map[string]string
	Paths   paths.Set
	Stderr  bool // log there, not to syslog
	Verbose bool
	Trace   []string
	Paused  []string
}

// errReported is returned when what is wrong was already written to stderr.
var errReported = errors.New("reported")

// Parent is the process.
type Parent struct {
	opt    Options
	stderr io.Writer
	clock  clock.Clock
	log    *mlog.Logger
	stream *mlog.Stream
	syslog *mlog.Syslog // nil with Options.Stderr
	who    identities
	lock   *os.File // of the spool
	named  bool     // the control socket is ours

	users      *Users
	accounts   verifier
	deliveries *Deliveries
	programs   *programs
	children   []*proc.Child // in the order of the topology
	died       chan *proc.Child
	serving    sync.WaitGroup
	endServing context.CancelFunc

	reloading sync.Mutex // one reload at a time; guards what follows
	gen       mail.Gen
	open      map[string]bool // identities of the listeners that dispatcher has
	certs     string          // what the files of certificates were like, see certState
	given     map[proc.Role]map[string]string

	mu      sync.Mutex
	confs   generations
	verbose bool
	traces  map[string]bool
}

// Run is the whole life of parent; it returns the exit status. ready is called
// once the daemon serves.
func Run(ctx context.Context, o Options, stderr io.Writer, ready func()) int {
	p := &Parent{
		opt: o, stderr: stderr, clock: clock.NewSystem(), verbose: o.Verbose,
		died: make(chan *proc.Child, len(topology())), open: make(map[string]bool),
		given: make(map[proc.Role]map[string]string), traces: make(map[string]bool),
	}
	p.accounts = systemAccounts(p.clock)
	for _, t := range o.Trace {
		p.traces[t] = true
	}
	p.stream = mlog.NewStream(stderr)
	defer p.stream.Close(p.clock, time.Second)
	p.log = mlog.New(p, o.Verbose)
	signals := watch()
	defer signals.stop()
	err := p.start(ctx)
	if err == nil {
		ready()
		proc.Code()()
		err = p.watch(ctx, signals)
	}
	p.cleanUp()
	if errors.Is(err, errReported) {
		return proc.ExitFailure
	}
	if err != nil {
		p.fatal(err)
		return proc.ExitFailure
	}
	return proc.ExitOK
}

// Line implements mlog.Sink.
func (p *Parent) Line(pr mlog.Priority, line string) {
	if p.syslog != nil {
		p.syslog.Line(pr, line)
		return
	}
	p.stream.Line(pr, line)
}

// fatal says why the daemon ends, each reason in a line: to the log, and at the
// start to whoever started it too.
func (p *Parent) fatal(err error) {
	for reason := range strings.SplitSeq(err.Error(), "\n") {
		p.log.Fatalf("fatal: smtpd: %s", reason)
		if p.syslog != nil {
			p.stream.Line(mlog.Crit, "smtpd: "+reason)
		}
	}
}

// start brings everything up. Until it returns nothing is served.
func (p *Parent) start(ctx context.Context) error {
	loaded, err := p.load(ctx)
	if err != nil {
		return err
	}
	if !p.opt.Stderr {
		f, err := mlog.DialSyslog()
		if err != nil {
			fmt.Fprintf(p.stderr, "smtpd: warning: syslog: %v\n", err)
		}
		p.syslog = mlog.NewSyslog(f, "smtpd", p.clock)
	}
	if p.who, err = p.identify(ctx); err != nil {
		return err
	}
	if err := p.alone(); err != nil {
		return err
	}
	if err := p.prepareSpool(); err != nil {
		return err
	}
	p.log.Starting(version.Name, version.Number)
	if p.who.rootAlone {
		p.log.NothingDropped(p.opt.Paths.State)
	}
	if err := p.spawn(); err != nil {
		return err
	}
	return p.first(ctx, loaded)
}

// spawn starts the processes of all roles and serves what they ask.
func (p *Parent) spawn() error {
	ctx, cancel := context.WithCancel(context.Background())
	p.endServing = cancel
	p.deliveries = p.newDeliveries()
	p.programs = p.newPrograms()
	table, err := proc.NewTable(append(p.deliveries.Handlers(), p.handlers()...))
	if err != nil {
		return err
	}
	for _, row := range topology() {
		c, err := p.spawnRole(row.role)
		if err != nil {
			return err
		}
		p.children = append(p.children, c)
		p.serving.Go(func() {
			if err := c.Peer.Serve(ctx, table); err != nil {
				p.log.PeerBroken(string(proc.Parent), string(c.Role), err)
			}
		})
		p.serving.Go(func() {
			<-c.Done()
			p.died <- c
		})
	}
	p.serving.Go(func() { p.keepCerts(ctx) })
	return nil
}

// spawnRole starts one process. What it writes to stderr is a crash, as a rule,
// and goes to the log.
func (p *Parent) spawnRole(role proc.Role) (*proc.Child, error) {
	s := proc.Start{Env: environment()}
	if p.opt.Stderr {
		s.Stderr = os.Stderr
		return proc.Spawn(role, s, p.clock, p.log)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	s.Stderr = w
	c, err := proc.Spawn(role, s, p.clock, p.log)
	if err != nil {
		r.Close()
		return nil, err
	}
	p.serving.Go(func() { p.logOutput(string(role), r) })
	return c, nil
}

// child returns the process of a role.
func (p *Parent) child(role proc.Role) *proc.Child {
	for _, c := range p.children {
		if c.Role == role {
			return c
		}
	}
	return nil
}

// watch waits for what happens: signals, and roles that die. It stops the
// daemon before it returns; nil means that this was asked for.
func (p *Parent) watch(ctx context.Context, s signals) error {
	for {
		select {
		case <-s.hangup:
			p.serving.Go(func() {
				if err := p.reload(ctx); err != nil {
					p.log.ReloadFailed(err)
				}
			})
		case <-s.terminate:
			p.log.Exiting()
			p.shutdown(s)
			return nil
		case <-ctx.Done():
			p.shutdown(s)
			return nil
		case c := <-p.died:
			how := c.Exited()
			if how == "" {
				how = "exited"
			}
			p.log.LostProcess(string(c.Role), how)
			p.shutdown(s)
			return errReported
		}
	}
}

// shutdown ends the roles stage by stage: those that take mail in before those
// that they need. A second signal kills.
func (p *Parent) shutdown(s signals) {
	p.programs.retire()
	for stage := range stages {
		var waiting []*proc.Child
		for i, row := range topology() {
			if c := p.children[i]; row.stage == stage && !ended(c) {
				_ = c.Shutdown(context.Background()) // who is gone needs none
				waiting = append(waiting, c)
			}
		}
		p.await(waiting, s)
	}
}

func ended(c *proc.Child) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// await waits until the processes have ended, and kills those that take too
// long.
func (p *Parent) await(children []*proc.Child, s signals) {
	late, cancel := p.clock.After(grace + overtime)
	defer cancel()
	for _, c := range children {
		select {
		case <-c.Done():
			if how := c.Exited(); how != "" {
				p.log.LostProcess(string(c.Role), how)
			}
			continue
		case <-late:
		case <-s.terminate:
		}
		for _, c := range children {
			c.Kill()
		}
		<-c.Done()
	}
}

// cleanUp ends what is left, whatever came before.
func (p *Parent) cleanUp() {
	for _, c := range p.children {
		c.Kill()
		<-c.Done()
	}
	if p.programs != nil {
		p.programs.close()
	}
	if p.deliveries != nil {
		p.deliveries.Close()
	}
	if p.endServing != nil {
		p.endServing()
	}
	p.serving.Wait()
	p.removeNames()
	if p.lock != nil {
		p.lock.Close()
	}
}

// hello greets every role, connects them to each other and hands over what a
// chroot hides.
func (p *Parent) hello(ctx context.Context) error {
	err := p.each(func(i int, c *proc.Child) error {
		err := c.Hello(ctx, p.helloOf(topology()[i]))
		if errors.Is(err, proc.ErrOtherBuild) {
			p.log.OtherBuild(proc.Title(string(c.Role)))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, l := range links() {
		if err := proc.Link(ctx, p.child(l[0]), p.child(l[1])); err != nil {
			return err
		}
	}
	if err := p.giveSyslog(ctx); err != nil {
		return err
	}
	lock, err := dup(p.lock)
	if err != nil {
		return err
	}
	return p.child(proc.Queue).GiveFile(ctx, msg.ResourceLock, lock)
}

func (p *Parent) helloOf(row role) *msg.Hello {
	h := &msg.Hello{
		Verbose: p.opt.Verbose, Syslog: !p.opt.Stderr, Trace: p.opt.Trace, Paused: p.opt.Paused,
		Zone: zoneName(), GraceMillis: uint32(grace.Milliseconds()), Unprivileged: p.who.unprivileged,
	}
	u := p.who.daemon
	h.Chroot = p.opt.Paths.Chroot
	if row.role == proc.Queue {
		u = p.who.queue
		h.Chroot, h.Dir = p.opt.Paths.Spool, p.opt.Paths.Spool
	}
	h.UID, h.GID = u.UID, u.GID
	return h
}

// each does something with all roles at once and returns what went wrong with
// the first in the order of the topology.
func (p *Parent) each(do func(int, *proc.Child) error) error {
	errs := make([]error, len(p.children))
	var wg sync.WaitGroup
	for i, c := range p.children {
		wg.Go(func() { errs[i] = do(i, c) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// dup returns another descriptor for the same open file.
func dup(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
