package crypt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// DefaultScheme is that of hashes that are made without a wish for another: what
// crypt(3) of every system reads, OpenBSD's included.
const DefaultScheme = "bcrypt"

// bcryptRounds is the work of a bcrypt hash: 2 to this power, some 60 ms.
const bcryptRounds = 10

var (
	errNUL   = errors.New("password with a NUL byte")
	errEmpty = errors.New("empty password")
)

// maker is a scheme in which hashes are made.
type maker struct {
	name string
	max  int // bytes of a password that the scheme looks at
	make func(password string) (string, error)
}

// hashed makes a maker's function of the library's.
func hashed(hasher func() (algorithm.Hash, error)) func(string) (string, error) {
	return func(password string) (string, error) {
		h, err := hasher()
		if err != nil {
			return "", err
		}
		d, err := h.Hash(password)
		if err != nil {
			return "", err
		}
		return d.Encode(), nil
	}
}

// makers is never written.
var makers = []maker{
	// A password longer than bcrypt looks at would be taken for its beginning.
	{"bcrypt", bcrypt.PasswordInputSizeMax, hashed(func() (algorithm.Hash, error) {
		return bcrypt.New(bcrypt.WithVariant(bcrypt.VariantStandard), bcrypt.WithIterations(bcryptRounds))
	})},
	{"yescrypt", MaxPassword, hashed(func() (algorithm.Hash, error) {
		return scrypt.New(scrypt.WithVariant(scrypt.VariantYescrypt), scrypt.WithLN(12), scrypt.WithR(32), scrypt.WithP(1))
	})},
	{"sha512", MaxPassword, hashed(func() (algorithm.Hash, error) {
		return shacrypt.New(shacrypt.WithVariant(shacrypt.VariantSHA512), shacrypt.WithIterations(100000))
	})},
	{"sha256", MaxPassword, hashed(func() (algorithm.Hash, error) {
		return shacrypt.New(shacrypt.WithVariant(shacrypt.VariantSHA256), shacrypt.WithIterations(100000))
	})},
	{"argon2id", MaxPassword, hashed(func() (algorithm.Hash, error) {
		return argon2.New(argon2.WithVariant(argon2.VariantID), argon2.WithM(19<<10), argon2.WithT(2), argon2.WithP(1))
	})},
	{"scram-sha-256", MaxPassword, makeScram},
}

// Schemes are the names that Make takes.
func Schemes() []string {
	names := make([]string, len(makers))
	for i := range makers {
		names[i] = makers[i].name
	}
	return names
}

// Make returns a hash of password.
func Make(scheme, password string) (string, error) {
	i := slices.IndexFunc(makers, func(m maker) bool { return m.name == scheme })
	switch {
	case i < 0:
		return "", fmt.Errorf("unknown scheme %q: there are %s", scheme, strings.Join(Schemes(), ", "))
	case password == "":
		return "", errEmpty
	case len(password) > makers[i].max:
		return "", fmt.Errorf("password longer than %d bytes, which %s cannot tell apart", makers[i].max, scheme)
	case strings.IndexByte(password, 0) >= 0:
		return "", errNUL
	}
	return makers[i].make(password)
}
