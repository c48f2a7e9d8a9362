package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/priv"
)

// flushTime is how long the last log lines may take to be written.
const flushTime = time.Second

// Constructor makes the program of a role.
type Constructor func(Env) (Program, error)

// life is a role's process from its Hello to its end.
type life struct {
	hello  msg.Hello
	role   Role
	clock  clock.Clock
	log    *mlog.Logger
	stream *mlog.Stream // stderr
	syslog *mlog.Syslog // where lines go instead, unless nil
	traces atomic.Pointer[map[string]bool]

	parent  *Peer
	peers   map[Role]*Peer
	keep    []*os.File // held open until the end: the lock of the spool
	next    Conf       // pieces of the generation that is being prepared
	joining []byte     // pieces of the resource that is coming
	program Program

	steps     chan func(context.Context) // of the configuration, in order
	committed chan struct{}              // closed when the first generation is in force
	once      sync.Once
	stop      context.CancelFunc // of Run
	forget    func()             // gives back the code that the start needed
}

// Run lives the life of a role: it takes what parent sends, makes the program,
// drops privileges, and works until parent says to stop, or is gone. It returns
// the exit status.
func (b *Birth) Run(construct Constructor, c clock.Clock, stderr io.Writer) int {
	whileFree()
	l := &life{
		hello: b.Hello, role: b.Role(), clock: c, stream: mlog.NewStream(stderr),
		peers: make(map[Role]*Peer), committed: make(chan struct{}), steps: make(chan func(context.Context), 8),
	}
	defer l.stream.Close(c, flushTime)
	if b.Hello.Syslog {
		l.syslog = mlog.NewSyslog(nil, "smtpd", c)
	}
	l.log = mlog.New(l, b.Hello.Verbose)
	l.setTraces(b.Hello.Trace)
	l.parent = NewPeer(l.role, Parent, b.conn, c, l.log)
	defer l.parent.Close()
	call, err := l.gather()
	if err == nil {
		err = l.become(construct, call)
	}
	if err == nil {
		err = l.work()
	}
	if err != nil {
		l.log.Fatalf("fatal: %s: %v", l.role, err)
		return ExitFailure
	}
	l.log.ProcessExiting(string(l.role))
	return ExitOK
}

// Line implements mlog.Sink.
func (l *life) Line(p mlog.Priority, line string) {
	if l.syslog != nil {
		l.syslog.Line(p, line)
		return
	}
	l.stream.Line(p, line)
}

func (l *life) setTraces(names []string) {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	l.traces.Store(&m)
}

func (l *life) trace(name string) bool {
	m := *l.traces.Load()
	return m[name] || m["all"]
}

// gather takes what comes before the first Prepare and returns its call.
func (l *life) gather() (uint64, error) {
	for {
		f, err := l.parent.conn.Next()
		if err != nil {
			return 0, fmt.Errorf("parent: %w", err)
		}
		r := &request{peer: l.parent, head: f.Header, body: f.Body, file: f.File}
		if r.Type() == msg.TypePrepare {
			var m msg.Prepare
			l.next.Gen = m.Gen
			if err := r.Parse(&m); err != nil {
				return 0, err
			}
			l.next.Gen = m.Gen
			return f.Call, nil
		}
		err = l.take(r)
		r.leave()
		if err != nil {
			return 0, err
		}
		l.parent.took(imsg.HeaderSize + len(f.Body))
	}
}

// take keeps one piece of what parent hands over.
func (l *life) take(r Request) error {
	switch r.Type() {
	case msg.TypePeer:
		return l.takePeer(r)
	case msg.TypeResource:
		return l.takeResource(r)
	case msg.TypeFile:
		var m msg.File
		if err := r.Parse(&m); err != nil {
			return err
		}
		f := r.File()
		if f == nil {
			return fmt.Errorf("no descriptor came with %q", m.Identity)
		}
		l.next.Files = append(l.next.Files, File{m.Identity, f})
		return nil
	case msg.TypeConf:
		var m msg.Conf
		if err := r.Parse(&m); err != nil {
			return err
		}
		l.next.Projection = append(l.next.Projection, m.Data...)
		return nil
	}
	return fmt.Errorf("message %d at the start", r.Type())
}

