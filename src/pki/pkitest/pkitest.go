// Package pkitest makes certificates for tests, and plays the process that signs
// with their keys.
package pkitest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
)

// The kinds of keys.
const (
	ECDSA   = "ecdsa" // on P-256
	P384    = "p384"
	P521    = "p521"
	RSA     = "rsa" // of 2048 bits
	RSA1024 = "rsa1024"
	RSA4096 = "rsa4096"
	Ed25519 = "ed25519"
)

// Authority issues certificates.
type Authority struct {
	t    testing.TB
	PEM  []byte // its own certificate
	cert *x509.Certificate
	key  crypto.Signer
	keys map[msg.KeyID]crypto.Signer
	next int64
}

// New returns an authority of its own kind.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, keys: make(map[msg.KeyID]crypto.Signer), key: newKey(t, ECDSA)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case RSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA1024:
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case RSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Issue makes a key of a kind and a certificate for names, as files hold them.
// Without names there is a common name alone: "only.common.example".
func (a *Authority) Issue(kind string, names ...string) (cert, key []byte) {
	a.t.Helper()
	return a.IssueAt(time.Now(), kind, names...)
}

// IssueAt is Issue for a certificate that is valid a day from the given time on.
func (a *Authority) IssueAt(from time.Time, kind string, names ...string) (cert, key []byte) {
	a.t.Helper()
	a.next++
	k := newKey(a.t, kind)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.next), DNSNames: names,
		NotBefore: from.Add(-time.Hour), NotAfter: from.Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names) == 0 {
		tmpl.Subject.CommonName = "only.common.example"
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	id, err := pki.KeyID(k.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	a.keys[id] = k
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.PEM...)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// Chain issues a certificate and parses it.
func (a *Authority) Chain(kind string, names ...string) *pki.Chain {
	a.t.Helper()
	cert, _ := a.Issue(kind, names...)
	c, err := pki.ParseChain(cert)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// Sign is a pki.Oracle with every key that was issued.
func (a *Authority) Sign(_ context.Context, m *msg.Sign) ([]byte, error) {
	key := a.keys[m.Key]
	if key == nil {
		return nil, errors.New("no such key")
	}
	var opts crypto.SignerOpts = crypto.Hash(m.Hash)
	if m.PSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.Hash(m.Hash)}
	}
	return key.Sign(rand.Reader, m.Data, opts)
}

// TB is the test that the authority is for.
func (a *Authority) TB() testing.TB { return a.t }

// Pool trusts the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Client is the configuration of a client that asks for a name, and trusts the
// authority.
func (a *Authority) Client(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: a.Pool()}
}

// Identity issues a certificate for a client to show.
func (a *Authority) Identity(name string) tls.Certificate {
	a.t.Helper()
	cert, key := a.Issue(ECDSA, name)
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}
