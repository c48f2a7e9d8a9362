package queue

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
)

// failure is the reply for trouble with the disk: 452 when it is full.
func failure(err error) *mailerr.Error {
	var own *mailerr.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return mailerr.Temporary(452, 3, 1, "Insufficient system storage", err)
	}
	return mailerr.Local(err)
}

// commit is a message on its way into the journal.
type commit struct {
	s    *Store
	m    Message
	envs []envelope.Envelope
	done func(error)
	rec  *message
}

// Encode implements journal.Unit.
func (c *commit) Encode(b *journal.Buffer) {
	h := head{id: c.m.ID, envelopes: uint32(len(c.envs)), size: uint64(len(c.m.Inline)), done: c.m.Done, body: c.m.Inline}
	if c.m.Body != nil {
		h.file, h.size = true, uint64(c.m.Body.size)
	}
	r := c.rec
	r.file, r.size = h.file, int64(h.size)
	off := b.Begin(journal.Message, recordVersion)
	b.B = h.append(b.B)
	r.at = ref{off: uint32(off), n: uint32(b.End())}
	for i := range c.envs {
		off := b.Begin(journal.Envelope, recordVersion)
		b.B = c.envs[i].Append(b.B)
		r.envs[i].at = ref{off: uint32(off), n: uint32(b.End())}
	}
}

// Written implements journal.Unit.
func (c *commit) Written(seg *journal.Segment, base int64, err error) {
	if err != nil {
		c.done(failure(err))
		return
	}
	r := c.rec
	r.at.seg, r.at.off = seg, r.at.off+uint32(base)
	for i := range r.envs {
		at := &r.envs[i].at
		at.seg, at.off = seg, at.off+uint32(base)
	}
	s := c.s
	s.mu.Lock()
	s.messages[r.id] = r
	delete(s.reserved, r.id)
	s.dirty = true
	s.remember(r, c.m.Inline, c.envs)
	for _, id := range c.m.Done {
		s.completed(id, seg.Epoch)
	}
	s.mu.Unlock()
	c.done(nil)
}

// check refuses what the journal must not hold.
func (s *Store) check(m *Message, envs []envelope.Envelope) error {
	switch {
	case m.ID == 0 || len(envs) == 0:
		return fmt.Errorf("message %v without id or envelopes", m.ID)
	case m.Body != nil && (m.Inline != nil || m.Body.id != m.ID || !m.Body.ready):
		return fmt.Errorf("message %v: body is not complete", m.ID)
	case len(m.Inline) > InlineMax:
		return fmt.Errorf("message %v: body of %d bytes is not for the journal", m.ID, len(m.Inline))
	case len(m.Done) > maxDone:
		return fmt.Errorf("message %v completes too many envelopes", m.ID)
	}
	for i := range envs {
		if envs[i].ID.Message() != m.ID || uint32(envs[i].ID) == 0 {
			return fmt.Errorf("envelope %v is not of message %v", envs[i].ID, m.ID)
		}
		if err := envs[i].Check(); err != nil {
			return fmt.Errorf("envelope %v: %w", envs[i].ID, err)
		}
	}
	return nil
}

// maxDone bounds the completions in one record.
const maxDone = 64 << 10

// CommitAsync makes message and envelopes durable and then calls done: with nil,
// or with a *mailerr.Error, 452 for a full disk, 451 otherwise, after which
// nothing of the message is kept and the identifier may be released or committed
// again. Done is called from a goroutine of the Store and must not wait. The
// Store keeps envs and m.Inline.
func (s *Store) CommitAsync(m Message, envs []envelope.Envelope, done func(error)) {
	if err := s.check(&m, envs); err != nil {
		done(mailerr.Local(err))
		return
	}
	c := &commit{s: s, m: m, envs: envs, done: done}
	c.rec = &message{id: m.ID, envs: make([]entry, len(envs))}
	for i := range envs {
		c.rec.envs[i].Summary = Summarize(&envs[i])
	}
	s.mu.Lock()
	_, live := s.messages[m.ID]
	s.mu.Unlock()
	if live {
		done(mailerr.Local(fmt.Errorf("message %v is in the queue already", m.ID)))
		return
	}
	s.log.Submit(c, false)
}

// Commit is CommitAsync that waits. When ctx ends first, the outcome is unknown:
// the message may become durable.
func (s *Store) Commit(ctx context.Context, m Message, envs []envelope.Envelope) error {
	result := make(chan error, 1)
	s.CommitAsync(m, envs, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return mailerr.Local(ctx.Err())
	}
}

// completed applies a completion that is durable; the lock is held.
func (s *Store) completed(id mail.EnvelopeID, epoch uint64) {
	m := s.complete(id, epoch)
	if m == nil {
		if s.gone != nil {
			s.gone[id] = struct{}{}
		}
		return
	}
	s.dirty = true
	last := len(m.envs) == 0
	if last {
		s.forget(m)
	}
	if m.spooled || m.tried || m.file && last {
		s.litter = append(s.litter, litter{id, m.spooled || m.tried, m.file && !m.spooled, last})
		s.nudge()
	}
}

