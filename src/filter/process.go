package filter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/mail"
)

const (
	// handshakeTime is how long a program may take to say what it wants to be
	// told: Perl and Python start within it on a machine that is busy.
	handshakeTime = 30 * time.Second
	// requestTime is how long a program may think about a session, and rest
	// between two lines of a message: shorter than the patience of clients (RFC
	// 5321 section 4.5.3.2).
	requestTime = 4 * time.Minute
	// maxSaid is the longest line of a program: the longest of a message, and
	// what stands before it.
	maxSaid = 65535 + 128
)

var (
	errDead     = errors.New("program is gone")
	errSlow     = errors.New("program does not answer")
	errTooLong  = errors.New("line too long")
	errTooEarly = errors.New("a line before register|ready")
	errTooLate  = errors.New("register after register|ready")
)

// process is one life of a program.
type process struct {
	program *Program
	nc      net.Conn
	out     *outbox
	hooks   hooks         // not changed once ready is closed
	said    atomic.Uint64 // how many lines it has said
	ready   chan struct{} // closed after the handshake
	dead    chan struct{} // closed when nothing more comes of it
	calm    func()        // ends the wait for the handshake
	die     sync.Once

	mu      sync.Mutex
	links   map[mail.SessionID]*link
	leaving bool // it is to end when no session needs it
}

// newProcess begins to talk to a program behind nc.
func newProcess(g *Program, nc net.Conn) *process {
	p := &process{
		program: g, nc: nc, out: newOutbox(), links: make(map[mail.SessionID]*link),
		ready: make(chan struct{}), dead: make(chan struct{}),
	}
	late, calm := g.owner.clock.After(handshakeTime)
	p.calm = calm
	p.out.add(g.greeting())
	wg := &g.owner.wg
	wg.Go(func() { p.fail(p.out.run(nc)) })
	wg.Go(func() { p.fail(p.listen()) })
	wg.Go(func() { p.hurry(late) })
	return p
}

// greeting is what a program is told first.
func (g *Program) greeting() []byte {
	b := fmt.Appendf(nil, "config|smtpd-version|%s\nconfig|protocol|%s\nconfig|smtp-session-timeout|%d\n", smtpdVersion, Protocol, 300)
	for d, used := range [...]bool{smtpIn: g.told.In, smtpOut: g.told.Out} {
		if used {
			b = append(append(append(b, "config|subsystem|"...), direction(d).String()...), '\n')
		}
	}
	return append(appendLast(append(b, "config|admd"...), g.told.ADMD), "config|ready\n"...)
}

// hurry ends a program that takes too long for the handshake.
func (p *process) hurry(late <-chan struct{}) {
	defer p.calm()
	select {
	case <-p.ready:
	case <-p.dead:
	case <-late:
		p.fail(errors.New("no register|ready"))
	}
}

// listen reads what the program says; it returns why it stopped.
func (p *process) listen() error {
	in := bufio.NewReaderSize(p.nc, maxSaid)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			return errTooLong
		case err != nil:
			return err
		}
		p.said.Add(1)
		line = line[:len(line)-1]
		if err := p.hear(line); err != nil {
			return fmt.Errorf("%w: %.100q", err, line)
		}
	}
}

// hear takes one line of the program.
func (p *process) hear(line []byte) error {
	m, err := parse(line)
	if err != nil {
		return err
	}
	ready := p.isReady()
	switch {
	case m.kind == saidRegister && ready:
		return errTooLate
	case m.kind == saidRegister:
		done, err := p.hooks.register(string(m.text))
		if done {
			p.program.owner.log.FilterReady(p.program.name)
			p.calm()
			close(p.ready)
		}
		return err
	case !ready:
		return errTooEarly
	}
	p.mu.Lock()
	l := p.links[m.session]
	p.mu.Unlock()
	if l == nil {
		return nil // the session has ended meanwhile
	}
	switch m.kind {
	case saidResult:
		return l.answered(&m)
	case saidLine:
		return l.arrived(&m)
	}
	l.talk.mention(p.program.name, string(m.text), p.program.owner.clock.Now())
	return nil
}

// hung gives up a process that has said nothing, to nobody, while somebody waited
// in vain; at the beginning it had said so many lines.
func (p *process) hung(lines uint64) {
	if p.said.Load() == lines {
		p.fail(errSlow)
	}
}

func (p *process) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// fail ends the process, as far as sessions are concerned, and has parent end it
// altogether.
func (p *process) fail(err error) {
	p.die.Do(func() {
		p.mu.Lock()
		leaving := p.leaving
		p.mu.Unlock()
		close(p.dead)
		p.out.close()
		_ = p.nc.Close() // it is of no use any more
		if errors.Is(err, io.EOF) || err == nil {
			err = errDead
		}
		p.program.lost(p, err, leaving)
	})
}

// leave ends the process once its last session has ended, and it was told so.
func (p *process) leave() {
	p.mu.Lock()
	p.leaving = true
	idle := len(p.links) == 0
	p.mu.Unlock()
	if idle {
		p.out.finish()
	}
}

// join makes a session known to the process.
func (p *process) join(t *talk) *link {
	l := &link{process: p, id: t.id, talk: t, answer: make(chan said, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[t.id] = l
	return l
}

// part forgets a session: what is still said about it is not heard.
func (p *process) part(l *link) {
	p.mu.Lock()
	delete(p.links, l.id)
	last := p.leaving && len(p.links) == 0
	p.mu.Unlock()
	l.lines.end()
	if last {
		p.out.finish()
	}
}
