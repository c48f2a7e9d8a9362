package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

const (
	// Credit is how many bytes of requests may be on their way to a peer that
	// has not taken them yet: several of the largest frames, and little enough
	// that a peer which stands still costs nobody his memory.
	Credit = 4 << 20
	// giveBack is how much a receiver takes before it says so: seldom enough
	// to cost nothing, often enough that a sender hardly ever waits.
	giveBack = Credit / 8
	// CallTimeout is the deadline of a call whose context has none.
	CallTimeout = 60 * time.Second
	// sweep is how often calls are looked at for their deadline, so that a
	// call need not have a timer of its own.
	sweep = 5 * time.Second
	// typeCredit is the frame that gives credit back, in its call field.
	typeCredit = 0
)

// errGone is what calls fail with when the process behind them has ended.
var errGone = errors.New("the other process is gone")

// Peer is one end of the connection to another process. It implements Caller.
type Peer struct {
	self, other Role
	conn        *imsg.Conn
	clock       clock.Clock
	log         *mlog.Logger

	mu      sync.Mutex
	calls   map[uint64]*call
	last    uint64        // number of the last call
	dead    error         // why no call can succeed any more
	credit  int           // bytes that may be sent
	more    chan struct{} // closed when credit comes; nil when nobody waits
	expired chan struct{} // receives when calls go from none to one

	taken atomic.Int64 // bytes taken and not yet given back

	work pool
}

// NewPeer returns self's end of the connection to other over conn, which it
// takes over. Serve must run for calls to be answered.
func NewPeer(self, other Role, conn *imsg.Conn, c clock.Clock, log *mlog.Logger) *Peer {
	return &Peer{
		self: self, other: other, conn: conn, clock: c, log: log,
		calls: make(map[uint64]*call), credit: Credit, expired: make(chan struct{}, 1),
	}
}

// Role tells who is at the other end.
func (p *Peer) Role() Role { return p.other }

// call is one that waits for its reply. Who takes it out of Peer.calls is the
// only one who may touch reply, file and err until done.
type call struct {
	reply    msg.Parser
	rows     func(*imsg.Frame) // for replies with FlagMore; may be nil
	wantFile bool
	file     *os.File
	err      error
	deadline time.Duration // on the monotonic clock
	patient  bool          // the context has its own deadline
	left     bool          // nobody waits any more; guarded by Peer.mu
	done     chan struct{}
}

// Send implements Caller.
func (p *Peer) Send(ctx context.Context, m msg.Message) error { return p.SendFile(ctx, m, nil) }

// SendFile implements Caller.
func (p *Peer) SendFile(ctx context.Context, m msg.Message, f *os.File) error {
	_, err := p.submit(ctx, m, f, nil)
	return err
}

// submit sends a request as soon as there is credit for it, and enters c, when
// it has one, under the number that it returns.
func (p *Peer) submit(ctx context.Context, m msg.Message, f *os.File, c *call) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.spend(ctx); err != nil {
		closeFile(f)
		return 0, p.failure(m, err)
	}
	h := imsg.Header{Type: uint16(m.Type())}
	if c != nil {
		p.last++
		h.Flags, h.Call = imsg.FlagCall, p.last
	}
	n, err := p.conn.Put(h, m, f)
	if err != nil {
		return 0, p.failure(m, err)
	}
	p.credit -= n
	if c != nil {
		p.enter(h.Call, c)
	}
	return h.Call, nil
}

// spend waits until there is credit; p.mu is held before and after.
func (p *Peer) spend(ctx context.Context) error {
	for p.dead == nil && p.credit <= 0 {
		if p.more == nil {
			p.more = make(chan struct{})
		}
		more := p.more
		p.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return p.dead
}

// enter makes c wait for its reply; p.mu is held.
func (p *Peer) enter(id uint64, c *call) {
	c.deadline = p.clock.Mono() + CallTimeout
	p.calls[id] = c
	if len(p.calls) == 1 {
		select {
		case p.expired <- struct{}{}:
		default:
		}
	}
}

// earn adds credit that the other side gave back.
func (p *Peer) earn(n uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > Credit || p.credit+int(n) > Credit {
		return errors.New("more credit given back than was used")
	}
	p.credit += int(n)
	p.wake()
	return nil
}

func (p *Peer) wake() {
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
}

// Call implements Caller.
func (p *Peer) Call(ctx context.Context, m msg.Message, reply msg.Parser) error {
	return p.finish(ctx, m, &call{reply: reply})
}

// CallFile implements Caller.
func (p *Peer) CallFile(ctx context.Context, m msg.Message, reply msg.Parser) (*os.File, error) {
	c := &call{reply: reply, wantFile: true}
	err := p.finish(ctx, m, c)
	return c.file, err
}

// CallRows is Call for a request that is answered with rows before its reply:
// each is parsed into row, then next is called, on the goroutine that reads
// from the peer: it must not wait.
func (p *Peer) CallRows(ctx context.Context, m msg.Message, row msg.Parser, next func() error, reply msg.Parser) error {
	c := &call{reply: reply}
	c.rows = func(f *imsg.Frame) {
		err := wrongType(f, row)
		if err == nil {
			err = row.Parse(f.Body)
		}
		if err == nil {
			err = next()
		}
		if c.err == nil {
			c.err = err
		}
	}
	return p.finish(ctx, m, c)
}

// finish sends the request and waits for the end of c.
func (p *Peer) finish(ctx context.Context, m msg.Message, c *call) error {
	c.done = make(chan struct{})
	_, c.patient = ctx.Deadline()
	id, err := p.submit(ctx, m, nil, c)
	if err != nil {
		return err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if p.forget(id, c) {
			return p.failure(m, ctx.Err())
		}
		<-c.done
	}
	if c.err == nil {
		return nil
	}
	closeFile(c.file)
	c.file = nil
	return p.failure(m, c.err)
}

// forget takes a call out; false when its reply is being read, and then it
// will be done soon.
func (p *Peer) forget(id uint64, c *call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[id] != c {
		c.left = true
		return false
	}
	delete(p.calls, id)
	return true
}

func (p *Peer) pick(id uint64) *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls[id]
	delete(p.calls, id)
	return c
}

