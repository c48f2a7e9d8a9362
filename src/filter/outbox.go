package filter

import (
	"io"
	"sync"
)

// queueSize is how many bytes may wait for a program that does not read: some
// thousand lines. Sessions that have more to say wait.
const queueSize = 1 << 20

// keepSize is how much memory a queue keeps while it is empty.
const keepSize = 256 << 10

// outbox is what sessions have to say to a program. One goroutine writes it.
type outbox struct {
	mu     sync.Mutex
	buf    []byte
	spare  []byte
	going  int           // bytes that are being written
	more   chan struct{} // receives when there is something to write
	room   chan struct{} // closed when there is room; nil when nobody waits
	last   bool          // nothing is added any more
	closed bool
}

func newOutbox() *outbox { return &outbox{more: make(chan struct{}, 1)} }

// add takes a line, or returns a channel that is closed when it should be tried
// again. A box that is closed takes everything and keeps nothing.
func (o *outbox) add(line []byte) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	if n := len(o.buf) + o.going; n > 0 && n+len(line) > queueSize {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return o.room
	}
	o.buf = append(o.buf, line...)
	if len(o.buf) == len(line) {
		o.wake()
	}
	return nil
}

// wake is called with the lock held, while the box is not closed.
func (o *outbox) wake() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// finish lets run return when all is written.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last = true; !o.closed {
		o.wake()
	}
}

// run writes to w until the box is closed, or finished, or a write fails.
func (o *outbox) run(w io.Writer) error {
	for range o.more {
		for {
			p, last := o.take()
			if p == nil && last {
				return nil
			}
			if p == nil {
				break
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// take returns what is to be written, after what it returned before was, and
// whether nothing follows it.
func (o *outbox) take() (p []byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.going = 0
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
	if len(o.buf) == 0 || o.closed {
		if cap(o.buf)+cap(o.spare) > keepSize {
			o.buf, o.spare = nil, nil
		}
		return nil, o.last
	}
	p = o.buf
	o.buf, o.spare = o.spare[:0], p
	o.going = len(p)
	return p, o.last
}

// close ends run and lets all who wait go on.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	close(o.more)
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}
