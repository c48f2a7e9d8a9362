package journal

// write makes a batch durable and returns its offset in the current segment.
// After an error the segment is left for good and the batch goes to another one,
// once.
func (l *Log) write(b *Buffer) (base int64, err error) {
	if len(b.B) == 0 {
		return l.pos, nil
	}
	l.sums = b.sums(l.sums)
	length := len(b.B)
	for try := 0; ; try++ {
		b.B = b.B[:length]
		if base, err = l.put(b); err == nil {
			return base, nil
		}
		l.opt.Log.StoreTrouble(err)
		if try > 0 {
			return 0, err
		}
	}
}

// put tries once.
func (l *Log) put(b *Buffer) (int64, error) {
	size := (int64(len(b.B)) + page - 1) &^ (page - 1)
	if l.cur == nil || l.pos > 0 && l.pos+size > l.opt.SegmentSize {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	next := b.seal(l.lsn, l.cur.Epoch, l.durable, l.sums)
	b.B = append(b.B, zeros[:size-int64(len(b.B))]...)
	if err := l.store(b.B); err != nil {
		l.condemn()
		return 0, err
	}
	base := l.pos
	l.pos += size
	l.lsn, l.durable = next, next
	return base, nil
}

// store writes at the current position, initialises the file ahead of it, and
// syncs.
func (l *Log) store(b []byte) error {
	s := l.cur
	if _, err := s.f.WriteAt(b, l.pos); err != nil {
		return err
	}
	end := l.pos + int64(len(b))
	if end > s.size {
		s.size = end
		to := min((end+growStep-1)&^(growStep-1), l.opt.SegmentSize)
		for s.size < to {
			n := min(to-s.size, int64(len(zeros)))
			if _, err := s.f.WriteAt(zeros[:n], s.size); err != nil {
				return err
			}
			s.size += n
		}
	}
	return s.f.Sync()
}

// condemn leaves the current segment after an error. What it held before is
// durable and stays; the batch that failed is void once the next segment begins
// at its LSN.
func (l *Log) condemn() {
	s := l.cur
	l.cur = nil
	if l.pos == 0 {
		l.drop(s)
		return
	}
	l.mu.Lock()
	s.bad = true
	l.mu.Unlock()
}
