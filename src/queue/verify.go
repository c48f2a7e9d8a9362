package queue

import (
	"context"
	"errors"
	"io/fs"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/spool"
)

// Verify compares the spool with the index: what an OpenSMTPD, or an
// administrator, left there is taken over and told to found; what is gone or
// damaged is set aside and told to lost; what is left of completed mail is
// removed. It is to be called once after Open, from a goroutine of the caller,
// and again when it fails: journal segments are recycled only after it has
// succeeded. Neither function may be nil; both may call the Store.
func (s *Store) Verify(ctx context.Context, found func(Summary), lost func(mail.EnvelopeID)) error {
	v := &verifier{s: s, found: found, lost: lost}
	err := s.spool.Each(func(id mail.MessageID) error {
		return v.step(ctx, func() error { return v.message(id) })
	})
	if err != nil {
		return err
	}
	if err := v.missing(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.scanned, s.gone = true, nil
	s.mu.Unlock()
	s.nudge()
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

type verifier struct {
	s     *Store
	found func(Summary)
	lost  func(mail.EnvelopeID)

	tellFound []Summary
	tellLost  []mail.EnvelopeID
}

// step works on one message with the files to itself, and tells afterwards.
func (v *verifier) step(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.s.upkeep.Lock()
	err := f()
	v.s.upkeep.Unlock()
	for _, sum := range v.tellFound {
		v.found(sum)
	}
	for _, id := range v.tellLost {
		v.lost(id)
	}
	v.tellFound, v.tellLost = v.tellFound[:0], v.tellLost[:0]
	return err
}

func (v *verifier) message(id mail.MessageID) error {
	s := v.s
	if info, err := s.fs.Stat(spool.MessageDir(id)); err != nil {
		return ignoreAbsent(err)
	} else if !info.Mode.IsDir() {
		to, err := s.spool.SetAside(spool.MessageDir(id))
		s.opt.Log.SpoolMisfit(spool.MessageDir(id), to)
		return err
	}
	s.mu.Lock()
	m := s.messages[id]
	_, complete := s.held[id]
	ours := m != nil && !m.old
	s.mu.Unlock()
	switch {
	case ours:
		return nil // written by this process, or seen
	case m != nil:
		return v.known(m)
	case complete:
		s.unsynced[spool.Bucket(id)] = struct{}{}
		return s.spool.RemoveMessage(id)
	}
	return v.foreign(id)
}

// known checks a message of the index against its directory.
func (v *verifier) known(m *message) error {
	s := v.s
	info, err := s.fs.Stat(spool.BodyName(m.id))
	whole := err == nil && info.Size == m.size
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	spooled, file := m.spooled, m.file
	m.old = false
	s.mu.Unlock()
	switch {
	case whole && !spooled:
		if err := v.adopt(m); err != nil {
			return err
		}
	case !whole && spooled:
		v.giveUp(m)
		return nil
	case !whole && file && err == nil:
		v.giveUp(m) // the body had been moved there
		return nil
	case !whole:
		// Left by an attempt that did not get to the end; the journal has
		// it all.
		return s.spool.RemoveTree(spool.MessageDir(m.id))
	}
	return v.envelopes(m)
}

// adopt accepts files that were complete, though the journal does not say so. It
// makes sure they are durable: the process that wrote them may have been killed
// just before.
func (v *verifier) adopt(m *message) error {
	for _, dir := range []string{spool.MessageDir(m.id), spool.Bucket(m.id), spool.QueueDir} {
		if err := v.s.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	m.spooled, m.at = true, ref{}
	v.s.dirty = true
	v.s.forget(m)
	return nil
}

// envelopes checks the envelope files of a message that is all there.
func (v *verifier) envelopes(m *message) error {
	s := v.s
	there, err := s.spool.Envelopes(m.id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	var files []mail.EnvelopeID // of which the file is the only copy
	live := make(map[mail.EnvelopeID]bool)
	for i := range m.envs {
		live[m.envs[i].ID] = true
		if m.envs[i].at.seg == nil {
			files = append(files, m.envs[i].ID)
		}
	}
	s.mu.Unlock()
	for _, id := range there {
		if !live[id] { // completed, but the file came back
			s.unsynced[spool.MessageDir(m.id)] = struct{}{}
			if err := s.spool.RemoveEnvelope(id); err != nil {
				return err
			}
		}
	}
	for _, id := range files {
		if _, err := s.spool.ReadEnvelope(id); err != nil && !damaged(err) {
			return err
		} else if err != nil && s.lives(id) {
			v.loseEnvelope(id, err)
		}
	}
	return nil
}

func (s *Store) lives(id mail.EnvelopeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.messages[id.Message()]
	return m != nil && m.find(id) != nil
}

// loseEnvelope sets a damaged envelope file aside.
func (v *verifier) loseEnvelope(id mail.EnvelopeID, why error) {
	s := v.s
	to, err := s.spool.SetAside(spool.EnvelopeName(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = errors.New("the file is gone")
	case err != nil:
		s.opt.Log.StoreTrouble(err)
	}
	s.opt.Log.EnvelopeDamaged(id, why, to)
	s.Done(id)
	v.tellLost = append(v.tellLost, id)
}

// giveUp sets a message aside whose body is gone.
func (v *verifier) giveUp(m *message) {
	s := v.s
	why := "its body is not what it was"
	to, err := s.spool.SetAside(spool.MessageDir(m.id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = "its files are gone"
	case err != nil:
		s.opt.Log.StoreTrouble(err)
	}
	s.opt.Log.MessageDamaged(m.id, why, to)
	s.mu.Lock()
	var ids []mail.EnvelopeID
	for i := range m.envs {
		ids = append(ids, m.envs[i].ID)
	}
	s.mu.Unlock()
	s.Done(ids...)
	v.tellLost = append(v.tellLost, ids...)
}

// missing finds messages that should be files but are not there.
func (v *verifier) missing(ctx context.Context) error {
	s := v.s
	s.mu.Lock()
	var suspects []*message
	for _, m := range s.messages {
		if m.old && m.spooled {
			suspects = append(suspects, m)
		}
	}
	s.mu.Unlock()
	for _, m := range suspects {
		err := v.step(ctx, func() error {
			whole, err := s.spool.Complete(m.id)
			if err == nil && !whole && s.isLive(m) {
				v.giveUp(m)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) isLive(m *message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages[m.id] == m
}

// foreign takes over a message that another program left.
func (v *verifier) foreign(id mail.MessageID) error {
	s := v.s
	dir := spool.MessageDir(id)
	info, err := s.fs.Stat(spool.BodyName(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	whole := err == nil
	evps, err := s.spool.Envelopes(id)
	if err != nil {
		return err
	}
	m := &message{id: id, spooled: true, size: info.Size}
	stale := false
	for _, evp := range evps {
		s.mu.Lock()
		_, done := s.gone[evp]
		s.mu.Unlock()
		switch {
		case done:
			stale = true
			s.unsynced[dir] = struct{}{}
			err = s.spool.RemoveEnvelope(evp)
		case whole:
			err = v.takeOver(m, evp)
		}
		if err != nil {
			return err
		}
	}
	if len(m.envs) == 0 {
		return v.abandon(id, stale)
	}
	for _, d := range []string{dir, spool.Bucket(id), spool.QueueDir} {
		if err := s.fs.SyncDir(d); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages[id] = m
	s.dirty = true
	for i := range m.envs {
		v.tellFound = append(v.tellFound, m.envs[i].Summary)
	}
	return nil
}

// takeOver reads one envelope file; a damaged one is set aside.
func (v *verifier) takeOver(m *message, id mail.EnvelopeID) error {
	s := v.s
	e, err := s.spool.ReadEnvelope(id)
	if err != nil && !damaged(err) {
		return err
	}
	if err == nil {
		m.envs = append(m.envs, entry{Summary: Summarize(&e)})
		return nil
	}
	to, aerr := s.spool.SetAside(spool.EnvelopeName(id))
	if aerr != nil {
		return aerr
	}
	s.opt.Log.EnvelopeDamaged(id, err, to)
	return nil
}

// abandon clears a directory without mail away: removed when it is what was left
// of mail that is done, else set aside.
func (v *verifier) abandon(id mail.MessageID, done bool) error {
	s := v.s
	s.unsynced[spool.Bucket(id)] = struct{}{}
	if done {
		return s.spool.RemoveMessage(id)
	}
	to, err := s.spool.SetAside(spool.MessageDir(id))
	if err != nil {
		return err
	}
	s.opt.Log.MessageDamaged(id, "no body or no envelope", to)
	return nil
}
