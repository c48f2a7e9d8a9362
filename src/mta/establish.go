package mta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/emersion/go-sasl"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mta/client"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
)

// establish connects, and does all that comes before the first message.
func (s *session) establish(ctx context.Context) error {
	helo, err := s.helo(ctx)
	if err != nil {
		return err
	}
	s.nameHost(ctx)
	err = s.connect(ctx, helo, false)
	if errors.Is(err, client.ErrTLS) && s.relay.scheme() == "smtp" && s.reason(err) == err {
		s.m.Log.MTADowngrade(s.id)
		s.nc.Close()
		err = s.connect(ctx, helo, true)
	}
	return err
}

// nameHost finds what the server's address is called, for the log: the address
// itself when it has no name, as in OpenSMTPD, so that no field is empty.
func (s *session) nameHost(ctx context.Context) {
	h := s.route.dst
	s.m.mu.Lock()
	known := h.named
	s.m.mu.Unlock()
	if known {
		return
	}
	name := s.m.Lookup.Name(ctx, h.at.Addr())
	if name == "" {
		name = addrText(h.at.Addr())
	}
	s.m.mu.Lock()
	h.name, h.named = name, true
	s.m.mu.Unlock()
}

// helo is what we call ourselves.
func (s *session) helo(ctx context.Context) (string, error) {
	act := s.relay.act
	if act.HeloSrc != "" && s.connector.source.addr.IsValid() {
		got, err := s.m.Lookup.Table(ctx, &msg.RelayLookup{
			Gen: s.relay.conf.Gen, Service: msg.RelayHelo, Table: act.HeloSrc, Key: s.connector.source.addr.String(),
		})
		if err != nil || got.Err != nil || !got.Found {
			return "", fmt.Errorf("failed to retrieve helo string: %w", failure(err, got))
		}
		return got.Value, nil
	}
	if act.Helo != "" {
		return act.Helo, nil
	}
	return s.relay.conf.Server, nil
}

// connect brings the session to where it can send; plain: without TLS, which
// failed before.
func (s *session) connect(ctx context.Context, helo string, plain bool) error {
	r := s.relay
	to := netip.AddrPortFrom(s.server.addr, r.port())
	scheme := r.scheme()
	if plain {
		scheme = "smtp+notls"
	}
	s.m.mu.Lock()
	name := s.route.dst.name
	s.m.mu.Unlock()
	s.m.Log.MTAConnecting(s.id, scheme, addrText(to.Addr()), to.Port(), name)
	s.wait(dialTime)
	nc, err := s.m.Dial(ctx, s.connector.source.addr, to)
	if err != nil {
		return fmt.Errorf("connection failed: %w", plainError(err))
	}
	if err := s.use(nc); err != nil {
		return err
	}
	s.m.Log.MTAConnected(s.id)
	s.from = addrText(s.connector.source.addr)
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		s.from = addrText(a.AddrPort().Addr().Unmap())
	}
	s.conn = client.New(nc, s.wait)
	s.listen(nc, to, name)
	if scheme == "smtps" {
		if err := s.conn.Handshake(ctx, s.tlsConfig()); err != nil {
			return err
		}
		s.logTLS()
	}
	return s.greet(ctx, helo, scheme)
}

// listen lets filter programs hear of the session, when the action names some.
func (s *session) listen(nc net.Conn, to netip.AddrPort, name string) {
	s.heard.End() // of the connection before, which could not have TLS
	var from netip.AddrPort
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		from = a.AddrPort()
	}
	if s.heard = s.relay.act.heard.Session(s.id, name, from, to); s.heard != nil {
		s.conn.Watch = s.heard.Line
	}
}

// plainError leaves out of a network error what the line says anyway.
func plainError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var call syscall.Errno
	if errors.As(err, &call) {
		return call
	}
	return err
}