func (l *life) takePeer(r Request) error {
	var m msg.Peer
	if err := r.Parse(&m); err != nil {
		return err
	}
	f := r.File()
	if f == nil || l.peers[Role(m.Role)] != nil {
		closeFile(f)
		return fmt.Errorf("no socket, or a second one, to %q", m.Role)
	}
	conn, err := imsg.NewConn(f)
	if err != nil {
		f.Close()
		return err
	}
	l.peers[Role(m.Role)] = NewPeer(l.role, Role(m.Role), conn, l.clock, l.log)
	return nil
}

func (l *life) takeResource(r Request) error {
	var m msg.Resource
	if err := r.Parse(&m); err != nil {
		return err
	}
	l.joining = append(l.joining, m.Data...)
	if m.More {
		return nil
	}
	data := l.joining
	l.joining = nil
	res := &l.next.Resources
	switch m.Name {
	case msg.ResourceCABundle:
		res.CABundle = data
	case msg.ResourceResolvConf:
		res.ResolvConf = data
	case msg.ResourceHosts:
		res.Hosts = data
	case msg.ResourceUIDs:
		return res.setUIDs(string(data))
	case msg.ResourceOperators:
		return res.setOperators(string(data))
	case msg.ResourceSyslog:
		if f := r.File(); l.syslog != nil {
			l.syslog.Replace(f)
		} else {
			closeFile(f)
		}
	case msg.ResourceLock:
		if f := r.File(); f != nil {
			l.keep = append(l.keep, f)
		}
	default:
		return fmt.Errorf("unknown resource %q", m.Name)
	}
	return nil
}

func (r *Resources) setUIDs(text string) error {
	r.UIDs = make(map[string]uint32)
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		uid, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return fmt.Errorf("uid of %q: %w", name, err)
		}
		r.UIDs[name] = uint32(uid)
	}
	return nil
}

func (r *Resources) setOperators(text string) error {
	r.Operators = nil
	for _, w := range strings.Fields(text) {
		uid, err := strconv.ParseUint(w, 10, 32)
		if err != nil {
			return fmt.Errorf("operators: %w", err)
		}
		r.Operators = append(r.Operators, uint32(uid))
	}
	return nil
}

// takeNext returns the gathered configuration and begins a new one.
func (l *life) takeNext(gen mail.Gen) Conf {
	c := l.next
	c.Gen = gen
	c.Resources.Zone = l.hello.Zone
	l.next = Conf{Resources: c.Resources}
	return c
}

// env is what the program is made from.
func (l *life) env(c Conf) Env {
	e := Env{
		Role: l.role, Clock: l.clock, Log: l.log, Conf: c,
		Peers: map[Role]Caller{Parent: l.parent},
		Dir:   "/", Paused: l.hello.Paused,
		Unprivileged: l.hello.Unprivileged, Trace: l.trace,
		Grace: time.Duration(l.hello.GraceMillis) * time.Millisecond,
	}
	if l.hello.Unprivileged {
		e.Dir = l.hello.Dir
	}
	for role, p := range l.peers {
		e.Peers[role] = p
	}
	return e
}

// become makes the program, drops privileges and answers the first Prepare.
func (l *life) become(construct Constructor, call uint64) error {
	program, err := construct(l.env(l.takeNext(l.next.Gen)))
	var confined priv.Result
	if err == nil {
		l.program = program
		l.forget = Code()
		confined, err = priv.Confine(priv.Options{
			Role: string(l.role), Chroot: l.hello.Chroot, UID: l.hello.UID, GID: l.hello.GID,
			Unprivileged: l.hello.Unprivileged, Dir: l.hello.Dir,
		})
	}
	ready := &msg.Ready{Layers: confined.Layers}
	if err != nil {
		ready.Err = mailerr.Local(err)
	} else {
		l.log.Confined(string(l.role), confined.Layers, confined.Missing)
	}
	h := imsg.Header{Type: uint16(msg.TypeReady), Flags: imsg.FlagReply, Call: call}
	if _, perr := l.parent.conn.Put(h, ready, nil); perr != nil {
		return errors.Join(err, perr)
	}
	l.parent.Flush()
	return err
}

