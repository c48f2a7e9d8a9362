package program

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/lookup/table"
)

// maxLine bounds a line of a program: a mailing list may be long.
const maxLine = 1 << 20

// session is the talk with one program from its start to its end.
type session struct {
	c      *Client
	stream io.ReadWriteCloser
	hello  chan struct{} // closed when the program has registered its services
	gone   chan struct{} // closed at the end
	wake   chan struct{} // of write

	mu       sync.Mutex
	services map[table.Service]bool // complete when hello is closed
	out      []byte                 // not written yet
	lastID   uint32
	flight   map[uint32]*flight
	lost     int // of flight: nobody waits for them any more
	// quiet is since when requests wait and nothing is heard, monotonic.
	quiet time.Duration
	over  bool
}

// flight is a request without an answer yet.
type flight struct {
	op     op
	answer chan reply // nil when nobody waits
}

func newSession(c *Client, stream io.ReadWriteCloser) *session {
	s := &session{
		c: c, stream: stream, hello: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1),
		services: make(map[table.Service]bool), flight: make(map[uint32]*flight),
	}
	s.out = appendHello(nil, c.o.Name)
	s.wake <- struct{}{}
	return s
}

// read takes the program's lines until it ends or breaks the rules.
func (s *session) read() error {
	in := bufio.NewReaderSize(s.stream, 64<<10)
	for {
		line, err := readLine(in)
		if err != nil {
			return err
		}
		if err := s.line(line); err != nil {
			return fmt.Errorf("%w: %.80q", err, line)
		}
	}
}

// readLine returns the next line without its end.
func readLine(in *bufio.Reader) (string, error) {
	var whole []byte
	for {
		part, err := in.ReadSlice('\n')
		whole = append(whole, part...)
		switch {
		case len(whole) > maxLine:
			return "", errors.New("a line is too long")
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return "", errors.New("it ended")
		case err != nil:
			return "", err
		}
		return strings.TrimSuffix(string(whole[:len(whole)-1]), "\r"), nil
	}
}

func (s *session) line(line string) error {
	select {
	case <-s.hello:
		r, err := parseReply(line)
		if err != nil {
			return err
		}
		return s.answer(r)
	default:
		return s.register(line)
	}
}

func (s *session) register(line string) error {
	service, ready, err := parseRegister(line)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case ready && len(s.services) == 0:
		return errors.New("it registers no service")
	case ready:
		close(s.hello)
	case service != 0: // one that is not known here is not asked for either
		s.services[service] = true
	}
	return nil
}

// answer gives a reply to who waits for it.
func (s *session) answer(r reply) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flight[r.id]
	if f == nil || !f.op.takes(r.op) {
		return errors.New("an answer to what was not asked")
	}
	delete(s.flight, r.id)
	s.quiet = s.c.o.Clock.Mono()
	if f.answer == nil {
		s.lost--
		return nil
	}
	f.answer <- r
	return nil
}

// write sends what has gathered until the session ends.
func (s *session) write() {
	for {
		select {
		case <-s.wake:
		case <-s.gone:
			return
		}
		s.mu.Lock()
		b := s.out
		s.out = nil
		s.mu.Unlock()
		if _, err := s.stream.Write(b); err != nil {
			s.end(err)
			return
		}
	}
}

// watchHello ends a program that does not say hello in time.
func (s *session) watchHello() {
	late, never := s.c.o.Clock.After(Patience)
	defer never()
	select {
	case <-late:
		s.end(errors.New("it registers no services"))
	case <-s.hello:
	case <-s.gone:
	}
}

// waitHello waits until the program is ready for q.
func (s *session) waitHello(w waiter, q request) error {
	select {
	case <-s.hello:
	case <-s.gone:
		return ErrDown
	case <-w.late:
		return errSilent
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	if q.op != opUpdate && !s.services[q.service] {
		return fmt.Errorf("%w: the program has not registered %s", table.ErrService, q.service)
	}
	return nil
}

// ask sends a request and waits for its answer.
func (s *session) ask(w waiter, q request) (reply, error) {
	f := &flight{op: q.op, answer: make(chan reply, 1)}
	id, ok := s.send(f, q)
	if !ok {
		return reply{}, ErrDown
	}
	select {
	case r := <-f.answer:
		return r, nil
	case <-s.gone:
		return reply{}, ErrDown
	case <-w.late:
		s.giveUp(id)
		s.judge()
		return reply{}, errSilent
	case <-w.ctx.Done():
		s.giveUp(id)
		return reply{}, w.ctx.Err()
	}
}

func (s *session) send(f *flight, q request) (id uint32, ok bool) {
	now := s.c.o.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, false
	}
	if len(s.flight) == s.lost {
		s.quiet = s.c.o.Clock.Mono()
	}
	s.lastID++
	s.flight[s.lastID] = f
	s.out = q.append(s.out, s.c.o.Name, s.lastID, now.Unix(), int64(now.Nanosecond()/1000))
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.lastID, true
}

// giveUp makes a request one that nobody waits for; its answer may still come.
func (s *session) giveUp(id uint32) {
	s.mu.Lock()
	f := s.flight[id]
	if f != nil {
		f.answer = nil
		s.lost++
	}
	many := s.lost > maxLost
	s.mu.Unlock()
	if many {
		s.end(errLost)
	}
}

// judge ends a program that has been silent for long enough when a request is
// late.
func (s *session) judge() {
	s.mu.Lock()
	silent := s.c.o.Clock.Mono()-s.quiet >= Patience
	s.mu.Unlock()
	if silent {
		s.end(errSilent)
	}
}

// end gives the program up because of err and tells so.
func (s *session) end(err error) {
	s.mu.Lock()
	many := len(s.flight) > 1
	s.mu.Unlock()
	if s.stop() {
		s.c.fail(s, err, many)
	}
}

// stop lets all go who wait for the program. It reports false the second time.
func (s *session) stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.over = true
	close(s.gone)
	s.stream.Close()
	return true
}