// greet reads the greeting and says who we are, twice when TLS begins between.
func (s *session) greet(ctx context.Context, helo, scheme string) error {
	r, err := s.conn.Greeting()
	if err != nil {
		return err
	}
	if !r.OK() {
		return fmt.Errorf("BANNER rejected: %s", r.String())
	}
	name, _, _ := strings.Cut(r.Text, " ")
	s.heard.Greeting(name)
	if !s.relay.named() && addr.EqualDomain(name, s.relay.conf.Server) {
		return fmt.Errorf("mail loops back: the server calls itself %s, as we do", name)
	}
	if scheme == "lmtp" {
		return s.hello("LHLO", helo)
	}
	if err := s.ehlo(helo); err != nil {
		return err
	}
	if scheme == "smtp" || scheme == "smtp+tls" {
		if err := s.startTLS(ctx, helo, scheme == "smtp+tls"); err != nil {
			return err
		}
	}
	if r := s.relay; r.act.policy == strict && !s.conn.Ext().RequireTLS {
		return noPromise
	}
	return s.auth()
}

func (s *session) hello(verb, helo string) error {
	r, err := s.conn.Hello(verb, helo)
	if err == nil && !r.OK() {
		err = fmt.Errorf("%s rejected: %s", verb, r.String())
	}
	return err
}

// ehlo says EHLO, and HELO to a server that does not know it and need not.
func (s *session) ehlo(helo string) error {
	r, err := s.conn.Hello("EHLO", helo)
	if err != nil || r.OK() {
		return err
	}
	if scheme := s.relay.scheme(); r.Code == 421 || s.relay.user != "" || scheme == "smtp+tls" || scheme == "smtps" {
		return rejected("EHLO", &r)
	}
	return s.hello("HELO", helo)
}

// startTLS begins TLS where it is offered, or must be.
func (s *session) startTLS(ctx context.Context, helo string, must bool) error {
	if !s.conn.Ext().StartTLS {
		if must {
			return lackError("TLS required but not supported by remote host")
		}
		return nil
	}
	r, err := s.conn.StartTLS(ctx, s.tlsConfig())
	switch {
	case err != nil:
		return err
	case !r.OK() && must:
		return rejected("STARTTLS", &r)
	case !r.OK():
		return nil
	}
	s.logTLS()
	return s.ehlo(helo)
}

// rejected is the refusal of a command without which there is no TLS.
func rejected(verb string, r *client.Reply) error {
	text := verb + " rejected: " + r.String()
	if r.Code/100 == 5 {
		return lackError(text)
	}
	return errors.New(text)
}

func (s *session) tlsConfig() *tls.Config {
	t := s.relay.act.tls.Clone()
	t.ServerName = s.server.name
	t.RootCAs = s.relay.act.ca
	t.InsecureSkipVerify = !s.relay.verify()
	return t
}

func (s *session) logTLS() {
	st := s.conn.TLS()
	s.m.Log.MTATLS(s.id, pki.Describe(st))
	s.heard.TLS(pki.Describe(st))
	fingerprint := ""
	if len(st.PeerCertificates) > 0 {
		fingerprint = pki.Fingerprint(st.PeerCertificates[0])
	}
	s.m.Log.MTACertificate(s.id, s.relay.verify(), fingerprint)
}

// auth shows our credentials, if there are any and TLS hides them.
func (s *session) auth() error {
	r := s.relay
	if r.user == "" {
		return nil
	}
	if s.conn.TLS() == nil {
		return errors.New("refuse to AUTH over insecure channel")
	}
	var m sasl.Client
	offered := s.conn.Ext().Auth
	switch {
	case len(offered) == 0:
		return errors.New("AUTH not advertised")
	case slices.Contains(offered, sasl.Plain):
		m = sasl.NewPlainClient("", r.user, r.password)
	case slices.Contains(offered, sasl.Login):
		m = sasl.NewLoginClient(r.user, r.password)
	default:
		return errors.New("no supported AUTH method")
	}
	got, err := s.conn.Auth(m)
	s.heard.Auth(err == nil && got.OK(), r.user)
	if err == nil && !got.OK() {
		err = fmt.Errorf("AUTH rejected: %s", got.String())
	}
	return err
}