// failure makes the error that a caller sees.
func (p *Peer) failure(m msg.Message, err error) error {
	var e *mailerr.Error
	if errors.As(err, &e) {
		return e
	}
	return mailerr.Local(fmt.Errorf("%T to %s: %w", m, p.other, err))
}

// answer gives a reply to the call that waits for it.
func (p *Peer) answer(f *imsg.Frame) {
	if f.Flags&imsg.FlagMore != 0 {
		p.row(f)
		return
	}
	c := p.pick(f.Call)
	if c == nil {
		closeFile(f.File) // the caller has given up
		return
	}
	if err := c.read(f); c.err == nil {
		c.err = err
	}
	if c.wantFile {
		c.file = f.File
	} else {
		closeFile(f.File)
	}
	close(c.done)
}

// row gives one of several replies to its call. The call is out of the table
// meanwhile, so that it cannot end.
func (p *Peer) row(f *imsg.Frame) {
	closeFile(f.File)
	c := p.pick(f.Call)
	if c == nil {
		return
	}
	if c.rows != nil {
		c.rows(f)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c.left:
		c.err = context.Canceled
		close(c.done)
	case p.dead != nil:
		c.err = p.dead
		close(c.done)
	default:
		p.enter(f.Call, c)
	}
}

func (c *call) read(f *imsg.Frame) error {
	if f.Type == uint16(msg.TypeError) {
		var m msg.Error
		if err := m.Parse(f.Body); err != nil {
			return err
		}
		return &m.Err
	}
	if err := wrongType(f, c.reply); err != nil {
		return err
	}
	return c.reply.Parse(f.Body)
}

func wrongType(f *imsg.Frame, m msg.Message) error {
	if f.Type != uint16(m.Type()) {
		return fmt.Errorf("reply of type %d instead of %d", f.Type, m.Type())
	}
	return nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// Serve reads from the peer until the connection or ctx ends: replies go to
// their calls, requests to the rows of the table. It returns nil when the peer
// closed in good order; in every case each call that waits fails, handlers are
// waited for, and the connection is closed. ctx reaches the handlers.
func (p *Peer) Serve(ctx context.Context, table *Table) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { p.expire(ctx) })
	stop := context.AfterFunc(ctx, p.conn.Close)
	err := p.read(ctx, table)
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		err = nil
	}
	p.end(errGone)
	cancel()
	if stop() {
		p.conn.Close()
	}
	wg.Wait()
	p.work.wait()
	return err
}

func (p *Peer) read(ctx context.Context, table *Table) error {
	for {
		f, err := p.conn.Next()
		if err != nil {
			return err
		}
		switch {
		case f.Flags&imsg.FlagReply != 0:
			p.answer(&f)
		case f.Type == typeCredit:
			closeFile(f.File)
			err = p.earn(f.Call)
		default:
			p.request(ctx, table, &f)
		}
		if err != nil {
			return err
		}
	}
}

// end fails every call, those to come too.
func (p *Peer) end(err error) {
	p.mu.Lock()
	if p.dead == nil {
		p.dead = err
	}
	calls := p.calls
	p.calls = make(map[uint64]*call)
	p.wake()
	p.mu.Unlock()
	for _, c := range calls {
		c.err = err
		close(c.done)
	}
}

// expire fails calls whose deadline has passed. It sleeps while there are
// none, so that an idle daemon does not wake.
func (p *Peer) expire(ctx context.Context) {
	for {
		select {
		case <-p.expired:
		case <-ctx.Done():
			return
		}
		for p.sweep(ctx) {
		}
	}
}

// sweep waits a while and looks once; false when there is nothing left to look
// at.
func (p *Peer) sweep(ctx context.Context) bool {
	due, cancel := p.clock.After(sweep)
	defer cancel()
	select {
	case <-due:
	case <-ctx.Done():
		return false
	}
	now := p.clock.Mono()
	p.mu.Lock()
	var late []*call
	for id, c := range p.calls {
		if !c.patient && c.deadline <= now {
			delete(p.calls, id)
			late = append(late, c)
		}
	}
	left := len(p.calls)
	p.mu.Unlock()
	for _, c := range late {
		c.err = context.DeadlineExceeded
		close(c.done)
	}
	return left > 0
}

// took returns credit for a request that has been dealt with.
func (p *Peer) took(n int) {
	if p.taken.Add(int64(n)) < giveBack {
		return
	}
	if n := p.taken.Swap(0); n > 0 {
		p.conn.Put(imsg.Header{Type: typeCredit, Call: uint64(n)}, nil, nil)
	}
}

// Flush waits until everything sent so far was handed to the system.
func (p *Peer) Flush() { p.conn.WaitBelow(0) }

// Close ends the connection; Serve returns.
func (p *Peer) Close() {
	p.end(errGone)
	p.conn.Close()
}
