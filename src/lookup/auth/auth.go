// Package auth tells whether a password is a user's: by a table of credentials,
// whose values are hashes in the forms of package crypt, or by the auth service
// of a table that verifies by itself.
//
// Hashing is dear on purpose, and strangers ask for it. So no more passwords are
// hashed at a time than a Checker has places, and all others wait; a user who
// does not exist, or whose entry is no hash, costs as much as a wrong password.
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/table"
)

// Checker verifies passwords. It is safe for use by many goroutines.
type Checker struct {
	places  chan struct{}
	matches func(hash, password string) bool

	secret []byte // what the salts of strangers are made of

	mu   sync.Mutex
	seen map[string]string // a hash, by the name of the table
}

// NewChecker returns a Checker that leaves processors for other work.
func NewChecker() *Checker {
	secret := make([]byte, 32)
	rand.Read(secret) // it never fails
	return &Checker{
		secret: secret,
		places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), matches: matches, seen: make(map[string]string),
	}
}

func matches(hash, password string) bool {
	h, err := crypt.Parse(hash)
	return err == nil && h.Matches(password)
}

// Enter waits for a place; leave gives it back.
func (c *Checker) Enter(ctx context.Context) (leave func(), err error) {
	select {
	case c.places <- struct{}{}:
		return func() { <-c.places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Table tells whether pass is user's, by t. An error means that it could not
// be found out.
func (c *Checker) Table(ctx context.Context, t table.Table, user, pass string) (bool, error) {
	held, ok := t.(firster)
	if !ok {
		if verdict, err := byItself(ctx, t, user, pass); !errors.Is(err, table.ErrService) {
			return verdict, err
		}
	}
	value, found, err := t.Lookup(ctx, table.Credentials, user)
	if err != nil {
		return false, err
	}
	hash := ""
	if found {
		hash = password(user, value)
	}
	return c.Hash(ctx, hash, c.decoy(t.Name(), held, hash), pass)
}

// byItself asks a program that may verify passwords by itself.
func byItself(ctx context.Context, t table.Table, user, password string) (bool, error) {
	if strings.Contains(user, ":") {
		return false, nil // where would the user end and the password begin?
	}
	return t.Match(ctx, table.Auth, user+":"+password)
}

// Hash tells whether password is the one that hash was made of. For what is no
// hash the answer is no, and costs what decoy does.
func (c *Checker) Hash(ctx context.Context, hash, decoy, password string) (bool, error) {
	leave, err := c.Enter(ctx)
	if err != nil {
		return false, fmt.Errorf("waiting to verify a password: %w", err)
	}
	defer leave()
	if _, err := crypt.Parse(hash); err != nil {
		if _, err := crypt.Parse(decoy); err != nil {
			decoy = crypt.Decoy
		}
		c.matches(decoy, password)
		return false, nil
	}
	return c.matches(hash, password), nil
}

// firster is a table whose content is here.
type firster interface {
	First() (key, value string, ok bool)
}

// decoy is a hash as a table has them: its first where that can be told, else
// the one that was seen last.
func (c *Checker) decoy(name string, held firster, hash string) string {
	if held == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, err := crypt.Parse(hash); err == nil {
			c.seen[name] = hash
		}
		return c.seen[name]
	}
	key, value, _ := held.First()
	return password(key, value)
}
