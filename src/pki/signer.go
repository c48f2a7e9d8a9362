package pki

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"opensmtpd/src/privsep/msg"
)

// Oracle signs, somewhere else.
type Oracle func(ctx context.Context, m *msg.Sign) ([]byte, error)

// Signer returns what crypto/tls takes for the private key of the chain: it asks.
// ctx bounds every question.
func (c *Chain) Signer(ctx context.Context, ask Oracle) crypto.Signer {
	return &signer{ctx: ctx, chain: c, ask: ask}
}

type signer struct {
	ctx   context.Context
	chain *Chain
	ask   Oracle
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.chain.Leaf.PublicKey }

// Sign implements crypto.Signer. Randomness comes from whoever has the key.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	m := &msg.Sign{Key: s.chain.Key, Hash: uint8(opts.HashFunc()), Data: digest}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		m.PSS = true
		if n := pss.SaltLength; n != rsa.PSSSaltLengthEqualsHash && n != opts.HashFunc().Size() {
			return nil, fmt.Errorf("a salt of %d bytes is not had", n)
		}
	}
	sig, err := s.ask(s.ctx, m)
	if err == nil && len(sig) == 0 {
		err = errors.New("an empty signature")
	}
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sig, nil
}
