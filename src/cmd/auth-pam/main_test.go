//go:build pam

package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"opensmtpd/src/lookup/tableprog"
)

func TestCheck(t *testing.T) {
	var asked []string
	u := &users{service: "s", places: make(chan struct{}, 1), ask: func(service, user, password string) (bool, error) {
		asked = append(asked, service+" "+user+" "+password)
		if user == "trouble" {
			return false, errors.New("gone")
		}
		return password == "a:b", nil
	}}
	for _, tc := range []struct {
		key  string
		ok   bool
		fail bool
	}{
		{"bob:a:b", true, false}, {"bob:x", false, false}, {"trouble:x", false, true},
		{"bob", false, false}, {":x", false, false}, {"bob:", false, false}, {"bob:a:b\x00", false, false},
	} {
		ok, err := u.Check(t.Context(), tableprog.Auth, tc.key)
		if ok != tc.ok || (err != nil) != tc.fail {
			t.Errorf("%q: %v, %v", tc.key, ok, err)
		}
	}
	if ok, err := u.Check(t.Context(), tableprog.Credentials, "bob:a:b"); ok || err != nil {
		t.Error("another service is answered")
	}
	if got := strings.Join(asked, ","); got != "s bob a:b,s bob x,s trouble x" {
		t.Errorf("PAM was asked %q", got)
	}
}

// TestNoService: PAM without a file for the service says no, or that it cannot
// tell; it never says yes.
func TestNoService(t *testing.T) {
	if ok, _ := ask("no-such-service-of-smtpd", "root", "x"); ok {
		t.Error("root gets in")
	}
}

func TestUsage(t *testing.T) {
	var errs bytes.Buffer
	if st := run(context.Background(), []string{"auth-pam", "a", "b"}, strings.NewReader(""), &bytes.Buffer{}, &errs); st != 1 || !strings.Contains(errs.String(), "usage") {
		t.Errorf("%d, %s", st, errs.String())
	}
}
