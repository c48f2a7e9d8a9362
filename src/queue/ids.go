package queue

import (
	"encoding/binary"
	"fmt"
	"io"

	"opensmtpd/src/mail"
)

// Reserve returns n identifiers that nobody else gets until they are released or
// their messages are complete: random, not zero, not live, and not of a message
// whose completion is still in the journal. The error is a *mailerr.Error.
func (s *Store) Reserve(n int) ([]mail.MessageID, error) {
	ids := make([]mail.MessageID, 0, n)
	buf := make([]byte, 4*n)
	for len(ids) < n {
		b := buf[:4*(n-len(ids))]
		if _, err := io.ReadFull(s.opt.Rand, b); err != nil {
			s.Release(ids...)
			return nil, fmt.Errorf("no random numbers: %w", err)
		}
		for ; len(b) > 0; b = b[4:] {
			id := mail.MessageID(binary.LittleEndian.Uint32(b))
			ok, err := s.reserve(id)
			if err != nil {
				s.Release(ids...)
				return nil, failure(err)
			}
			if ok {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

func (s *Store) reserve(id mail.MessageID) (bool, error) {
	s.mu.Lock()
	_, live := s.messages[id]
	_, held := s.held[id]
	_, taken := s.reserved[id]
	free := id != 0 && !live && !held && !taken
	if free {
		s.reserved[id] = struct{}{}
	}
	scanned := s.scanned
	s.mu.Unlock()
	if !free || scanned {
		return free, nil
	}
	// Until Verify has been through the spool there may be messages of
	// another program in it that we do not know yet.
	there, err := s.spool.Has(id)
	if there || err != nil {
		s.Release(id)
		return false, err
	}
	return true, nil
}

// Release gives identifiers back that will not be committed.
func (s *Store) Release(ids ...mail.MessageID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.reserved, id)
	}
}
