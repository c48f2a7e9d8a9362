// Package crypt checks passwords against their hashes in the forms of crypt(3),
// and makes such hashes. A hash is "$scheme$…"; which schemes there are is a
// table.
//
// What is no hash of a known scheme matches no password: an empty string, "*",
// "!", a locked "!$6$…", a password in clear. Old DES hashes are among them.
package crypt

import (
	"errors"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/md5crypt"
	"github.com/go-crypt/crypt/algorithm/sha1crypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// MaxPassword is the longest password that is looked at, in bytes: the cost of
// some schemes grows with it. OpenSMTPD's limit is the same.
const MaxPassword = 1024

// maxHash is the longest hash that is looked at.
const maxHash = 1024

// ErrScheme says that a hash is of no scheme that is known here, or malformed.
var ErrScheme = errors.New("no password hash of a known scheme")

// matcher compares a password with a hash.
type matcher = func(password string) (bool, error)

// schemes are the schemes, by how their hashes begin. The table is never
// written.
var schemes = []struct {
	prefix string
	decode func(string) (matcher, error)
}{
	{"$2a$", library(bcrypt.DecodeVariant(bcrypt.VariantStandard))},
	{"$2b$", library(bcrypt.DecodeVariant(bcrypt.VariantStandard))},
	{"$2y$", library(bcrypt.DecodeVariant(bcrypt.VariantStandard))},
	{"$y$", decodeYescrypt},
	{"$6$", library(shacrypt.DecodeVariant(shacrypt.VariantSHA512))},
	{"$5$", library(shacrypt.DecodeVariant(shacrypt.VariantSHA256))},
	{"$7$", decodeScrypt},
	{"$argon2", library(argon2.DecodeVariant(argon2.VariantNone))},
	{"$1$", library(md5crypt.DecodeVariant(md5crypt.VariantStandard))},
	{"$md5", library(md5crypt.DecodeVariant(md5crypt.VariantSun))},
	{"$sha1$", library(sha1crypt.Decode)},
	{scramPrefix, decodeScram},
}

func library(decode func(string) (algorithm.Digest, error)) func(string) (matcher, error) {
	return func(hash string) (matcher, error) {
		d, err := decode(hash)
		if err != nil {
			return nil, err
		}
		return d.MatchAdvanced, nil
	}
}

// A Hash is one that has been understood.
type Hash struct{ match matcher }

// Parse reads a hash.
func Parse(hash string) (Hash, error) {
	if len(hash) > maxHash || strings.IndexByte(hash, 0) >= 0 {
		return Hash{}, ErrScheme
	}
	for _, s := range schemes {
		if !strings.HasPrefix(hash, s.prefix) {
			continue
		}
		match, err := s.decode(hash)
		if err != nil {
			return Hash{}, ErrScheme
		}
		return Hash{match}, nil
	}
	return Hash{}, ErrScheme
}

// Matches tells whether password is the one that h was made of. It takes as
// long for a wrong password as for the right one.
func (h Hash) Matches(password string) bool {
	if h.match == nil || len(password) > MaxPassword || strings.IndexByte(password, 0) >= 0 {
		return false
	}
	ok, err := h.match(password)
	return ok && err == nil
}

// Decoy is a hash to compare passwords with when there is none: a user who does
// not exist must cost what one does who does. Nobody knows a password for it,
// and what it says is not to be believed.
const Decoy = "$2b$10$abcdefghijklmnopqrstuu..............................."
