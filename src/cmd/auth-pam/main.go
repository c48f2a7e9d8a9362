//go:build pam

// Command auth-pam is a table program of smtpd(8) that has PAM verify passwords,
// see auth-pam(8). It is built on request, for it needs cgo and libpam.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"opensmtpd/src/lookup/tableprog"
)

const (
	// defaultService is the file of /etc/pam.d; OpenSMTPD's is the same.
	defaultService = "smtpd"
	// conversations is how many PAM has at a time: each takes a thread.
	conversations = 8
)

func main() { os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	t := &users{service: defaultService, places: make(chan struct{}, conversations), ask: ask}
	switch len(args) {
	case 0, 1:
	case 2:
		t.service = args[1]
	default:
		fmt.Fprintln(errs, "usage: auth-pam [service]")
		return 1
	}
	if err := tableprog.Serve(ctx, in, out, t, tableprog.Auth); err != nil {
		fmt.Fprintf(errs, "auth-pam: %v\n", err)
		return 1
	}
	return 0
}

// users are those whom PAM knows.
type users struct {
	service string
	places  chan struct{}
	ask     func(service, user, password string) (bool, error)
}

// Lookup implements tableprog.Table: PAM tells nothing but yes and no.
func (u *users) Lookup(context.Context, tableprog.Service, string) (string, bool, error) {
	return "", false, nil
}

// Check implements tableprog.Checker; key is a user, a colon and his password.
func (u *users) Check(ctx context.Context, s tableprog.Service, key string) (bool, error) {
	user, password, found := strings.Cut(key, ":")
	if s != tableprog.Auth || !found || user == "" || password == "" || strings.IndexByte(key, 0) >= 0 {
		return false, nil
	}
	select {
	case u.places <- struct{}{}:
		defer func() { <-u.places }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return u.ask(u.service, user, password)
}
