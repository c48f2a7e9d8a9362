package filter

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/smtp/server"
)

const (
	// holdSize is how many bytes of lines of one message may wait for its
	// session before the reader of the program waits for that.
	holdSize = 1 << 20
	// burst is how many may come while the session waits for its client, and
	// takes none: what is on its way when a program answers line by line. A
	// program that has more to say before the message has ended is cut off.
	burst = 8 << 20
)

var (
	errLines = errors.New("lines of a message that nobody has asked for")
	errBurst = errors.New("program has more to say of a message than came of it")
	// errBroken closes the connection: of what is left of the session the
	// program would not know what to think.
	errBroken = &mailerr.Error{
		Class: mailerr.Drop, Code: 421, Enhanced: mailerr.Enhanced{4, 3, 0}, Text: "Temporary failure",
		Cause: errors.New("a filter program failed"),
	}
)

// incoming are lines of a message that have come back from a process.
type incoming struct {
	mu    sync.Mutex
	token uint64 // under which they come; 0: none are expected
	past  uint64 // token of a message that was given up
	buf   []byte // lines, each with its end
	busy  bool   // the session takes them now
	over  bool   // the last one has come
	err   error
	taken chan struct{} // closed when buf is taken; nil when nobody waits
}

// begin expects lines under a token.
func (in *incoming) begin(token uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.token, in.over, in.err, in.buf = token, false, nil, nil
}

// end expects no more lines.
func (in *incoming) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.token != 0 && !in.over {
		in.past = in.token
	}
	in.token, in.buf = 0, nil
	in.free()
}

// attend tells whether the session takes lines.
func (in *incoming) attend(busy bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.busy = busy
	if !busy {
		in.free()
	}
}

func (in *incoming) free() {
	if in.taken != nil {
		close(in.taken)
		in.taken = nil
	}
}

// take returns the lines that have come, and whether they are all. It keeps
// spare for those to come.
func (in *incoming) take(spare []byte) (lines []byte, over bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	lines, in.buf = in.buf, spare[:0]
	in.free()
	return lines, in.over, in.err
}

// put adds a line; it returns a channel when the reader should wait.
func (in *incoming) put(token uint64, line []byte) (<-chan struct{}, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case token == in.past && token != 0:
		return nil, nil
	case token != in.token || token == 0 || in.over:
		return nil, errLines
	case in.err != nil:
		return nil, nil
	case len(in.buf) > burst && !in.busy:
		in.err, in.buf = errBurst, nil
		return nil, nil
	}
	in.buf = append(append(in.buf, line...), '\n')
	in.over = len(line) == 1 && line[0] == '.'
	if len(in.buf) < holdSize || !in.busy {
		return nil, nil
	}
	if in.taken == nil {
		in.taken = make(chan struct{})
	}
	return in.taken, nil
}

// arrived takes a line of a message from the process.
func (l *link) arrived(m *said) error {
	line := m.text
	if bytes.IndexByte(line, '\r') >= 0 {
		line = bytes.ReplaceAll(line, []byte{'\r'}, nil) // it would end a line for some
	}
	wait, err := l.lines.put(m.token, line)
	select {
	case l.talk.wake <- struct{}{}:
	default:
	}
	if wait != nil {
		select {
		case <-wait:
		case <-l.process.dead:
		}
	}
	return err
}

// stage is one program that a message passes.
type stage struct {
	link  *link
	head  []byte // of each line to it, less the time
	spare []byte
	over  bool // it has said the last line
}

// passage is a message on its way through the programs that want to see its
// lines. It implements server.LineFilter, in the goroutine of the session.
type passage struct {
	ctx    context.Context
	clock  clock.Clock
	talk   *talk
	stages []stage
	next   func(line []byte)
	buf    []byte
	err    error
}

func newPassage(ctx context.Context, c clock.Clock, t *talk, links []*link, next func([]byte)) *passage {
	p := &passage{ctx: ctx, clock: c, talk: t, next: next, stages: make([]stage, len(links))}
	for i, l := range links {
		token := newToken()
		l.lines.begin(token)
		p.stages[i] = stage{link: l, head: appendLineTail(nil, t.id, token)}
	}
	return p
}

