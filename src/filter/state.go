package filter

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/smtp/server"
)

// state is what the filters keep of a session.
type state struct {
	phase  server.Phase   // that is being decided
	talk   *talk          // with programs; nil: there are none
	greyed mail.MessageID // the message for which the client is to come again
}

// of returns the state of a session.
func of(s *server.Session) *state {
	st, ok := s.Filtering.(*state)
	if !ok {
		st = new(state)
		s.Filtering = st
	}
	return st
}

// asking returns the phase that is being decided.
func asking(s *server.Session) server.Phase { return of(s).phase }
