package pki

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
)

// Server is what a listener shows and wants.
type Server struct {
	Chains []*Chain // the first is for clients that ask for no name, or for one that nobody has
	Ask    Oracle
	Turns  *Turns // in which strangers have signatures made; nil: as they come
	// Verify wants a certificate of every client, made by one of Authorities.
	Verify      bool
	Authorities *x509.CertPool
	Protocols   string // as in smtpd.conf(5)
	Ciphers     string
}

// Config returns the server's side of TLS. ctx bounds its questions to the
// oracle.
//
// There are no session tickets. Microsoft's servers (Exchange Online, Outlook)
// hang up on the ticket that Go sends within the handshake of TLS 1.3, so that
// their mail never comes (golang.org/issue/70232, chasquid issue 64, maddy issue
// 730). Others would gain little: a server that has mail for us comes once in a
// while, and a full handshake costs one signature. Nor is there state that would
// let a client skip showing its certificate.
func (s *Server) Config(ctx context.Context) (*tls.Config, error) {
	v, err := ParseProtocols(s.Protocols)
	if err != nil {
		return nil, err
	}
	c, err := ParseCiphers(s.Ciphers)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion: v.Min, MaxVersion: v.Max, CipherSuites: c.Suites,
		SessionTicketsDisabled: true,
		GetCertificate:         s.choice(ctx),
	}
	if s.Verify {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, s.Authorities
	}
	return cfg, nil
}

// choice returns the function that chooses among certificates: those for the
// name that the client asks for, or all when it asks for none or for one that
// they are not for; of these the first of a kind that the client can take.
func (s *Server) choice(ctx context.Context) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	certs := make([]*tls.Certificate, len(s.Chains))
	for i, c := range s.Chains {
		certs[i] = c.Certificate(ctx, s.Ask)
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert := s.choose(hello, certs)
		if s.Turns == nil {
			return cert, nil
		}
		c := *cert
		c.PrivateKey = &queued{cert.PrivateKey.(*signer), s.Turns, network(hello.Conn.RemoteAddr())}
		return &c, nil
	}
}

func (s *Server) choose(hello *tls.ClientHelloInfo, certs []*tls.Certificate) *tls.Certificate {
	var named *tls.Certificate
	for i, c := range s.Chains {
		if !c.Matches(hello.ServerName) {
			continue
		}
		if takes(hello, certs[i]) {
			return certs[i]
		}
		if named == nil {
			named = certs[i]
		}
	}
	if named != nil {
		return named // and crypto/tls says why it cannot
	}
	for _, cert := range certs {
		if takes(hello, cert) {
			return cert
		}
	}
	return certs[0]
}

// takes tells whether a client can do with the kind of a certificate, whatever
// its name.
func takes(hello *tls.ClientHelloInfo, cert *tls.Certificate) bool {
	h := *hello
	h.ServerName = ""
	return h.SupportsCertificate(cert) == nil
}

// Certificate returns the chain as crypto/tls has it, its key at the other end of
// ask.
func (c *Chain) Certificate(ctx context.Context, ask Oracle) *tls.Certificate {
	return &tls.Certificate{Certificate: c.DER, Leaf: c.Leaf, PrivateKey: c.Signer(ctx, ask)}
}

// Fingerprint names a certificate in the log.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "SHA256:" + hex.EncodeToString(sum[:])
}
