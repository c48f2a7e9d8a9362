package server

import (
	"crypto/tls"
	"errors"
	"fmt"

	"opensmtpd/src/pki"
	"opensmtpd/src/smtp"
)

// TLS is how a listener speaks TLS.
type TLS struct {
	Config    *tls.Config
	Immediate bool // from the first byte (smtps), else by STARTTLS
	Require   bool // no mail without it
	Verify    bool // of every client a certificate is wanted, and was verified
}

// checkStartTLS tells whether TLS can begin (RFC 3207). What a client has sent
// behind the command would be read as if it had come encrypted: whoever put it
// there could speak for the client (CVE-2011-0411).
func (s *Session) checkStartTLS(arg string) smtp.Reply {
	switch {
	case s.Listener.TLS == nil || s.Listener.TLS.Immediate && s.TLS == nil:
		return unsupported
	case s.TLS != nil:
		return alreadySecured
	case arg != "":
		return noParameters
	case len(s.in.unread()) > 0:
		return behindStartTLS
	}
	return smtp.Reply{}
}

// startTLS promises TLS; it begins when the reply is written.
func (s *Session) startTLS(string) smtp.Reply {
	s.securing = true
	return readyForTLS
}

// secure makes the handshake and forgets all that was said in clear (RFC 3207
// section 4.2). Its error ends the session.
func (s *Session) secure() error {
	s.securing = false
	s.extend(handshakeTime)
	if err := s.in.flush(); err != nil {
		return err
	}
	// Behind a proxy's header the handshake may begin in the same segment.
	first := s.Listener.Proxy && s.Listener.TLS.Immediate
	if len(s.in.unread()) > 0 && !first {
		return errTalkedBetween
	}
	st, err := s.in.secure(s.Listener.TLS.Config)
	if err != nil {
		return s.handshakeFailed(err)
	}
	s.TLS = st
	s.Helo, s.ESMTP, s.User = "", false, ""
	s.describeTLS()
	s.srv.secured(s)
	return nil
}

var errTalkedBetween = errors.New("input between STARTTLS and TLS")

// handshakeFailed names the reason for the log.
func (s *Session) handshakeFailed(err error) error {
	switch {
	case s.srv.stopping.Load():
		return errShutdown
	case s.late():
		s.report(Event{Kind: Timeout})
		return errTimeout
	}
	return fmt.Errorf("TLS handshake failed: %w", err)
}

// describeTLS tells log and filters what protects the session.
func (s *Session) describeTLS() {
	s.cipher = pki.Describe(s.TLS)
	s.srv.log.SMTPTLS(s.ID, s.cipher)
	if list := s.TLS.PeerCertificates; len(list) > 0 {
		s.srv.log.SMTPCertificate(s.ID, s.Listener.TLS.Verify, pki.Fingerprint(list[0]))
	}
	s.report(Event{Kind: LinkTLS, Text: s.cipher})
}

// appendTLS adds to the Received line what protects the session.
func (s *Session) appendTLS(b []byte) []byte {
	if s.TLS == nil {
		return b
	}
	verified := "NO"
	if s.Listener.TLS.Verify {
		verified = "YES"
	}
	return fmt.Appendf(b, " (%s:%s)", s.cipher, verified)
}
