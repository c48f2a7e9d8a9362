// Package program asks table programs, smtpd-tables(7): the back ends of
// table(5) that are not built in. A program is started and restarted by parent;
// what is here speaks to it by its standard input and output.
//
// Many requests are in flight at a time. Each has a deadline. A program that
// says nothing until then, says what is not of the protocol, or ends, is given
// up: what was asked and what is asked until the next one has said hello fails
// for the time being, and parent is told to start it anew.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mlog"
)

const (
	// Patience is how long a program may take for an answer. Less than the
	// client's and dispatcher's own, so that they hear of it.
	Patience = 20 * time.Second
	// window is how many requests are in flight, others wait.
	window = 256
	// maxLost is how many requests a program may leave without an answer while
	// it answers others.
	maxLost = 256
	// suspicion is how long a failure with many requests in flight is held
	// against a program.
	suspicion = time.Hour
)

var (
	// ErrDown is returned while a program is not there.
	ErrDown   = errors.New("the table program is not running")
	errSilent = errors.New("no answer")
	errLost   = errors.New("too many requests without an answer")
	errEmpty  = errors.New("the answer is empty")
	errBytes  = errors.New("the answer has a CR or NUL in it")
)

// Options of a Client.
type Options struct {
	Name  string // of the table
	Clock clock.Clock
	Log   *mlog.Logger
	// End has the running program killed and started again.
	End func()
}

// Client is our end of a table's program, through all its lives.
type Client struct {
	o    Options
	slot chan struct{} // of window: held by who has a request in flight
	one  chan struct{} // the same for a program that is asked one at a time

	mu     sync.Mutex
	now    *session
	single bool
	failed time.Duration // when it last failed with many in flight, monotonic; 0: never
	closed bool
	work   sync.WaitGroup // the goroutines of sessions
}

// Table is the table that the program of a client serves.
type Table struct {
	*Client
	delim string // of sub-addresses
}

var _ table.Table = Table{}

// New returns a client without a program: Use gives it one.
func New(o Options) *Client {
	return &Client{o: o, slot: make(chan struct{}, window), one: make(chan struct{}, 1)}
}

// Use makes a program just started, at the other end of stream, the one that is
// asked.
func (c *Client) Use(stream io.ReadWriteCloser) {
	c.mu.Lock()
	old := c.now
	if c.closed {
		c.mu.Unlock()
		stream.Close()
		return
	}
	s := newSession(c, stream)
	c.now = s
	c.work.Go(func() { s.end(s.read()) })
	c.work.Go(s.write)
	c.work.Go(s.watchHello)
	c.mu.Unlock()
	if old != nil {
		old.stop()
	}
}

// Close gives the program up, which ends when its input does.
func (c *Client) Close() {
	c.mu.Lock()
	s := c.now
	c.closed = true
	c.mu.Unlock()
	if s != nil {
		s.stop()
	}
	c.work.Wait()
}

// Name implements table.Table.
func (c *Client) Name() string { return c.o.Name }

// Table returns the table; delim is the sub-address delimiter.
func (c *Client) Table(delim string) Table { return Table{c, delim} }

// Match implements table.Table.
func (t Table) Match(ctx context.Context, s table.Service, key string) (bool, error) {
	_, found, err := t.first(ctx, opCheck, s, key)
	return found, err
}

// Lookup implements table.Table.
func (t Table) Lookup(ctx context.Context, s table.Service, key string) (string, bool, error) {
	return t.first(ctx, opLookup, s, key)
}

// Fetch implements table.Table.
func (c *Client) Fetch(ctx context.Context, s table.Service) (string, bool, error) {
	r, err := c.ask(ctx, request{op: opFetch, service: s})
	return r.value(err)
}

// Update has the program read its configuration again.
func (c *Client) Update(ctx context.Context) error {
	r, err := c.ask(ctx, request{op: opUpdate})
	if err == nil && r.status == statusError {
		err = fmt.Errorf("the table program says: %s", said(r.text))
	}
	return err
}

// first asks for the keys that match, the best first, and returns the answer to
// the first that is there. They are asked for one after another: most are found
// at once, and a program need not expect questions in a bunch.
func (t Table) first(ctx context.Context, o op, s table.Service, key string) (string, bool, error) {
	if len(key) > maxKey || !clean(key) {
		return "", false, nil // no table holds such a key
	}
	for _, k := range keys(s, key, t.delim) {
		r, err := t.ask(ctx, request{o, s, k})
		value, found, err := r.value(err)
		if err != nil || found {
			return value, found, err
		}
	}
	return "", false, nil
}

// value turns an answer into what a table says.
func (r reply) value(err error) (string, bool, error) {
	switch {
	case err != nil:
		return "", false, err
	case r.status == statusError:
		return "", false, fmt.Errorf("the table program says: %s", said(r.text))
	case r.status != statusFound:
		return "", false, nil
	case r.op == opCheck:
		return "", true, nil
	case r.text == "":
		return "", false, errEmpty
	case !clean(r.text):
		return "", false, errBytes
	}
	return r.text, true, nil
}

func said(text string) string {
	if text == "" {
		return "error"
	}
	return text
}

// ask sends a request when there is room for it and waits for the answer.
func (c *Client) ask(ctx context.Context, q request) (reply, error) {
	c.mu.Lock()
	s, slot := c.now, c.slot
	if c.single {
		slot = c.one
	}
	c.mu.Unlock()
	if s == nil {
		return reply{}, ErrDown
	}
	late, never := c.o.Clock.After(Patience)
	defer never()
	w := waiter{ctx: ctx, late: late}
	for _, until := range []func() error{
		func() error { return s.waitHello(w, q) },
		func() error { return w.take(slot, s) },
	} {
		if err := until(); err != nil {
			return reply{}, err
		}
	}
	defer func() { <-slot }()
	return s.ask(w, q)
}

// waiter is the patience of one request.
type waiter struct {
	ctx  context.Context
	late <-chan struct{}
}

// take waits for a place in slot.
func (w waiter) take(slot chan struct{}, s *session) error {
	select {
	case slot <- struct{}{}:
		return nil
	case <-s.gone:
		return ErrDown
	case <-w.late:
		return errSilent
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// fail is called once by a session that ends by itself. A program with which
// something went wrong twice while it had many requests is asked one at a time
// from then on, as OpenSMTPD does: not every one was tried with more.
func (c *Client) fail(s *session, why error, many bool) {
	c.mu.Lock()
	current, single := c.now == s && !c.closed, false
	if current {
		c.now = nil
		single = many && c.suspect()
		c.single = c.single || single
	}
	c.mu.Unlock()
	if !current {
		return
	}
	c.o.Log.TableProgram(c.o.Name, why)
	if single {
		c.o.Log.TableOneAtATime(c.o.Name)
	}
	if c.o.End != nil {
		c.o.End()
	}
}

// suspect remembers a failure and tells whether it is the one too many.
func (c *Client) suspect() bool {
	now := c.o.Clock.Mono() + 1
	before := c.failed
	c.failed = now
	return !c.single && before != 0 && now-before < suspicion
}
