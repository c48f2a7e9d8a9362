// Package pki is what certificates are to this daemon: chains as files hold
// them, the choice among several by the name that a client asks for, the words
// of smtpd.conf(5) for versions and ciphers, and signatures that another process
// makes. No private key is ever in here.
package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"opensmtpd/src/privsep/msg"
)

// MaxFile is the longest file of certificates or of a key that is read: the
// bundles of systems have less than 300 KiB.
const MaxFile = 4 << 20

// Chain is a certificate with those that lead to its authority.
type Chain struct {
	DER  [][]byte // the certificate first
	Leaf *x509.Certificate
	Key  msg.KeyID
	// names are what the certificate is for, lower case.
	names []string
}

// ErrNoCertificate is what a file without one is refused with.
var ErrNoCertificate = errors.New("holds no certificate in PEM form")

// ParseChain reads a file in PEM form. What is no certificate is skipped: many
// files have the key in them too.
func ParseChain(text []byte) (*Chain, error) {
	c := new(Chain)
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" && b.Type != "X509 CERTIFICATE" {
			clear(b.Bytes)
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(c.DER)+1, err)
		}
		if c.Leaf == nil {
			c.Leaf = cert
		}
		c.DER = append(c.DER, b.Bytes)
	}
	if c.Leaf == nil {
		return nil, ErrNoCertificate
	}
	if err := Usable(c.Leaf.PublicKey); err != nil {
		return nil, err
	}
	var err error
	if c.Key, err = KeyID(c.Leaf.PublicKey); err != nil {
		return nil, err
	}
	c.names = names(c.Leaf)
	return c, nil
}

// KeyID names a public key.
func KeyID(public any) (msg.KeyID, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return msg.KeyID{}, err
	}
	return sha256.Sum256(der), nil
}

// minRSA is the least size of an RSA key, in bits: crypto/rsa does not sign with
// a smaller one.
const minRSA = 1024

// Usable tells why TLS cannot do with a public key.
func Usable(public any) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA {
			return fmt.Errorf("an RSA key of %d bits is too small: make one of 2048", n)
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fmt.Errorf("TLS has no keys on the curve %s: use P-256", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of the type %T cannot be used: RSA, ECDSA and Ed25519 can", public)
	}
	return nil
}

// names returns the DNS names of a certificate: those of its extension, or, as
// certificates of old have it, its common name.
func names(c *x509.Certificate) []string {
	list := c.DNSNames
	if len(list) == 0 && len(c.IPAddresses) == 0 && c.Subject.CommonName != "" {
		list = []string{c.Subject.CommonName}
	}
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = strings.TrimSuffix(strings.ToLower(n), ".")
	}
	return out
}

// Matches tells whether the certificate is for a name. A "*" stands for one
// label, the first (RFC 6125 section 6.4.3).
func (c *Chain) Matches(name string) bool {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if name == "" {
		return false
	}
	_, parent, dotted := strings.Cut(name, ".")
	for _, n := range c.names {
		if n == name {
			return true
		}
		if after, wild := strings.CutPrefix(n, "*."); wild && dotted && after == parent {
			return true
		}
	}
	return false
}

// goodRSA is the least size of an RSA key that clients of today take.
const goodRSA = 2048

// Remark tells what an administrator should know about the certificate at now; ""
// when there is nothing.
func (c *Chain) Remark(now time.Time) string {
	const day = "2006-01-02"
	switch {
	case now.After(c.Leaf.NotAfter):
		return "the certificate has expired on " + c.Leaf.NotAfter.Format(day)
	case now.Before(c.Leaf.NotBefore):
		return "the certificate is not valid before " + c.Leaf.NotBefore.Format(day)
	}
	if k, ok := c.Leaf.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < goodRSA {
		return fmt.Sprintf("many clients refuse an RSA key of %d bits: make one of %d", k.N.BitLen(), goodRSA)
	}
	return ""
}

// Holds returns which certificate of the chain is that of a key, from 1 on; 0:
// none.
func (c *Chain) Holds(key msg.KeyID) int {
	for i, der := range c.DER {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if id, err := KeyID(cert.PublicKey); err == nil && id == key {
			return i + 1
		}
	}
	return 0
}

// ParseAuthorities reads a file of certificates that are trusted.
func ParseAuthorities(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, ErrNoCertificate
	}
	return pool, nil
}