// appendLineTail adds what stands between the time and the text of a line.
func appendLineTail(b []byte, id mail.SessionID, token uint64) []byte {
	b = append(b, "|smtp-in|data-line|"...)
	b = appendHex(b, uint64(id))
	return appendHex(append(b, '|'), token)
}

// Line implements server.LineFilter.
func (p *passage) Line(line []byte) {
	p.busy(true)
	p.feed(0, line)
	p.pump(0)
	p.busy(false)
}

// End implements server.LineFilter.
func (p *passage) End() error {
	p.busy(true)
	defer p.close()
	p.feed(0, []byte{'.'})
	for i := range p.stages {
		p.finish(i)
	}
	if p.err != nil {
		return errBroken
	}
	return nil
}

func (p *passage) busy(is bool) {
	for i := range p.stages {
		p.stages[i].link.lines.attend(is)
	}
}

func (p *passage) close() {
	for i := range p.stages {
		p.stages[i].link.lines.end()
	}
}

// feed gives a line to stage i, or to the message behind the last one.
func (p *passage) feed(i int, line []byte) {
	if p.err != nil {
		return
	}
	if i == len(p.stages) {
		p.emit(line)
		return
	}
	st := &p.stages[i]
	now := p.clock.Now()
	b := append(p.buf[:0], "filter|"+Protocol+"|"...)
	b = appendTime(b, now)
	b = append(b, st.head...)
	b = append(append(append(b, '|'), line...), '\n')
	p.buf = nil // feed is called again while send waits
	// While it has no room, what it says must not have to wait for us.
	if err := st.link.send(p.ctx, b, func() { p.pump(i) }); err != nil {
		p.err = err
	}
	p.buf = b
}

// emit gives a line to the message, as it is without dots.
func (p *passage) emit(line []byte) {
	if len(line) > 0 && line[0] == '.' {
		if line = line[1:]; len(line) == 0 {
			return // the end
		}
	}
	p.next(line)
}

// pump hands on what has come back from stage from and later ones, the last
// first: what is further on its way makes room. It returns when nothing is left:
// while it waits for room it may have been woken for what it does not take then.
func (p *passage) pump(from int) {
	for again := true; again; {
		again = false
		for i := len(p.stages) - 1; i >= from; i-- {
			again = p.drain(i) || again
		}
	}
}

// drain hands on what has come back from stage i; it is false when that was
// nothing.
func (p *passage) drain(i int) bool {
	st := &p.stages[i]
	spare := st.spare
	st.spare = nil
	lines, over, err := st.link.lines.take(spare)
	if err != nil && p.err == nil {
		p.err = err
	}
	rest := lines
	for len(rest) > 0 {
		n := bytes.IndexByte(rest, '\n')
		p.feed(i+1, rest[:n])
		rest = rest[n+1:]
	}
	st.over = over
	if cap(lines) <= keepSize {
		st.spare = lines[:0]
	}
	return len(lines) > 0
}

// finish waits until stage i has said its last line.
func (p *passage) finish(i int) {
	st := &p.stages[i]
	for p.err == nil {
		p.pump(i)
		if st.over {
			return
		}
		if err := p.wait(st.link); err != nil {
			p.pump(i) // what came at the last moment
			if !st.over {
				p.err = err
			}
		}
	}
}

// wait waits until lines have come from any process.
func (p *passage) wait(l *link) error {
	lines := l.process.said.Load()
	late, cancel := p.clock.After(requestTime)
	defer cancel()
	select {
	case <-p.talk.wake:
		return nil
	case <-l.process.dead:
		return errDead
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-late:
		l.process.hung(lines)
		return errSlow
	}
}

// appendTime adds seconds and microseconds.
func appendTime(b []byte, now time.Time) []byte {
	return appendPadded(append(appendPadded(b, uint64(now.Unix()), 1, 10), '.'), uint64(now.Nanosecond()/1000), 6, 10)
}

var _ server.LineFilter = (*passage)(nil)
