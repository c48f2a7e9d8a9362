package proc

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// concurrent is how many handlers of Concurrent rows run at once for one peer:
// more than the recipients and commits that two cores can have in work, and a
// bound on their stacks. What comes beyond waits, within the sender's credit.
const concurrent = 256

// rowsAhead is how many bytes of rows may wait for a slow reader before Row
// waits for him.
const rowsAhead = 1 << 20

// Table is a role's handlers, ready to be looked up.
type Table struct{ rows map[tableKey]Handler }

type tableKey struct {
	from Role
	t    msg.Type
}

// NewTable makes a table; two rows for the same message of the same role are
// an error.
func NewTable(rows []Handler) (*Table, error) {
	t := &Table{make(map[tableKey]Handler, len(rows))}
	for _, h := range rows {
		k := tableKey{h.From, h.Type}
		if _, twice := t.rows[k]; twice {
			return nil, fmt.Errorf("two handlers for message %d from %s", h.Type, h.From)
		}
		t.rows[k] = h
	}
	return t, nil
}

// request implements Request.
type request struct {
	peer  *Peer
	head  imsg.Header
	body  []byte
	file  *os.File
	owned bool // the handler has asked for file
	done  atomic.Bool
}

// request hands a frame to its row.
func (p *Peer) request(ctx context.Context, table *Table, f *imsg.Frame) {
	size := imsg.HeaderSize + len(f.Body)
	r := &request{peer: p, head: f.Header, body: f.Body, file: f.File}
	h, ok := table.rows[tableKey{p.other, msg.Type(f.Type)}]
	if !ok {
		p.log.NotForUs(string(p.self), string(p.other), f.Type)
		r.Fail(mailerr.Local(fmt.Errorf("%s does not take message %d from %s", p.self, f.Type, p.other)))
		r.leave()
		p.took(size)
		return
	}
	if !h.Concurrent {
		h.Do(ctx, r)
		r.body = nil
		r.leave()
		p.took(size)
		return
	}
	r.body = append([]byte(nil), f.Body...)
	p.work.run(func() {
		h.Do(ctx, r)
		r.leave()
		p.took(size)
	})
}

// leave closes a descriptor that the handler did not take.
func (r *request) leave() {
	if r.file != nil && !r.owned {
		r.file.Close()
	}
}

func (r *request) From() Role     { return r.peer.other }
func (r *request) Type() msg.Type { return msg.Type(r.head.Type) }
func (r *request) Body() []byte   { return r.body }

func (r *request) Parse(m msg.Parser) error {
	if err := m.Parse(r.body); err != nil {
		return fmt.Errorf("%T from %s: %w", m, r.peer.other, err)
	}
	return nil
}

func (r *request) File() *os.File {
	r.owned = true
	return r.file
}

func (r *request) Row(m msg.Message) {
	if r.head.Flags&imsg.FlagCall == 0 || r.done.Load() {
		return
	}
	r.peer.conn.WaitBelow(rowsAhead)
	r.put(m, imsg.FlagReply|imsg.FlagMore, nil)
}

func (r *request) Reply(m msg.Message) { r.ReplyFile(m, nil) }

func (r *request) ReplyFile(m msg.Message, f *os.File) {
	if r.head.Flags&imsg.FlagCall == 0 || r.done.Swap(true) {
		closeFile(f)
		return
	}
	r.put(m, imsg.FlagReply, f)
}

func (r *request) Fail(err *mailerr.Error) {
	if r.head.Flags&imsg.FlagCall == 0 {
		r.peer.log.RequestFailed(string(r.peer.self), string(r.peer.other), r.head.Type, err)
		return
	}
	r.Reply(&msg.Error{Err: *err})
}

// put sends a reply. One that cannot be framed becomes an error, so that the
// caller need not wait for his deadline; a peer that is gone needs none.
func (r *request) put(m msg.Message, flags imsg.Flags, f *os.File) {
	h := imsg.Header{Type: uint16(m.Type()), Flags: flags, Call: r.head.Call, Session: r.head.Session}
	_, err := r.peer.conn.Put(h, m, f)
	if err == imsg.ErrTooLong {
		r.peer.log.RequestFailed(string(r.peer.self), string(r.peer.other), r.head.Type, err)
		h.Type, h.Flags = uint16(msg.TypeError), imsg.FlagReply
		r.peer.conn.Put(h, &msg.Error{Err: *mailerr.Local(err)}, nil)
	}
}

// pool runs functions in goroutines, at most concurrent at once; others wait in
// order.
type pool struct {
	mu      sync.Mutex
	running int
	waiting []func()
	wg      sync.WaitGroup
}

func (w *pool) run(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == concurrent {
		w.waiting = append(w.waiting, do)
		return
	}
	w.running++
	w.wg.Go(func() {
		for do := do; do != nil; do = w.next() {
			do()
		}
	})
}

// next returns what waited longest; nil when nothing waits, and then the
// goroutine counts no more.
func (w *pool) next() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) == 0 {
		w.running--
		return nil
	}
	do := w.waiting[0]
	w.waiting[0] = nil
	w.waiting = w.waiting[1:]
	return do
}

func (w *pool) wait() { w.wg.Wait() }
