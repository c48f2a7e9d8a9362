package mta

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
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
}

// Action is a relay action.
type Action struct {
	project.RelayAction
	url  *conf.RelayURL // of Host; nil without
	from addr.Address   // of MailFrom: what is not empty replaces a part of the sender
	tls  *tls.Config    // without name and verification
	ca   *x509.CertPool
}

// NewConfig makes one of what dispatcher was sent. bundle holds the certificates
// that this system trusts; ca returns those of a `ca` by its name.
func NewConfig(gen mail.Gen, p *project.DispatcherConf, bundle []byte, ca func(string) ([]byte, error)) (*Config, error) {
	c := &Config{Gen: gen, Server: p.ServerName, Actions: make(map[string]*Action), Limits: p.MTALimits}
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
		if err := protocols(a.tls, r.Protocols); err != nil {
			return nil, fmt.Errorf("action %s: %w", r.Name, err)
		}
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

// tlsVersions are the words of tls_config_parse_protocols(3). Never written.
var tlsVersions = map[string][]uint16{
	"tlsv1.0": {tls.VersionTLS10}, "tlsv1.1": {tls.VersionTLS11}, "tlsv1.2": {tls.VersionTLS12}, "tlsv1.3": {tls.VersionTLS13},
	"tlsv1":  {tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13},
	"all":    {tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13},
	"legacy": {tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13},
	"secure": {tls.VersionTLS12, tls.VersionTLS13}, "default": {tls.VersionTLS12, tls.VersionTLS13},
}

// protocols sets the versions that a list allows.
func protocols(t *tls.Config, list string) error {
	t.MinVersion = tls.VersionTLS12
	if list == "" {
		return nil
	}
	allowed := make(map[uint16]bool)
	first := true
	for word := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ':' || r == ' ' }) {
		name, not := strings.CutPrefix(strings.ToLower(word), "!")
		versions, ok := tlsVersions[name]
		if !ok {
			return fmt.Errorf("protocols: %q is unknown", word)
		}
		if first && not {
			for _, v := range tlsVersions["all"] {
				allowed[v] = true
			}
		}
		first = false
		for _, v := range versions {
			allowed[v] = !not
		}
	}
	t.MinVersion, t.MaxVersion = 0, 0
	for _, v := range tlsVersions["all"] {
		if !allowed[v] {
			continue
		}
		if t.MinVersion == 0 {
			t.MinVersion = v
		}
		t.MaxVersion = v
	}
	if t.MinVersion == 0 {
		return fmt.Errorf("protocols: %q leaves none", list)
	}
	return nil
}
