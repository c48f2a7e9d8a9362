package server

import (
	"context"
	"errors"

	"github.com/emersion/go-sasl"

	"opensmtpd/src/mailerr"
)

// ScramBackend is a Backend whose users can prove that they know a password
// without saying it (RFC 5802).
type ScramBackend interface {
	// OffersScram tells whether the users of the listener of s have secrets for
	// that.
	OffersScram(ctx context.Context, s *Session) bool
	// Scram answers a message of a client. Final is empty for the first one, and
	// the second comes with what was said before.
	Scram(ctx context.Context, s *Session, first, challenge, final string) (Proof, *mailerr.Error)
}

// Proof is what came of a message.
type Proof struct {
	Malformed bool
	OK        bool   // the second message proves who the client is
	User      string // who it says it is
	Text      string // for the client
}

// offersScram asks once a session.
func (s *Session) offersScram() bool {
	b, ok := s.srv.backend.(ScramBackend)
	if !ok || s.Listener.AuthTable == "" {
		return false
	}
	if s.scram == unknown {
		s.scram = refused
		if b.OffersScram(s.srv.ctx, s) {
			s.scram = offered
		}
	}
	return s.scram == offered
}

// What a session knows of SCRAM.
const (
	unknown = iota
	refused
	offered
)

var errScram = errors.New("no message of SCRAM")

// scram is the server's side of SCRAM-SHA-256. What a client proves is verified
// by the backend, as a password is, before the last step, in which the server
// proves itself.
type scram struct {
	s                *Session
	x                *exchange
	first, challenge string
	proved           bool
}

func newScram(s *Session, x *exchange) sasl.Server { return &scram{s: s, x: x} }

// Next implements sasl.Server.
func (c *scram) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil:
		return nil, false, nil
	case c.proved:
		if len(response) > 0 {
			return nil, false, errScram
		}
		return nil, true, nil
	case c.first == "":
		return c.begin(string(response))
	}
	return c.finish(string(response))
}

func (c *scram) begin(first string) ([]byte, bool, error) {
	if first == "" {
		return nil, false, errScram
	}
	p, err := c.ask(first, "", "")
	c.x.user = p.User
	switch {
	case err != nil:
		c.x.outcome = &outcome{err: err}
		return nil, true, nil
	case p.Malformed:
		return nil, false, errScram
	}
	c.first, c.challenge = first, p.Text
	return []byte(p.Text), false, nil
}

func (c *scram) finish(final string) ([]byte, bool, error) {
	var p Proof
	c.x.outcome = c.s.try(func() (bool, *mailerr.Error) {
		var err *mailerr.Error
		p, err = c.ask(c.first, c.challenge, final)
		return p.OK && !p.Malformed, err
	})
	if !c.x.outcome.ok {
		return nil, true, nil
	}
	c.proved = true
	return []byte(p.Text), false, nil
}

func (c *scram) ask(first, challenge, final string) (Proof, *mailerr.Error) {
	b, ok := c.s.srv.backend.(ScramBackend)
	if !ok {
		return Proof{Malformed: true}, nil
	}
	return b.Scram(c.s.srv.ctx, c.s, first, challenge, final)
}
