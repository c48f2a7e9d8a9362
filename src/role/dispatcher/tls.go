package dispatcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/smtp/server"
)

// certificates are what a generation shows and trusts, by the names of the
// configuration.
type certificates struct {
	role   *Role
	conf   *project.DispatcherConf
	chains map[string]*pki.Chain
	bundle []byte // certificates that the system trusts
	files  map[string]*os.File
}

// newCertificates reads the files of the pki statements.
func (r *Role) newCertificates(c proc.Conf, p *project.DispatcherConf, files map[string]*os.File) (*certificates, error) {
	x := &certificates{role: r, conf: p, chains: make(map[string]*pki.Chain), bundle: c.Resources.CABundle, files: files}
	for _, k := range p.PKIs {
		text, err := x.read(k.Identity)
		if err == nil {
			x.chains[k.Name], err = pki.ParseChain(text)
		}
		if err != nil {
			return nil, fmt.Errorf("pki %s: %w", k.Name, err)
		}
		r.remark(k.Name, x.chains[k.Name], r.clock.Now())
	}
	return x, nil
}

// remark warns of a certificate about which something is to be said.
func (r *Role) remark(name string, c *pki.Chain, now time.Time) {
	if text := c.Remark(now); text != "" {
		r.log.Warnf("warn: pki %s: %s", name, text)
	}
}

// datesEvery is how often certificates in use are looked at.
const datesEvery = time.Hour

// watchDates warns of certificates that expire after before, while they are in
// use, until ctx ends.
func (r *Role) watchDates(ctx context.Context, before time.Time) {
	for {
		due, cancel := r.clock.After(datesEvery)
		select {
		case <-due:
		case <-ctx.Done():
			cancel()
			return
		}
		r.mu.Lock()
		chains := r.current.chains
		r.mu.Unlock()
		now := r.clock.Now()
		for name, c := range chains {
			if end := c.Leaf.NotAfter; now.After(end) && !before.After(end) {
				r.remark(name, c, now)
			}
		}
		before = now
	}
}

func (x *certificates) read(identity string) ([]byte, error) {
	f := x.files[identity]
	if f == nil {
		return nil, fmt.Errorf("its file was not given")
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > pki.MaxFile {
		return nil, fmt.Errorf("its file is too large")
	}
	return io.ReadAll(io.NewSectionReader(f, 0, fi.Size()))
}

// authority returns the text of a ca.
func (x *certificates) authority(name string) ([]byte, error) {
	for _, ca := range x.conf.CAs {
		if ca.Name == name {
			return x.read(ca.Identity)
		}
	}
	return nil, fmt.Errorf("there is no ca of that name")
}

// listener makes the TLS of one listener, nil for one without.
func (x *certificates) listener(l *project.Listener) (*server.TLS, error) {
	if l.TLS == conf.NoTLS {
		return nil, nil
	}
	s := pki.Server{Ask: x.role.ask, Turns: x.role.turns, Verify: l.TLSVerify, Protocols: l.Protocols, Ciphers: l.Ciphers}
	if s.Ciphers == "" {
		s.Ciphers = x.conf.Ciphers
	}
	for _, name := range l.PKIs {
		c := x.chains[name]
		if c == nil {
			return nil, fmt.Errorf("there is no pki %s", name)
		}
		s.Chains = append(s.Chains, c)
	}
	if len(s.Chains) == 0 {
		return nil, fmt.Errorf("it has no pki")
	}
	var err error
	if s.Verify {
		if s.Authorities, err = x.authorities(l.CA); err != nil {
			return nil, err
		}
	}
	t := &server.TLS{Immediate: l.TLS == conf.SMTPS, Require: l.TLS == conf.StartTLSRequire, Verify: l.TLSVerify}
	t.Config, err = s.Config(x.role.ctx)
	return t, err
}

// identity returns what a relay action shows of us.
func (x *certificates) identity(name string) (*tls.Certificate, error) {
	c := x.chains[name]
	if c == nil {
		return nil, fmt.Errorf("there is no pki %s", name)
	}
	return c.Certificate(x.role.ctx, x.role.ask), nil
}

// authorities returns whom a listener trusts: a ca, or whom the system does.
func (x *certificates) authorities(ca string) (*x509.CertPool, error) {
	text := x.bundle
	if ca != "" {
		var err error
		if text, err = x.authority(ca); err != nil {
			return nil, fmt.Errorf("ca %s: %w", ca, err)
		}
	}
	pool, err := pki.ParseAuthorities(text)
	if err != nil && ca != "" {
		err = fmt.Errorf("ca %s: %w", ca, err)
	}
	return pool, err
}

// ask has crypto sign. It implements pki.Oracle.
func (r *Role) ask(ctx context.Context, m *msg.Sign) ([]byte, error) {
	var got msg.Signed
	if err := r.env.Peers[proc.Crypto].Call(ctx, m, &got); err != nil {
		return nil, err
	}
	if got.Err != nil {
		return nil, got.Err
	}
	return got.Signature, nil
}

// signatures is how many signatures are asked for at once: enough to keep crypto
// busy on every core, little enough that those who wait are served in turns.
func signatures() int { return 2*runtime.NumCPU() + 2 }
