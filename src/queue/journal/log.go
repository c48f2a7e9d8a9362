package journal

import (
	"errors"
	"io"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
)

// zeros is what files are initialised and batches padded with. Never written.
var zeros [64 << 10]byte

// ErrClosed is what units submitted after Close get.
var ErrClosed = errors.New("journal is closed")

const (
	// Ride is how long an update or completion waits for a commit to ride
	// with before it is written alone.
	Ride = 100 * time.Millisecond

	// probeEvery is the pause between two tries of a disk that failed.
	probeEvery = time.Second

	// growStep is how far ahead a segment is initialised on its first use:
	// overwriting what is allocated syncs faster than extending a file.
	growStep = 1 << 20

	// keepBuffer is the largest batch buffer kept for the next batch.
	keepBuffer = 1 << 20
)

// Unit is what is written whole: the records of one Encode follow each other in
// one batch, of which a crash keeps all or, as replay can see, not all.
type Unit interface {
	// Encode adds the records. It is called under the lock of the log, and
	// again when a batch that failed is gathered anew.
	Encode(b *Buffer)
	// Written tells, from the writer's goroutine, that the unit is durable
	// and that offsets Begin returned count from base in seg; or that it
	// failed. It must not wait.
	Written(seg *Segment, base int64, err error)
}

// Options of a Log.
type Options struct {
	FS          disk.FS
	Clock       clock.Clock
	Log         *mlog.Logger
	Rand        io.Reader
	SegmentSize int64
	Spare       int  // segments kept for reuse
	ReadOnly    bool // only Replay and Read will be used

	// Published is told, in the writer's goroutine, where the log ends once
	// all units of a batch were told.
	Published func(Position)
	// Rotated is told that a new segment was begun. It must not wait.
	Rotated func()
	// Failed is told the error when nothing can be written any more, and nil
	// when it can again. It must not wait.
	Failed func(error)
}

// Log is the journal, open for writing.
type Log struct {
	opt Options

	mu       sync.Mutex
	next     *batch // being gathered
	spares   *batch // empty, for reuse
	closed   bool
	err      error      // why nothing can be written
	segs     []*Segment // in use, oldest first
	spare    []*Segment
	unsynced bool // the last Free is not known to be durable

	wake chan struct{}
	stop chan struct{}
	done chan struct{}

	// The writer's own.
	cur     *Segment // nil: begin a new one
	pos     int64
	lsn     uint64 // of the next record
	durable uint64
	seq     uint64 // upper half of the newest epoch
	sums    []uint32
}

type batch struct {
	buf    Buffer
	units  []member
	urgent bool // somebody waits
}

type member struct {
	unit  Unit
	start int
	ride  bool
}

func (b *batch) add(u Unit, ride bool) {
	b.buf.unit = len(b.buf.B)
	b.units = append(b.units, member{u, len(b.buf.B), ride})
	b.urgent = b.urgent || !ride
	u.Encode(&b.buf)
}

func (b *batch) reset() {
	clear(b.units)
	*b = batch{buf: Buffer{B: b.buf.B[:0]}, units: b.units[:0]}
	if cap(b.buf.B) > keepBuffer {
		b.buf.B = nil
	}
}

// Submit adds a unit to the batch being gathered. One that rides starts no write
// of its own for Ride.
func (l *Log) Submit(u Unit, ride bool) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		u.Written(nil, 0, ErrClosed)
		return
	}
	idle := len(l.next.units) == 0
	wake := idle || !ride && !l.next.urgent
	l.next.add(u, ride)
	l.mu.Unlock()
	if wake {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Err returns why nothing can be written, nil when all is well.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Start lets the writer begin.
func (l *Log) Start() { go l.run() }

// Close writes what was submitted, the riders too, and ends the writer. It
// returns the error that kept something from being written.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if !closed {
		close(l.stop)
	}
	<-l.done
	return l.Err()
}

// CloseFiles closes the segments, after Close, when nobody reads any more.
func (l *Log) CloseFiles() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range append(l.segs, l.spare...) {
		s.f.Close()
	}
}

// run is the writer. While it syncs a batch the next one gathers; there is no
// other timer than that of riders and of probes.
func (l *Log) run() {
	defer close(l.done)
	var timer <-chan struct{}
	cancel := func() {}
	arm := func(d time.Duration) {
		if timer == nil {
			timer, cancel = l.opt.Clock.After(d)
		}
	}
	for {
		due, stopping := false, false
		select {
		case <-l.wake:
		case <-timer:
			timer, due = nil, true
		case <-l.stop:
			due, stopping = true, true
		}
		for l.step(due) {
			due = false
		}
		if stopping {
			cancel()
			return
		}
		l.mu.Lock()
		failed, waiting := l.err != nil, len(l.next.units) > 0
		l.mu.Unlock()
		if failed {
			arm(probeEvery)
		} else if waiting {
			arm(Ride)
		}
	}
}

// step writes what has gathered when somebody waits for it or it is due, and
// tells whether it did.
func (l *Log) step(due bool) bool {
	l.mu.Lock()
	failed := l.err
	b := l.next
	if !b.urgent && !due || len(b.units) == 0 && failed == nil {
		l.mu.Unlock()
		return false
	}
	l.next, l.spares = l.spares, nil
	if l.next == nil {
		l.next = new(batch)
	}
	l.mu.Unlock()
	if failed != nil && !due {
		l.refuse(b, failed)
	} else {
		l.commit(b)
	}
	b.reset()
	l.mu.Lock()
	l.spares = b
	l.mu.Unlock()
	return true
}

// commit writes a batch and tells its units.
func (l *Log) commit(b *batch) {
	if l.Err() != nil && len(b.buf.B) == 0 {
		b.buf.Begin(Checkpoint, 0) // something to try the disk with
		b.buf.End()
	}
	base, err := l.write(&b.buf)
	l.report(err)
	if err != nil {
		l.refuse(b, err)
		return
	}
	for _, m := range b.units {
		m.unit.Written(l.cur, base+int64(m.start), nil)
	}
	if l.opt.Published != nil && l.cur != nil {
		l.opt.Published(l.position())
	}
}

func (l *Log) position() Position {
	p := Position{Off: l.pos, LSN: l.lsn}
	if l.cur != nil {
		p.Epoch = l.cur.Epoch
	}
	return p
}

// report notes the outcome of a write and tells the owner when it changed.
func (l *Log) report(err error) {
	l.mu.Lock()
	changed := (l.err == nil) != (err == nil)
	l.err = err
	l.mu.Unlock()
	if changed && l.opt.Failed != nil {
		l.opt.Failed(err)
	}
}

// refuse tells those who wait that it failed, and keeps the riders for the next
// batch, before what was submitted since.
func (l *Log) refuse(b *batch, err error) {
	for _, m := range b.units {
		if !m.ride {
			m.unit.Written(nil, 0, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	kept := new(batch)
	for _, m := range b.units {
		if m.ride {
			kept.add(m.unit, true)
		}
	}
	if len(kept.units) == 0 {
		return
	}
	for _, m := range l.next.units {
		kept.add(m.unit, m.ride)
	}
	l.next = kept
}
