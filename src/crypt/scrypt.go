package crypt

import (
	"crypto/subtle"
	"strings"

	"github.com/go-crypt/x/scrypt"
	"github.com/go-crypt/x/yescrypt"
)

// The scheme "$7$" of crypt(5), which the library does not read:
//
//	"$7$" N r p salt "$" key
//
// N is one digit, the logarithm of the cost to base 2; r and p have five digits
// each, the lowest first; the salt is used as it is written.
const (
	digits    = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	headOf7   = len("$7$") + 1 + 5 + 5
	keySize   = 32 // bytes, and written
	keyDigits = 43
	maxLog    = 20      // of N: 1 GiB with r = 8
	maxBlocks = 1 << 10 // r * p
)

func decodeScrypt(hash string) (matcher, error) {
	if len(hash) < headOf7 {
		return nil, ErrScheme
	}
	logN, r, p := strings.IndexByte(digits, hash[3]), number(hash[4:9]), number(hash[9:14])
	if logN < 1 || logN > maxLog || r < 1 || r > maxBlocks || p < 1 || p > maxBlocks/r {
		return nil, ErrScheme
	}
	salt, want, ok := strings.Cut(hash[headOf7:], "$")
	if !ok || salt == "" || len(want) != keyDigits {
		return nil, ErrScheme
	}
	return func(password string) (bool, error) {
		key, err := scrypt.Key([]byte(password), []byte(salt), 1<<logN, r, p, keySize)
		if err != nil {
			return false, err
		}
		return subtle.ConstantTimeCompare(yescrypt.Encode64(key), []byte(want)) == 1, nil
	}, nil
}

// decodeYescrypt leaves the reading to the library, which refuses costs that
// nobody sets (more than 1 GiB) only when it is too late.
func decodeYescrypt(hash string) (matcher, error) {
	if len(hash) < len("$y$j9T$") || strings.IndexByte(digits, hash[4]) >= maxLog {
		return nil, ErrScheme
	}
	end := strings.LastIndexByte(hash, '$')
	if len(hash)-end-1 != keyDigits {
		return nil, ErrScheme
	}
	return func(password string) (bool, error) {
		got, err := yescrypt.Hash([]byte(password), []byte(hash))
		if err != nil {
			return false, err
		}
		return subtle.ConstantTimeCompare(got, []byte(hash)) == 1, nil
	}, nil
}

// number reads digits, the lowest first; -1 when there is something else.
func number(s string) int {
	n := 0
	for i := len(s) - 1; i >= 0; i-- {
		d := strings.IndexByte(digits, s[i])
		if d < 0 {
			return -1
		}
		n = n<<6 | d
	}
	return n
}
