package mta

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/filter"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mail/srs"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

// Config is one generation of the configuration.
type Config struct {
	Gen     mail.Gen
	Server  string // our name
	Actions map[string]*Action
	Limits  []project.MTALimits // the first holds for every domain that has none of its own
	// Own are the addresses at which we take mail ourselves; an unspecified one
	// stands for all of this machine.
	Own []netip.AddrPort
	// SRS rewrites the senders of forwarded mail; nil without a key.
	SRS *srs.Rewriter
}

// Action is a relay action.
type Action struct {
	project.RelayAction
	url  *conf.RelayURL // of Host; nil without
	from addr.Address   // of MailFrom: what is not empty replaces a part of the sender
	tls  *tls.Config    // without name and verification
	ca   *x509.CertPool
	// policy is the one that this form of the action is for; forms has them all.
	policy policy
	forms  [policies]*Action
	// heard is who hears of the sessions; nil: nobody.
	heard *filter.Outbound
}

// ToldTo lets o hear of the sessions.
func (a *Action) ToldTo(o *filter.Outbound) {
	for _, f := range a.forms {
		f.heard = o
	}
}

// policy is what a message asks of TLS (RFC 8689).
type policy uint8

const (
	usual policy = iota
	// strict mail must travel in TLS from server to server: REQUIRETLS.
	strict
	// lax mail rather travels in clear text than not at all: TLS-Required: No.
	lax
	policies
)

// policyOf returns that of a message.
func policyOf(e *envelope.Envelope) policy {
	switch {
	case e.Flags&envelope.RequireTLS != 0:
		return strict
	case e.Flags&envelope.TLSOptional != 0:
		return lax
	}
	return usual
}

// form makes the forms of an action. In the strict one there is no other way than
// TLS, and no server is trusted without a certificate. The lax one demands no TLS
// of the servers of others; how our own smarthost is reached is not for the
// sender to say.
func (a *Action) form() {
	tight := *a
	tight.policy, tight.TLS, tight.NoVerify = strict, true, false
	a.forms = [...]*Action{usual: a, strict: &tight, lax: a}
	if a.TLS && a.Host == "" && a.Hosts == "" {
		loose := *a
		loose.policy, loose.TLS = lax, false
		a.forms[lax] = &loose
	}
}

// NewConfig makes one of what dispatcher was sent. bundle holds the certificates
// that this system trusts; ca returns those of a `ca` by its name.
func NewConfig(gen mail.Gen, p *project.DispatcherConf, bundle []byte, ca func(string) ([]byte, error)) (*Config, error) {
	c := &Config{Gen: gen, Server: p.ServerName, Actions: make(map[string]*Action), Limits: p.MTALimits}
	if p.SRSKey != "" {
		c.SRS = &srs.Rewriter{Key: p.SRSKey, Backup: p.SRSKeyBackup, TTL: p.SRSTTL}
	}
	for i := range p.Listeners {
		if !p.Listeners[i].Socket {
			c.Own = append(c.Own, p.Listeners[i].Addr)
		}
	}
	var system *x509.CertPool
	for _, r := range p.Relays {
		a := &Action{RelayAction: r, from: senderParts(r.MailFrom)}
		if r.Host != "" {
			u, err := conf.ParseRelay(r.Host)
			if err != nil {
				return nil, fmt.Errorf("action %s: %w", r.Name, err)
			}
			a.url = &u
		}
		if r.CA != "" {
			pem, err := ca(r.CA)
			if err != nil {
				return nil, fmt.Errorf("action %s: ca %s: %w", r.Name, r.CA, err)
			}
			if a.ca = x509.NewCertPool(); !a.ca.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("action %s: ca %s holds no certificate", r.Name, r.CA)
			}
		} else {
			if system == nil {
				system = x509.NewCertPool()
				system.AppendCertsFromPEM(bundle) // an empty pool trusts nobody
			}
			a.ca = system
		}
		a.tls = &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(tlsSessions)}
		if err := a.strength(p.Ciphers); err != nil {
			return nil, fmt.Errorf("action %s: %w", r.Name, err)
		}
		a.form()
		c.Actions[r.Name] = a
	}
	return c, nil
}

// tlsSessions is how many TLS sessions an action remembers, to resume.
const tlsSessions = 64

// limits returns those of a domain.
func (c *Config) limits(domain string) *project.MTALimits {
	if len(c.Limits) == 0 {
		return &project.MTALimits{TaskHiwat: 50, TaskLowat: 30, TaskRelease: 10}
	}
	for i := range c.Limits {
		if d := c.Limits[i].Domain; d != "" && addr.EqualDomain(d, domain) {
			return &c.Limits[i]
		}
	}
	return &c.Limits[0]
}

// own tells whether mail that is sent to an address comes back to us.
func (c *Config) own(a netip.AddrPort, local bool) bool {
	return slices.ContainsFunc(c.Own, func(o netip.AddrPort) bool {
		return o.Port() == a.Port() && (o.Addr().Unmap() == a.Addr().Unmap() || local && o.Addr().IsUnspecified())
	})
}

// senderParts reads a mail-from option: user@domain, @domain or user.
func senderParts(s string) addr.Address {
	if s == "" {
		return addr.Address{}
	}
	return addr.Cut(s)
}

// sender is who a message is from, as the action wants it; the null sender
// stays.
func (a *Action) sender(s addr.Address) addr.Address {
	if s.IsZero() {
		return s
	}
	if a.from.Local != "" {
		s.Local = a.from.Local
	}
	if a.from.Domain != "" {
		s.Domain = a.from.Domain
	}
	return s
}

// strength sets which versions and ciphers are offered. ciphers are those of the
// server for actions without any.
func (a *Action) strength(ciphers string) error {
	v, err := pki.ParseProtocols(a.Protocols)
	if err != nil {
		return err
	}
	if a.Ciphers != "" {
		ciphers = a.Ciphers
	}
	c, err := pki.ParseCiphers(ciphers)
	a.tls.MinVersion, a.tls.MaxVersion, a.tls.CipherSuites = v.Min, v.Max, c.Suites
	return err
}

// forwarder is the domain for which a message is forwarded: that of the
// recipient who was expanded to another, "" when there is none.
func forwarder(t *msg.RelayTask) string {
	for i := range t.Envelopes {
		if e := &t.Envelopes[i]; !e.Rcpt.IsZero() && !e.Rcpt.Equal(e.Dest) {
			return e.Rcpt.Domain
		}
	}
	return ""
}

// Identify gives the actions with a pki their certificates, by its name. They are
// shown to servers that ask for one, whatever authorities these say they like.
func (c *Config) Identify(cert func(pki string) (*tls.Certificate, error)) error {
	for name, a := range c.Actions {
		if a.PKI == "" {
			continue
		}
		own, err := cert(a.PKI)
		if err != nil {
			return fmt.Errorf("action %s: %w", name, err)
		}
		a.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	return nil
}
