package server

import (
	"errors"

	"opensmtpd/src/smtp/proxyproto"
)

// proxied reads the header that a proxy sends first, and makes whom it names the
// client; what stands behind the header stays for the session. It is false when
// there is none: then nothing is said, for who is there speaks no SMTP.
func (s *Session) proxied() bool {
	h, err := s.proxyHeader()
	if err != nil {
		s.srv.log.SMTPProxyRefused(s.ID, s.Address(), err)
		return false
	}
	if !h.Local {
		s.srv.log.SMTPProxy(s.ID, s.Address())
		s.Client.Addr, s.Client.To = h.Client, h.Server.Addr()
	}
	return true
}

func (s *Session) proxyHeader() (proxyproto.Header, error) {
	for {
		h, n, err := proxyproto.Parse(s.in.unread())
		if !errors.Is(err, proxyproto.ErrShort) {
			if err == nil {
				s.in.take(n)
			}
			return h, err
		}
		switch err := s.in.receive(); {
		case err == errWoken && s.late():
			return h, errTimeout
		case err == errWoken && s.srv.stopping.Load():
			return h, errShutdown
		case err != nil && err != errWoken:
			return h, err
		}
	}
}
