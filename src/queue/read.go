package queue

import (
	"errors"
	"io/fs"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
)

// Envelope returns a live envelope in its last durable state: from memory when it
// is recent, else from the journal or its file. The error is ErrNotFound,
// ErrDamaged, or what the disk says.
func (s *Store) Envelope(id mail.EnvelopeID) (envelope.Envelope, error) {
	var err error
	for range retries {
		s.mu.Lock()
		m := s.messages[id.Message()]
		if m == nil {
			s.mu.Unlock()
			return envelope.Envelope{}, ErrNotFound
		}
		e := m.find(id)
		if e == nil {
			s.mu.Unlock()
			return envelope.Envelope{}, ErrNotFound
		}
		for i := range m.recent {
			if m.recent[i].ID == id {
				env := m.recent[i]
				s.mu.Unlock()
				return env, nil
			}
		}
		at, uid, flags := e.at, e.LocalUID, e.Flags&envelope.OursAlone
		s.mu.Unlock()
		var env envelope.Envelope
		if env, err = s.readEnvelope(id, at); err == nil {
			env.LocalUID = uid // a file does not hold it, nor these
			env.Flags |= flags
			return env, nil
		}
	}
	if damaged(err) {
		s.opt.Log.EnvelopeDamaged(id, err, "")
		return envelope.Envelope{}, ErrDamaged
	}
	return envelope.Envelope{}, err
}

// readEnvelope reads one from its place in the journal or its file.
func (s *Store) readEnvelope(id mail.EnvelopeID, at ref) (envelope.Envelope, error) {
	if at.seg == nil {
		return s.spool.ReadEnvelope(id)
	}
	payload, err := at.seg.Read(int64(at.off), int(at.n), nil)
	if err != nil {
		return envelope.Envelope{}, err
	}
	var e envelope.Envelope
	if err := e.Parse(payload); err != nil {
		return envelope.Envelope{}, err
	}
	if e.ID != id {
		return envelope.Envelope{}, journal.ErrDamaged
	}
	return e, nil
}

// damaged tells errors of the contents from errors of the disk.
func damaged(err error) bool {
	var field *envelope.FieldError
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrDamaged) || errors.Is(err, errPayload) ||
		errors.Is(err, envelope.ErrMalformed) || errors.As(err, &field)
}
