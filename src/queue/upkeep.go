package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
	"opensmtpd/src/queue/spool"
)

// retryUpkeep is the pause after upkeep failed.
const retryUpkeep = 10 * time.Second

// published notes, from the writer, what the index reflects.
func (s *Store) published(pos journal.Position) {
	s.mu.Lock()
	s.pos = pos
	s.mu.Unlock()
}

func (s *Store) hasRotated() {
	s.rotated.Store(true)
	s.nudge()
}

// failed passes on that the journal stopped or goes on; whoever listens logs it.
func (s *Store) failed(err error) {
	var answer *mailerr.Error
	if err != nil {
		answer = failure(err)
	}
	if s.opt.Intake != nil {
		s.opt.Intake(answer)
	}
}

// run does the upkeep until Close.
func (s *Store) run() {
	defer close(s.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	pause := checkpointEvery
	for {
		timer, stop := s.opt.Clock.After(pause)
		select {
		case <-s.wake:
		case <-timer:
		case <-s.stop:
			stop()
			return
		}
		stop()
		pause = checkpointEvery
		if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
			s.opt.Log.StoreTrouble(err)
			pause = retryUpkeep
		}
		if s.opt.upkept != nil {
			s.opt.upkept()
		}
	}
}

// maintain removes files of what is complete, saves the index when it is time,
// and empties and recycles the oldest segments.
func (s *Store) maintain(ctx context.Context) error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	if err := s.sweep(); err != nil {
		return err
	}
	if s.checkpointDue() {
		if err := s.checkpoint(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	scanned := s.scanned
	s.mu.Unlock()
	if !scanned {
		return nil // a segment may hold the completion of what is still in the spool
	}
	for segs := s.log.Segments(); len(segs) > s.opt.Segments; segs = segs[1:] {
		if err := s.recycle(ctx, segs[0]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) checkpointDue() bool {
	s.mu.Lock()
	dirty := s.dirty
	s.mu.Unlock()
	// A large index takes long: saving it must stay a small part of the work.
	pause := max(checkpointEvery, 20*s.savedTook)
	return dirty && (s.rotated.Load() || s.opt.Clock.Mono()-s.savedAt >= pause)
}

// checkpoint saves the index. What completed before its position leaves no files.
func (s *Store) checkpoint() error {
	start := s.opt.Clock.Mono()
	s.mu.Lock()
	pos := s.pos
	s.dirty = false
	s.mu.Unlock()
	s.rotated.Store(false)
	err := s.sweep()
	if err == nil {
		err = s.syncRemovals()
	}
	if err == nil {
		err = s.writeCheckpoint(pos)
	}
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return err
	}
	s.saved, s.savedAt = pos, s.opt.Clock.Mono()
	s.savedTook = s.savedAt - start
	return nil
}

// litter names files of an envelope that is complete.
type litter struct {
	id      mail.EnvelopeID
	spooled bool // the message has a directory, or may have
	file    bool // and a body in incoming/
	last    bool // no envelope of the message is left
}

// sweep removes litter. The removals are durable after syncRemovals.
func (s *Store) sweep() error {
	s.mu.Lock()
	todo := s.litter
	s.litter = nil
	s.mu.Unlock()
	for i, l := range todo {
		if err := s.remove(l); err != nil {
			s.mu.Lock()
			s.litter = append(todo[i:], s.litter...)
			s.mu.Unlock()
			return err
		}
	}
	return nil
}

func (s *Store) remove(l litter) error {
	id := l.id.Message()
	if l.file && l.last {
		s.unsynced[spool.IncomingDir] = struct{}{}
		if err := s.spool.RemoveTree(spool.Incoming(id)); err != nil {
			return err
		}
	}
	switch {
	case !l.spooled:
		return nil
	case l.last:
		s.unsynced[spool.Bucket(id)] = struct{}{}
		delete(s.unsynced, spool.MessageDir(id))
		return s.spool.RemoveMessage(id)
	default:
		s.unsynced[spool.MessageDir(id)] = struct{}{}
		return s.spool.RemoveEnvelope(l.id)
	}
}

func (s *Store) syncRemovals() error {
	for dir := range s.unsynced {
		if err := s.spool.Sync(dir); err != nil {
			return err
		}
		delete(s.unsynced, dir)
	}
	return nil
}

// recycle moves what still lives in the oldest segment to files and frees it.
func (s *Store) recycle(ctx context.Context, seg *journal.Segment) error {
	if err := s.evacuate(ctx, seg); err != nil {
		return err
	}
	if err := s.Flush(ctx); err != nil {
		return err
	}
	if err := s.checkpoint(); err != nil {
		return err
	}
	if err := s.log.Free(seg); err != nil {
		return err
	}
	s.mu.Lock()
	s.release(seg.Epoch)
	s.mu.Unlock()
	return nil
}

// evacuate makes files of everything whose only durable copy is in seg, or, when
// seg is nil, in the journal.
func (s *Store) evacuate(ctx context.Context, seg *journal.Segment) error {
	// What was moved before must be known as moved: to write it again would
	// take away files that a record on its way says are complete.
	if err := s.Flush(ctx); err != nil {
		return err
	}
	in := func(at ref) bool { return at.seg != nil && (seg == nil || at.seg == seg) }
	s.mu.Lock()
	var ids []mail.MessageID
	looked := 0
	for id, m := range s.messages {
		if looked++; looked%4096 == 0 { // let mail pass
			s.mu.Unlock()
			s.mu.Lock()
		}
		needed := in(m.at)
		for i := range m.envs {
			needed = needed || in(m.envs[i].at)
		}
		if needed {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	return s.allToFiles(ctx, ids, in)
}

// movers is how many messages become files at the same time: most of the work is
// waiting for syncs, which the file system serves together.
const movers = 8

func (s *Store) allToFiles(ctx context.Context, ids []mail.MessageID, in func(ref) bool) error {
	n := movers
	if s.opt.manual {
		n = 1 // the same order in each run
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan mail.MessageID)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for id := range todo {
				if err := s.toFiles(id, in); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		select {
		case todo <- id:
		case <-ctx.Done():
		}
	}
	close(todo)
	wg.Wait()
	return context.Cause(ctx)
}

// toFiles moves one message.
func (s *Store) toFiles(id mail.MessageID, in func(ref) bool) error {
	s.mu.Lock()
	m := s.messages[id]
	if m == nil {
		s.mu.Unlock()
		return nil // completed meanwhile
	}
	spooled, file := m.spooled, m.file
	m.tried = true
	places := make(map[mail.EnvelopeID]ref)
	for i := range m.envs {
		if e := &m.envs[i]; e.at.seg != nil && (!spooled || in(e.at)) {
			places[e.ID] = e.at
		}
	}
	s.mu.Unlock()
	var envs []envelope.Envelope
	for evp, at := range places {
		e, err := s.readEnvelope(evp, at)
		switch {
		case err == nil:
			envs = append(envs, e)
		case damaged(err):
			s.opt.Log.EnvelopeDamaged(evp, err, "")
			delete(places, evp)
			s.Done(evp)
		default:
			return err
		}
	}
	if err := s.writeFiles(id, spooled, file, envs); err != nil {
		return err
	}
	u := &spooledUnit{s: s, id: id}
	for evp, at := range places {
		u.envs = append(u.envs, moved{uint32(evp), at.seg.Epoch, at.off})
	}
	s.log.Submit(u, true)
	return nil
}

func (s *Store) writeFiles(id mail.MessageID, spooled, file bool, envs []envelope.Envelope) error {
	if spooled {
		for i := range envs {
			if err := s.spool.WriteEnvelope(&envs[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if file {
		return s.spool.Write(id, nil, 0, envs)
	}
	r, err := s.OpenBody(id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil // completed meanwhile
	case errors.Is(err, ErrDamaged):
		for i := range envs {
			s.giveUp(&envs[i])
		}
		return nil
	case err != nil:
		return err
	}
	defer r.Close()
	return s.spool.Write(id, r, r.Size(), envs)
}

// giveUp sets an envelope aside whose message cannot be read.
func (s *Store) giveUp(e *envelope.Envelope) {
	kept := ""
	if b, err := e.AppendText(nil); err == nil {
		if err := s.spool.Keep(e.ID.String(), b); err != nil {
			s.opt.Log.StoreTrouble(err)
		} else {
			kept = spool.CorruptDir + "/" + e.ID.String()
		}
	}
	s.opt.Log.EnvelopeDamaged(e.ID, errors.New("its message cannot be read"), kept)
	s.Done(e.ID)
}

// becameFiles applies a spooled record that is durable; the lock is held. When
// the message completed meanwhile, its files are litter.
func (s *Store) becameFiles(id mail.MessageID, envs []moved) {
	if m := s.spooled(id, envs); m != nil {
		s.dirty = true
		s.forget(m)
		for _, v := range envs { // one that completed while it was written
			if evp := mail.EnvelopeID(id)<<32 | mail.EnvelopeID(v.low); m.find(evp) == nil {
				s.litter = append(s.litter, litter{id: evp, spooled: true})
				s.nudge()
			}
		}
	} else if _, complete := s.held[id]; complete {
		s.litter = append(s.litter, litter{id: mail.EnvelopeID(id) << 32, spooled: true, last: true})
		s.nudge()
	}
}

// spooledUnit says that a message has become files.
type spooledUnit struct {
	s    *Store
	id   mail.MessageID
	envs []moved
}

// Encode implements journal.Unit.
func (u *spooledUnit) Encode(b *journal.Buffer) {
	b.Begin(journal.Spooled, recordVersion)
	b.B = appendSpooled(b.B, u.id, u.envs)
	b.End()
}

// Written implements journal.Unit.
func (u *spooledUnit) Written(_ *journal.Segment, _ int64, err error) {
	if err != nil {
		return
	}
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	u.s.becameFiles(u.id, u.envs)
}

// saveClean ends a run: the log is closed, the index complete.
func (s *Store) saveClean(context.Context) error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	if err := s.checkpoint(); err != nil {
		return err
	}
	return s.markClean(s.saved)
}