// doneUnit completes envelopes.
type doneUnit struct {
	s   *Store
	ids []mail.EnvelopeID
}

// Encode implements journal.Unit.
func (d *doneUnit) Encode(b *journal.Buffer) {
	b.Begin(journal.Done, recordVersion)
	b.B = appendIDs(b.B, d.ids)
	b.End()
}

// Written implements journal.Unit.
func (d *doneUnit) Written(seg *journal.Segment, _ int64, err error) {
	if err != nil {
		return
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for _, id := range d.ids {
		d.s.completed(id, seg.Epoch)
	}
}

// Done completes envelopes: they are delivered, bounced or removed. It rides with
// the next commit, at most 100 ms later. Unknown ones are ignored. A crash before
// then brings the envelopes back.
func (s *Store) Done(ids ...mail.EnvelopeID) {
	for len(ids) > 0 {
		n := min(len(ids), maxDone)
		s.log.Submit(&doneUnit{s, append([]mail.EnvelopeID(nil), ids[:n]...)}, true)
		ids = ids[n:]
	}
}

// updateUnit gives an envelope its new state.
type updateUnit struct {
	s     *Store
	sum   Summary
	bytes []byte
	at    ref
}

// Encode implements journal.Unit.
func (u *updateUnit) Encode(b *journal.Buffer) {
	off := b.Begin(journal.Update, recordVersion)
	b.B = append(b.B, u.bytes...)
	u.at = ref{off: uint32(off), n: uint32(b.End())}
}

// Written implements journal.Unit.
func (u *updateUnit) Written(seg *journal.Segment, base int64, err error) {
	if err != nil {
		return
	}
	u.at.seg, u.at.off = seg, u.at.off+uint32(base)
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	if u.s.update(u.sum, u.at) {
		u.s.dirty = true
	}
}

// Update records the state of a live envelope after a try: it rides like Done.
// The envelope is copied. Control characters in the error line are made visible;
// an error tells of one elsewhere.
func (s *Store) Update(e *envelope.Envelope) error {
	c := *e
	c.ErrorLine = envelope.CleanLine(c.ErrorLine)
	if err := c.Check(); err != nil {
		return mailerr.Local(err)
	}
	s.log.Submit(&updateUnit{s: s, sum: Summarize(&c), bytes: c.Append(nil)}, true)
	return nil
}

// stateUnit keeps a keyed value.
type stateUnit struct {
	s *Store
	v state
}

// Encode implements journal.Unit.
func (u *stateUnit) Encode(b *journal.Buffer) {
	b.Begin(journal.State, recordVersion)
	b.B = u.v.append(b.B)
	b.End()
}

// Written implements journal.Unit.
func (u *stateUnit) Written(_ *journal.Segment, _ int64, err error) {
	if err != nil {
		return
	}
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	u.s.put(u.v)
	u.s.dirty = true
}

// maxState bounds a value; what is kept here is small.
const maxState = 64 << 10

// PutState keeps a small value of another role (at most 64 KiB, kind and key at
// most 255 bytes) under a key; nil removes it. It rides like Done and shows in
// State when it is durable.
func (s *Store) PutState(kind, key string, value []byte) error {
	if len(kind) > 255 || len(key) > 255 || len(value) > maxState {
		return fmt.Errorf("state %q %q of %d bytes is too large", kind, key, len(value))
	}
	v := state{kind: kind, key: key}
	if value != nil {
		v.value = append([]byte{}, value...)
	}
	s.log.Submit(&stateUnit{s, v}, true)
	return nil
}

// State calls f for each value of a kind, in no order, until f returns false. f
// must not call the Store nor change value.
func (s *Store) State(kind string, f func(key string, value []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.states[kind] {
		if !f(k, v) {
			return
		}
	}
}

// StateCount is how many values of a kind there are.
func (s *Store) StateCount(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.states[kind])
}

// flushUnit waits.
type flushUnit func(error)

// Encode implements journal.Unit.
func (flushUnit) Encode(*journal.Buffer) {}

// Written implements journal.Unit.
func (f flushUnit) Written(_ *journal.Segment, _ int64, err error) {
	if err != nil {
		err = failure(err)
	}
	f(err)
}

// FlushAsync calls done when everything asked for before is durable, as
// CommitAsync does.
func (s *Store) FlushAsync(done func(error)) { s.log.Submit(flushUnit(done), false) }

// Flush is FlushAsync that waits.
func (s *Store) Flush(ctx context.Context) error {
	result := make(chan error, 1)
	s.FlushAsync(func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return mailerr.Local(ctx.Err())
	}
}
