// Package dovecot has passwords verified by Dovecot, over the socket that it has
// for mail servers (its "auth-client" protocol, version 1). A line is fields with
// tabs between them:
//
//	server  VERSION 1 2, MECH PLAIN plaintext, … DONE
//	client  VERSION 1 2, CPID pid
//	client  AUTH id PLAIN service=smtp resp=base64
//	server  OK id user=name …  |  FAIL id … [temp]  |  CONT id challenge
//
// Who may connect is decided by the mode of the socket; parent opens it. A
// connection that breaks is made anew for the next question.
package dovecot

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/table"
)

const (
	// patience is how long Dovecot may take. It answers a wrong password late on
	// purpose.
	patience = 30 * time.Second
	// maxLine is the longest line of Dovecot's, in bytes.
	maxLine = 16 << 10
	// maxID is where numbers of requests begin again.
	maxID = 1 << 30
)

var (
	errGone   = errors.New("dovecot has closed the connection")
	errLate   = errors.New("dovecot does not answer")
	errSyntax = errors.New("dovecot does not speak its protocol")
	errMech   = errors.New("dovecot does not offer PLAIN on this socket")
)

// Client is a table that serves the auth service alone.
type Client struct {
	name  string
	clock clock.Clock
	open  func(context.Context) (io.ReadWriteCloser, error)

	mu     sync.Mutex
	now    *session
	closed bool
	work   sync.WaitGroup
}

var _ table.Table = (*Client)(nil)

// New returns a table that connects, with open, when it is asked first.
func New(name string, c clock.Clock, open func(context.Context) (io.ReadWriteCloser, error)) *Client {
	return &Client{name: name, clock: c, open: open}
}

// Name implements table.Table.
func (c *Client) Name() string { return c.name }

// Lookup implements table.Table.
func (c *Client) Lookup(context.Context, table.Service, string) (string, bool, error) {
	return "", false, table.ErrService
}

// Fetch implements table.Table.
func (c *Client) Fetch(context.Context, table.Service) (string, bool, error) {
	return "", false, table.ErrService
}

// Match implements table.Table: key is a user and his password, with a colon
// between them.
func (c *Client) Match(ctx context.Context, s table.Service, key string) (bool, error) {
	if s != table.Auth {
		return false, table.ErrService
	}
	user, password, _ := strings.Cut(key, ":")
	if strings.ContainsAny(key, "\x00\r\n") {
		return false, nil
	}
	for again := false; ; again = true {
		s, fresh, err := c.session(ctx)
		if err != nil {
			return false, err
		}
		ok, err := s.verify(ctx, user, password)
		// The connection may have gone since it was used last.
		if !errors.Is(err, errGone) || fresh || again {
			return ok, err
		}
	}
}

// Close ends the connection.
func (c *Client) Close() {
	c.mu.Lock()
	s := c.now
	c.closed, c.now = true, nil
	c.mu.Unlock()
	if s != nil {
		s.end(errGone)
	}
	c.work.Wait()
}

// session returns the connection, a fresh one if need be.
func (c *Client) session(ctx context.Context) (s *session, fresh bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, errGone
	}
	if c.now != nil && !c.now.over() {
		return c.now, false, nil
	}
	stream, err := c.open(ctx)
	if err != nil {
		return nil, false, err
	}
	s = &session{stream: stream, clock: c.clock, ready: make(chan struct{}), gone: make(chan struct{}), asked: make(map[int]chan reply)}
	c.now = s
	c.work.Go(func() { s.end(s.read()) })
	return s, true, nil
}

// session is one connection.
type session struct {
	stream io.ReadWriteCloser
	clock  clock.Clock
	ready  chan struct{} // closed at DONE
	gone   chan struct{} // closed at the end

	writing sync.Mutex // of whole lines

	mu    sync.Mutex
	why   error // of the end
	plain bool  // PLAIN is offered
	last  int   // number of a request
	asked map[int]chan reply
}

// reply is a verdict: temporary trouble when err is set.
type reply struct {
	ok  bool
	err error
}

func (s *session) over() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// end gives up on the connection, once.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil {
		s.why = why
		close(s.gone)
		s.stream.Close()
	}
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// verify asks about one password.
func (s *session) verify(ctx context.Context, user, password string) (bool, error) {
	late, never := s.clock.After(patience)
	defer never()
	select {
	case <-s.ready:
	case <-s.gone:
		return false, s.reason()
	case <-late:
		s.end(errLate)
		return false, errLate
	case <-ctx.Done():
		return false, ctx.Err()
	}
	id, answer, err := s.ask(user, password)
	if err != nil {
		return false, err
	}
	defer s.forget(id)
	select {
	case r := <-answer:
		return r.ok, r.err
	case <-s.gone:
		select {
		case r := <-answer: // it came before the end
			return r.ok, r.err
		default:
			return false, s.reason()
		}
	case <-late:
		s.end(errLate) // a verdict for the next one must not be taken from this one
		return false, errLate
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *session) ask(user, password string) (id int, answer chan reply, err error) {
	s.mu.Lock()
	if !s.plain {
		s.mu.Unlock()
		return 0, nil, errMech
	}
	s.last = s.last%maxID + 1
	id, answer = s.last, make(chan reply, 1)
	s.asked[id] = answer
	s.mu.Unlock()
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	line := fmt.Sprintf("AUTH\t%d\tPLAIN\tservice=smtp\tsecured\tresp=%s\n", id, response)
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := io.WriteString(s.stream, line); err != nil {
		s.forget(id)
		s.end(errGone) // so that the next question gets a connection of its own
		return 0, nil, s.reason()
	}
	return id, answer, nil
}

func (s *session) forget(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asked, id)
}

// read takes lines until something is wrong.
func (s *session) read() error {
	if _, err := fmt.Fprintf(s.stream, "VERSION\t1\t2\nCPID\t%d\n", os.Getpid()); err != nil {
		return errGone
	}
	in := bufio.NewReaderSize(s.stream, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return errSyntax
		case err != nil:
			return errGone
		}
		if err := s.line(strings.Split(strings.TrimSuffix(string(line), "\n"), "\t")); err != nil {
			return err
		}
	}
}

// line takes one line, cut into its fields.
func (s *session) line(f []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f[0] {
	case "VERSION":
		if len(f) < 3 || f[1] != "1" {
			return fmt.Errorf("%w: version %q", errSyntax, f[1:])
		}
	case "MECH":
		s.plain = s.plain || len(f) > 1 && f[1] == "PLAIN"
	case "DONE":
		select {
		case <-s.ready:
			return errSyntax
		default:
			close(s.ready)
		}
	case "OK", "FAIL", "CONT":
		return s.verdict(f)
	}
	return nil // what else it tells of itself
}

func (s *session) verdict(f []string) error {
	if len(f) < 2 {
		return errSyntax
	}
	id, err := strconv.Atoi(f[1])
	if err != nil {
		return errSyntax
	}
	answer := s.asked[id]
	delete(s.asked, id)
	if answer == nil {
		return nil // nobody waits for it any more
	}
	r := reply{ok: f[0] == "OK"}
	if f[0] == "CONT" {
		r.err = errSyntax // PLAIN has no further step
	}
	for _, word := range f[2:] {
		if f[0] == "FAIL" && word == "temp" {
			r.err = errors.New("dovecot cannot tell for the time being")
		}
	}
	answer <- r
	return nil
}