// work serves parent, and, once the first generation is in force, everybody
// else, and runs the program.
func (l *life) work() error {
	table, err := NewTable(append(l.program.Handlers(), l.rows()...))
	if err != nil {
		return err
	}
	serving, endServing := context.WithCancel(context.Background())
	running, end := context.WithCancelCause(serving)
	l.stop = func() { end(nil) }
	defer l.stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer endServing()
	wg.Go(func() {
		defer end(errOrphaned) // a parent that is gone stops us
		l.serve(serving, l.parent, table)
	})
	wg.Go(func() { l.step(serving) })
	select {
	case <-l.committed:
	case <-running.Done():
		return nil
	}
	for _, p := range l.peers {
		wg.Go(func() { l.serve(serving, p, table) })
	}
	err = l.run(running)
	for _, p := range l.peers { // the results of the last deliveries, say
		p.Flush()
	}
	l.parent.Flush()
	return err
}

func (l *life) serve(ctx context.Context, p *Peer, table *Table) {
	if err := p.Serve(ctx, table); err != nil {
		l.log.PeerBroken(string(l.role), string(p.Role()), err)
	}
}

// startTime is how long a program that runs is taken to be starting, for files to
// be opened and what was left undone to be found.
const startTime = 500 * time.Millisecond

// run runs the program and sees to it that it ends within its grace.
func (l *life) run(ctx context.Context) error {
	result := make(chan error, 1)
	go func() { result <- l.program.Run(ctx) }()
	started, cancel := l.clock.After(startTime)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case err := <-result:
			if err == nil && ctx.Err() == nil {
				return errors.New("ended by itself")
			}
			return err
		case <-started:
			l.forget()
			started = nil
		case <-ctx.Done():
		}
	}
	grace := graceAfter(ctx, time.Duration(l.hello.GraceMillis)*time.Millisecond)
	late, cancel := l.clock.After(grace + flushTime)
	defer cancel()
	select {
	case err := <-result:
		return err
	case <-late:
		// The goroutine ends with the process.
		return errors.New("did not finish in time")
	}
}

// rows are what parent sends during the life, beside what the program takes.
func (l *life) rows() []Handler {
	gather := func(_ context.Context, r Request) {
		if err := l.take(r); err != nil {
			l.log.RequestFailed(string(l.role), string(Parent), uint16(r.Type()), err)
		}
	}
	return []Handler{
		{Parent, msg.TypeResource, false, gather},
		{Parent, msg.TypeFile, false, gather},
		{Parent, msg.TypeConf, false, gather},
		{Parent, msg.TypePrepare, false, l.prepare},
		{Parent, msg.TypeCommitConf, false, l.commit},
		{Parent, msg.TypeAbortConf, false, l.abort},
		{Parent, msg.TypeShutdown, false, func(context.Context, Request) { l.stop() }},
		{Parent, msg.TypeVerbose, false, l.verbose},
	}
}

// step does what the configuration asks for, one after the other, beside the
// goroutine that reads from parent.
func (l *life) step(ctx context.Context) {
	for {
		select {
		case do := <-l.steps:
			do(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// queueStep hands a step over, or fails the request when parent sends more than
// it may.
func (l *life) queueStep(r Request, do func(context.Context)) {
	select {
	case l.steps <- do:
	default:
		r.Fail(mailerr.Local(errors.New("too many changes of the configuration at once")))
	}
}

func (l *life) prepare(_ context.Context, r Request) {
	var m msg.Prepare
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	c := l.takeNext(m.Gen)
	l.queueStep(r, func(ctx context.Context) {
		var ready msg.Ready
		if err := l.program.Prepare(ctx, c); err != nil {
			ready.Err = mailerr.Local(err)
		}
		r.Reply(&ready)
	})
}

func (l *life) commit(_ context.Context, r Request) {
	var m msg.CommitConf
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	l.queueStep(r, func(context.Context) {
		first := false
		l.once.Do(func() {
			first = true
			close(l.committed)
		})
		if !first {
			l.program.Commit(m.Gen)
		}
		r.Reply(&msg.Ready{})
	})
}

func (l *life) abort(_ context.Context, r Request) {
	var m msg.AbortConf
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	for _, f := range l.next.Files {
		f.File.Close()
	}
	l.next = Conf{Resources: l.next.Resources}
	l.joining = nil
	l.queueStep(r, func(context.Context) { l.program.Abort(m.Gen) })
}

func (l *life) verbose(_ context.Context, r Request) {
	var m msg.Verbose
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	l.log.SetVerbose(m.Verbose)
	l.setTraces(m.Trace)
}
