package filter

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/smtp/server"
)

// link is what binds a session to a process. The session's goroutine asks and
// tells, the process's reader answers.
type link struct {
	process *process
	id      mail.SessionID
	talk    *talk
	answer  chan said // to the request that is out
	lines   incoming

	mu     sync.Mutex
	token  uint64 // of the request that is out; 0: none is
	missed uint64 // of one that was waited for in vain
}

// talk is a session and its links.
type talk struct {
	id        mail.SessionID
	direction direction
	wake      chan struct{} // receives when lines have come from a process

	mu    sync.Mutex
	links []*link // one for each program; nil: it was not there
}

func newTalk(id mail.SessionID, d direction) *talk {
	return &talk{id: id, direction: d, wake: make(chan struct{}, 1)}
}

// connect makes the session known to programs.
func (t *talk) connect(programs []*Program) {
	links := make([]*link, len(programs))
	for i, g := range programs {
		links[i] = g.join(t)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links = links
}

func (t *talk) all() []*link {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.links
}

// end takes leave of the programs.
func (t *talk) end() {
	for _, l := range t.all() {
		if l != nil {
			l.process.part(l)
		}
	}
}

// tell tells the programs that want to hear it of an event; rest adds what
// stands behind the session, line end included.
func (t *talk) tell(k server.EventKind, now time.Time, rest func([]byte) []byte) {
	var line []byte
	for _, l := range t.all() {
		if l == nil || !l.process.hooks.hears(t.direction, k) || l.process.isDead() {
			continue
		}
		if line == nil {
			line = rest(appendHead(nil, "report", now, t.direction, eventNames[k], t.id))
		}
		// What a program that is gone does not hear does not matter.
		_ = l.send(context.Background(), line, nil)
	}
}

// mention passes on what a program reports. It is called by the reader of a
// process, and so waits for nobody: a program whose queue is full misses it.
func (t *talk) mention(name, text string, now time.Time) {
	line := appendHead(nil, "report", now, t.direction, eventNames[filterReport], t.id)
	line = appendReport(line, "proc", name, text)
	for _, l := range t.all() {
		if l != nil && l.process.hooks.hears(t.direction, filterReport) {
			_ = l.process.out.add(line)
		}
	}
}

func appendReport(b []byte, kind, name, text string) []byte {
	return appendLast(appendField(appendField(b, kind), name), text)
}

var errToken = errors.New("an answer that nobody has asked for")

// newToken returns a number by which an answer is known.
func newToken() uint64 { return rand.Uint64() | 1 }

// send gives the process a line, waiting while its queue is full. meanwhile is
// called whenever lines have come from a process; it may be nil.
func (l *link) send(ctx context.Context, line []byte, meanwhile func()) error {
	room := l.process.out.add(line)
	if room == nil {
		return nil
	}
	late, cancel := l.process.program.owner.clock.After(requestTime)
	defer cancel()
	for room != nil {
		select {
		case <-room:
		case <-l.wakes(meanwhile):
			meanwhile()
		case <-l.process.dead:
			return errDead
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			l.process.fail(errSlow)
			return errSlow
		}
		room = l.process.out.add(line)
	}
	return nil
}

// wakes returns the channel that tells of lines, unless nobody wants to know.
func (l *link) wakes(meanwhile func()) <-chan struct{} {
	if meanwhile == nil {
		return nil
	}
	return l.talk.wake
}

// ask sends a request, whose line ends with the token, and waits for the answer.
// rest is what comes behind the token.
func (l *link) ask(ctx context.Context, head []byte, rest func([]byte) []byte) (said, error) {
	token, lines := newToken(), l.process.said.Load()
	l.mu.Lock()
	l.token = token
	l.mu.Unlock()
	if err := l.send(ctx, rest(appendHex(append(head, '|'), token)), nil); err != nil {
		l.giveUp()
		return said{}, err
	}
	late, cancel := l.process.program.owner.clock.After(requestTime)
	defer cancel()
	var err error
	select {
	case m := <-l.answer:
		return m, nil
	case <-l.process.dead:
		err = errDead
	case <-ctx.Done():
		err = ctx.Err()
	case <-late:
		err = errSlow
		l.process.hung(lines)
	}
	l.giveUp()
	return said{}, err
}

// giveUp waits for the answer to the last request no longer. Its coming is no
// fault.
func (l *link) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token != 0 {
		l.missed, l.token = l.token, 0
		return
	}
	select { // it came at the last moment
	case <-l.answer:
	default:
	}
}

// answered takes the answer to a request.
func (l *link) answered(m *said) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m.token {
	case 0: // the one that stands for none
	case l.token:
		l.token = 0
		m.text = append([]byte(nil), m.text...)
		l.answer <- *m // there is room: one request is out at a time
		return nil
	case l.missed:
		l.missed = 0
		return nil
	}
	return errToken
}
