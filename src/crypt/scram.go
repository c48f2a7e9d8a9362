package crypt

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// A secret of SCRAM-SHA-256 (RFC 5802, RFC 7677), as PostgreSQL writes it:
//
//	"SCRAM-SHA-256$" iterations ":" salt "$" stored-key ":" server-key
//
// Salt and keys are in base64. It is a hash like the others, that serves the
// mechanism of that name besides.
const scramPrefix = "SCRAM-SHA-256$"

const (
	scramIterations = 4096 // RFC 7677 section 4 wants at least that
	// maxIterations is what a second of one processor does, or so.
	maxIterations = 10_000_000
	scramSalt     = 16
)

// Scram is a secret that has been understood.
type Scram struct {
	Salt                 []byte
	Iterations           int
	StoredKey, ServerKey []byte
}

// ParseScram reads a secret.
func ParseScram(secret string) (Scram, error) {
	var s Scram
	rest, ok := strings.CutPrefix(secret, scramPrefix)
	if !ok || len(secret) > maxHash {
		return s, ErrScheme
	}
	cost, keys, ok1 := strings.Cut(rest, "$")
	count, salt, ok2 := strings.Cut(cost, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	var errs [4]error
	s.Iterations, errs[0] = strconv.Atoi(count)
	s.Salt, errs[1] = base64.StdEncoding.DecodeString(salt)
	s.StoredKey, errs[2] = base64.StdEncoding.DecodeString(stored)
	s.ServerKey, errs[3] = base64.StdEncoding.DecodeString(server)
	bad := !ok1 || !ok2 || !ok3 || s.Iterations < 1 || s.Iterations > maxIterations || len(s.Salt) == 0 ||
		len(s.StoredKey) != sha256.Size || len(s.ServerKey) != sha256.Size
	for _, err := range errs {
		bad = bad || err != nil
	}
	if bad {
		return Scram{}, ErrScheme
	}
	return s, nil
}

// decodeScram makes a hash of a secret.
func decodeScram(secret string) (matcher, error) {
	s, err := ParseScram(secret)
	if err != nil {
		return nil, err
	}
	return func(password string) (bool, error) {
		again, err := scramKeys(password, s.Salt, s.Iterations)
		if err != nil {
			return false, err
		}
		return subtle.ConstantTimeCompare(again.StoredKey, s.StoredKey) == 1, nil
	}, nil
}

// Proves tells whether a client's proof shows that it knows the password, and
// signs to show that we do (RFC 5802 section 3).
func (s Scram) Proves(authMessage string, proof []byte) (signature []byte, ok bool) {
	if len(proof) != sha256.Size {
		return nil, false
	}
	sign := sum(s.StoredKey, authMessage)
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, sign, proof)
	stored := sha256.Sum256(key)
	if subtle.ConstantTimeCompare(stored[:], s.StoredKey) != 1 {
		return nil, false
	}
	return sum(s.ServerKey, authMessage), true
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func scramKeys(password string, salt []byte, iterations int) (Scram, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return Scram{}, err
	}
	stored := sha256.Sum256(sum(salted, "Client Key"))
	return Scram{salt, iterations, stored[:], sum(salted, "Server Key")}, nil
}

func makeScram(password string) (string, error) {
	salt := make([]byte, scramSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	s, err := scramKeys(password, salt, scramIterations)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, s.Iterations, b64(s.Salt), b64(s.StoredKey), b64(s.ServerKey)), nil
}
