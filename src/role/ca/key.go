package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // the hashes that TLS signs
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// pair reads the key of a pki and holds it against the certificate.
func pair(files map[string]proc.File, k *project.Key) (msg.KeyID, crypto.Signer, error) {
	text, err := read(files, k.Identity)
	if err != nil {
		return msg.KeyID{}, nil, err
	}
	defer clear(text)
	cert, err := read(files, k.Cert)
	if err != nil {
		return msg.KeyID{}, nil, err
	}
	id, key, err := match(cert, text)
	if err != nil {
		return id, nil, fmt.Errorf("key %s, certificate %s: %w", path(k.Identity), path(k.Cert), err)
	}
	return id, key, nil
}

// Check tells why a file with a key does not go with one of certificates.
func Check(cert, key []byte) error {
	_, _, err := match(cert, key)
	return err
}

func match(cert, text []byte) (msg.KeyID, crypto.Signer, error) {
	key, err := parse(text)
	if err != nil {
		return msg.KeyID{}, nil, fmt.Errorf("the key %w", err)
	}
	chain, err := pki.ParseChain(cert)
	if err != nil {
		return msg.KeyID{}, nil, fmt.Errorf("the certificate: %w", err)
	}
	id, err := pki.KeyID(key.Public())
	if err != nil || id == chain.Key {
		return id, key, err
	}
	err = errors.New("the key is not that of the certificate")
	if n := chain.Holds(id); n > 0 {
		err = fmt.Errorf("%w but that of the certificate numbered %d: it must be the first in the file", err, n)
	}
	return id, key, err
}

// path returns the file that an identity stands for.
func path(identity string) string {
	_, p, _ := strings.Cut(identity, ":")
	return p
}

func read(files map[string]proc.File, identity string) ([]byte, error) {
	f, ok := files[identity]
	if !ok {
		return nil, fmt.Errorf("%s was not given", path(identity))
	}
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > pki.MaxFile {
		return nil, fmt.Errorf("%s is too large", path(identity))
	}
	// Of the exact size: a buffer that grows would leave copies behind.
	b := make([]byte, fi.Size())
	n, err := f.File.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		clear(b)
		return nil, err
	}
	return b[:n], nil
}

var errEncrypted = errors.New("has a passphrase, for which nobody can be asked: remove it with " +
	"`openssl pkey -in FILE -out NEWFILE`")

// parse reads a private key in PEM form: PKCS #8, PKCS #1 or SEC 1. Errors say
// nothing of what is in it.
func parse(text []byte) (crypto.Signer, error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return nil, errors.New("file holds no private key in PEM form")
		}
		if !strings.HasSuffix(b.Type, "PRIVATE KEY") {
			continue
		}
		defer clear(b.Bytes)
		if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errEncrypted
		}
		return parseKey(b)
	}
}

func parseKey(b *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch b.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	default:
		return nil, fmt.Errorf("is of a kind that is not known: %s", b.Type)
	}
	s, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("cannot be read as %s", b.Type)
	}
	if err := pki.Usable(s.Public()); err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	return s, nil
}

// maxMessage is the longest message that is signed as a whole: with Ed25519, TLS
// 1.2 has a client sign its handshake so far.
const maxMessage = 64 << 10

// hashes are those whose values are signed. MD5SHA1 is for TLS before 1.2.
// Never written.
var hashes = map[crypto.Hash]bool{
	crypto.MD5SHA1: true, crypto.SHA1: true, crypto.SHA256: true, crypto.SHA384: true, crypto.SHA512: true,
}

// signature signs what is asked for, if TLS would ask so.
func signature(key crypto.Signer, m *msg.Sign) ([]byte, error) {
	hash := crypto.Hash(m.Hash)
	var opts crypto.SignerOpts = hash
	switch key.(type) {
	case nil:
		return nil, errors.New("there is no such key")
	case ed25519.PrivateKey:
		if hash != 0 || m.PSS || len(m.Data) > maxMessage {
			return nil, errors.New("Ed25519 signs messages, of at most 64 KiB")
		}
		return key.Sign(rand.Reader, m.Data, opts)
	case *ecdsa.PrivateKey:
		if m.PSS || hash == crypto.MD5SHA1 {
			return nil, errors.New("that is for RSA keys")
		}
	case *rsa.PrivateKey:
		if m.PSS {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
	}
	if !hashes[hash] || len(m.Data) != hash.Size() {
		return nil, errors.New("that is no hash")
	}
	return key.Sign(rand.Reader, m.Data, opts)
}
