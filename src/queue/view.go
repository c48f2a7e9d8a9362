package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
	"opensmtpd/src/queue/spool"
)

// View is the queue as it lies on the disk, for an administrator while no daemon
// runs. It changes nothing, but for taking the lock.
type View struct{ s *Store }

// OpenView reads the queue. It fails with disk.ErrLocked while a daemon runs.
func OpenView(ctx context.Context, fsys disk.FS, log *mlog.Logger) (*View, error) {
	opt := Options{Log: log}
	opt.defaults()
	s := newStore(fsys, opt)
	s.readOnly = true
	lock, err := fsys.Lock(journal.Dir + "/lock")
	switch {
	case err == nil:
		s.lock = lock
	case errors.Is(err, fs.ErrNotExist): // a spool that only OpenSMTPD has used
		s.lock = io.NopCloser(nil)
	default:
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := s.look(ctx); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &View{s}, nil
}

// look builds the index without a change of the disk.
func (s *Store) look(ctx context.Context) error {
	var err error
	s.log, err = journal.Open(journal.Options{
		FS: s.fs, Clock: s.opt.Clock, Log: s.opt.Log, Rand: s.opt.Rand, ReadOnly: true,
	})
	if errors.Is(err, fs.ErrNotExist) {
		return s.lookAtFiles(ctx)
	}
	if err != nil {
		return err
	}
	pos, err := s.load()
	if err != nil {
		return err
	}
	r := &replay{s: s}
	found, err := s.log.Replay(pos, false, func(rec *journal.Record) error {
		r.visit(rec)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	r.finish()
	r.judge(found.Durable)
	return s.lookAtFiles(ctx)
}

// lookAtFiles adds what another program left in the spool.
func (s *Store) lookAtFiles(ctx context.Context) error {
	return s.spool.Each(func(id mail.MessageID) error {
		_, done := s.held[id]
		if err := ctx.Err(); err != nil || done || s.messages[id] != nil {
			return err
		}
		m, err := s.readForeign(id)
		if err == nil && len(m.envs) > 0 {
			s.messages[id] = m
		}
		return err
	})
}

// readForeign reads a message directory that the index does not know.
func (s *Store) readForeign(id mail.MessageID) (*message, error) {
	m := &message{id: id, spooled: true}
	info, err := s.fs.Stat(spool.BodyName(id))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	m.size = info.Size
	evps, err := s.spool.Envelopes(id)
	if err != nil {
		return m, err
	}
	for _, evp := range evps {
		if _, done := s.gone[evp]; done {
			continue
		}
		e, err := s.spool.ReadEnvelope(evp)
		switch {
		case err == nil:
			m.envs = append(m.envs, entry{Summary: Summarize(&e)})
		case damaged(err):
			s.opt.Log.EnvelopeDamaged(evp, err, "")
		default:
			return m, err
		}
	}
	return m, nil
}

// Each calls f for every envelope, in no order, until f returns false.
func (v *View) Each(f func(Summary) bool) { v.s.Each(f) }

// Envelope returns an envelope, or ErrNotFound or ErrDamaged.
func (v *View) Envelope(id mail.EnvelopeID) (envelope.Envelope, error) { return v.s.Envelope(id) }

// OpenBody opens the body of a message.
func (v *View) OpenBody(id mail.MessageID) (*Reader, error) { return v.s.OpenBody(id) }

// Close lets a daemon start.
func (v *View) Close() error {
	if v.s.log != nil {
		v.s.log.CloseFiles()
	}
	return v.s.lock.Close()
}

// Export makes files of everything, in OpenSMTPD's layout, closes the Store, and
// removes the journal, so that an OpenSMTPD in C can go on with the spool. It
// calls tell for each envelope that OpenSMTPD cannot read back, with the reason;
// the file is there nevertheless. Verify must have succeeded.
func (s *Store) Export(ctx context.Context, tell func(mail.EnvelopeID, error)) error {
	s.mu.Lock()
	scanned := s.scanned
	s.mu.Unlock()
	if !scanned {
		return errors.New("spool: not yet verified")
	}
	if err := s.exportFiles(ctx); err != nil {
		return err
	}
	var err error
	s.Each(func(sum Summary) bool {
		var e envelope.Envelope
		if e, err = s.Envelope(sum.ID); err != nil {
			return false
		}
		if why := e.Portable(); why != nil {
			tell(sum.ID, why)
		}
		return true
	})
	if err != nil {
		return err
	}
	segments := s.log.Segments()
	if err := s.Close(); err != nil {
		return err
	}
	return s.removeJournal(segments)
}

func (s *Store) exportFiles(ctx context.Context) error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	if err := s.evacuate(ctx, nil); err != nil {
		return err
	}
	if err := s.Flush(ctx); err != nil {
		return err
	}
	return s.checkpoint()
}

// removeJournal removes the segments oldest first, so that no completion goes
// before what it completes, and the checkpoint, which names the files, last.
func (s *Store) removeJournal(segments []*journal.Segment) error {
	for _, seg := range segments {
		if err := s.fs.Remove(seg.Name()); err != nil {
			return err
		}
		if err := s.fs.SyncDir(journal.Dir); err != nil {
			return err
		}
	}
	names, err := s.fs.ReadDir(journal.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name = journal.Dir + "/" + name; name != checkpointName {
			if err := s.fs.Remove(name); err != nil {
				return err
			}
		}
	}
	if err := s.fs.Remove(checkpointName); err != nil {
		return err
	}
	return s.fs.SyncDir(journal.Dir)
}
