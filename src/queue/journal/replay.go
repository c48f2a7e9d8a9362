package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"opensmtpd/src/queue/disk"
)

// Hole is a stretch of a segment without valid records, between or after valid
// ones.
type Hole struct {
	Seg      *Segment
	Off, Len int64
	LSN      uint64 // of the first record missing
	Next     uint64 // of the first that is not
	// Damaged tells that the records were durable once, so that something
	// was lost; else the batch was torn by a crash before it was
	// acknowledged.
	Damaged bool
}

// Replayed is what Open found.
type Replayed struct {
	Holes []Hole
	// Durable: records at and above this LSN were never acknowledged, as far
	// as can be told.
	Durable uint64
}

// Open finds the segments. Replay must follow, then Start.
func Open(opt Options) (*Log, error) {
	l := &Log{
		opt: opt, next: new(batch),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	var err error
	if l.segs, l.spare, err = list(opt.FS, !opt.ReadOnly); err != nil {
		return nil, err
	}
	for _, s := range append(l.segs[:len(l.segs):len(l.segs)], l.spare...) {
		l.seq = max(l.seq, s.Epoch>>32)
	}
	return l, nil
}

// Replay reads the log from a position on and calls visit for each record, in
// order. Exact tells that the log is known to end at from, because it was closed
// there: nothing is read, and writing goes on in the same segment. Else the first
// write begins a new one. Records below the position's LSN are not visited.
func (l *Log) Replay(from Position, exact bool, visit func(*Record) error) (Replayed, error) {
	l.lsn, l.durable = max(from.LSN, 1), max(from.LSN, 1)
	l.seq = max(l.seq, from.Epoch>>32)
	if exact && l.resume(from) {
		return Replayed{Durable: l.durable}, nil
	}
	found := Replayed{}
	for i, s := range l.segs {
		l.lsn = max(l.lsn, s.First)
		if s.Epoch < from.Epoch {
			continue
		}
		sc := scanner{w: window{f: s.f, size: s.size}, seg: s, limit: ^uint64(0), last: max(s.First, 1) - 1,
			from: from.LSN, visit: visit}
		if s.Epoch == from.Epoch {
			sc.off, sc.last = from.Off, from.LSN-1
		}
		if i+1 < len(l.segs) {
			sc.limit = l.segs[i+1].First
		}
		if err := sc.run(); err != nil {
			return Replayed{}, err
		}
		if sc.w.failed != nil {
			l.opt.Log.StoreTrouble(sc.w.failed)
		}
		// A process that was killed may have written this and not synced it.
		// Whoever acts on what is read must not have it taken back.
		if !l.opt.ReadOnly {
			if err := s.f.Sync(); err != nil {
				return Replayed{}, err
			}
		}
		found.Holes = append(found.Holes, sc.holes...)
		l.lsn = max(l.lsn, sc.last+1)
		l.durable = max(l.durable, sc.durable)
	}
	if !l.opt.ReadOnly {
		if err := l.opt.FS.SyncDir(Dir); err != nil {
			return Replayed{}, err
		}
	}
	for i := range found.Holes {
		found.Holes[i].Damaged = found.Holes[i].LSN < l.durable
	}
	found.Durable = l.durable
	return found, nil
}

// End returns where the log ends after Replay: what the caller knows by then.
func (l *Log) End() Position { return l.position() }

// resume goes on where a clean shutdown stopped.
func (l *Log) resume(from Position) bool {
	if from.Epoch == 0 { // closed before anything was written
		return true
	}
	if len(l.segs) == 0 {
		return false
	}
	last := l.segs[len(l.segs)-1]
	if last.Epoch != from.Epoch {
		return false
	}
	l.cur, l.pos = last, from.Off
	return true
}

// ReadHole returns the bytes of a hole, at most max of them.
func (h Hole) ReadHole(max int64) []byte {
	b := make([]byte, min(h.Len, max))
	w := window{f: h.Seg.f, size: h.Off + int64(len(b))}
	return append(b[:0], w.at(h.Off, len(b))...)
}

// scanner reads one segment.
type scanner struct {
	w       window
	seg     *Segment
	off     int64
	limit   uint64 // LSN of the next segment
	last    uint64 // LSN of the last valid record
	from    uint64 // LSN of the first record to visit
	durable uint64
	holes   []Hole
	visit   func(*Record) error
}

func (s *scanner) run() error {
	for {
		rec, at, ok := s.find()
		if !ok || rec.LSN >= s.limit {
			// Below the limit records are missing at the end only when they
			// were damaged, or the log was torn before its last segment.
			if s.last+1 < s.limit && s.limit != ^uint64(0) {
				s.hole(s.w.size, s.limit)
			}
			return nil
		}
		if rec.LSN != s.last+1 {
			s.hole(at, rec.LSN)
		}
		s.last = rec.LSN
		s.durable = max(s.durable, rec.Durable)
		rec.Seg, rec.Off = s.seg, at
		s.off = at + rec.Len()
		if rec.LSN < s.from {
			continue
		}
		if err := s.visit(&rec); err != nil {
			return err
		}
	}
}

func (s *scanner) hole(to int64, next uint64) {
	if s.last+1 < s.from {
		return
	}
	s.holes = append(s.holes, Hole{Seg: s.seg, Off: s.off, Len: to - s.off, LSN: s.last + 1, Next: next})
}

// find returns the next valid record at or after off.
func (s *scanner) find() (Record, int64, bool) {
	for at := s.off; ; at += align {
		if at = s.w.seek(at); at < 0 {
			return Record{}, 0, false
		}
		h := s.w.at(at, headerSize)
		if binary.LittleEndian.Uint64(h[24:]) != s.seg.Epoch {
			continue
		}
		n := int64(binary.LittleEndian.Uint32(h[4:]))
		if n > MaxPayload || at+headerSize+n > s.w.size {
			continue
		}
		rec, ok := decode(s.w.at(at, headerSize+int(n)), s.seg.Epoch)
		if ok && rec.LSN > s.last {
			return rec, at, true
		}
	}
}

// window reads a file in large pieces. What cannot be read counts as zeros.
type window struct {
	f      disk.File
	size   int64
	start  int64
	buf    []byte
	failed error
}

const windowSize = 1 << 20

// at returns n bytes from off, valid until the next call.
func (w *window) at(off int64, n int) []byte {
	if off < w.start || off+int64(n) > w.start+int64(len(w.buf)) {
		w.load(off, max(n, windowSize))
	}
	b := w.buf[off-w.start:]
	return b[:n]
}

// seek returns the first aligned place at or after off where a record may begin,
// -1 when there is none.
func (w *window) seek(off int64) int64 {
	for off+headerSize <= w.size {
		n := int(min(w.size-off, windowSize))
		if off >= w.start && off+headerSize <= w.start+int64(len(w.buf)) {
			n = int(w.start + int64(len(w.buf)) - off)
		}
		b := w.at(off, n)
		for at := 0; at < len(b); at += align {
			i := bytes.Index(b[at:], magicBytes)
			if i < 0 {
				break
			}
			at = (at + i) &^ (align - 1) // unaligned: not a record, go on behind
			if bytes.HasPrefix(b[at:], magicBytes) {
				if off+int64(at)+headerSize > w.size {
					return -1
				}
				return off + int64(at)
			}
		}
		// The last bytes may hold the front of a magic number.
		off = (off + int64(n)) &^ (align - 1)
	}
	return -1
}

func (w *window) load(off int64, n int) {
	n = int(min(int64(n), w.size-off))
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.start, w.buf = off, w.buf[:n]
	got, err := w.f.ReadAt(w.buf, off)
	if err == nil || errors.Is(err, io.EOF) {
		clear(w.buf[got:])
		return
	}
	w.failed = err
	for at := 0; at < n; at += page {
		b := w.buf[at:min(at+page, n)]
		if got, err := w.f.ReadAt(b, off+int64(at)); err != nil {
			clear(b[got:])
		}
	}
}
