package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/table"
)

// SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side:
//
//	client  "n,,n=user,r=nonce"
//	server  "r=nonce…,s=salt,i=iterations"
//	client  "c=biws,r=nonce…,p=proof"
//	server  "v=signature"
//
// No state is kept between the two steps: whoever asks remembers what was said.
// Channel binding is not offered.

// ErrSyntax says that a client does not speak SCRAM.
var ErrSyntax = errors.New("no message of SCRAM")

const (
	nonceSize  = 18 // bytes of ours
	maxMessage = 2048
)

// Scram tells whether t holds secrets of SCRAM, so that clients may be offered
// it: its first entry decides.
func (c *Checker) Scram(t table.Table) bool {
	held, ok := t.(firster)
	if !ok {
		return false
	}
	key, value, _ := held.First()
	_, err := crypt.ParseScram(password(key, value))
	return err == nil
}

// password is the hash in the value of a credentials lookup, "" if there is none.
// Those of SCRAM hold a colon.
func password(key, value string) string {
	name, rest, found := strings.Cut(value, ":")
	if _, err := crypt.ParseScram(value); err == nil {
		return value
	}
	if _, err := crypt.ParseScram(rest); found && err == nil && name != "" {
		return rest
	}
	secret, err := table.ParseSecret(key, value)
	if err != nil {
		return ""
	}
	return secret.Password
}

// ScramFirst answers the first message of a client. A user who is not there gets
// a salt too, always the same.
func (c *Checker) ScramFirst(ctx context.Context, t table.Table, first string) (user, challenge string, err error) {
	m, err := parseFirst(first)
	if err != nil {
		return "", "", err
	}
	s, _, err := c.scramOf(ctx, t, m.user)
	if err != nil {
		return m.user, "", err
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // it never fails
	b64 := base64.StdEncoding.EncodeToString
	return m.user, fmt.Sprintf("r=%s%s,s=%s,i=%d", m.nonce, b64(nonce), b64(s.Salt), s.Iterations), nil
}

// ScramFinal tells who has proved that he knows his password, and what to tell
// him; final is his second message. Nobody has: ok is false.
func (c *Checker) ScramFinal(ctx context.Context, t table.Table, first, challenge, final string) (user, signature string, ok bool, err error) {
	m, err := parseFirst(first)
	if err != nil {
		return "", "", false, err
	}
	f, err := parseFinal(final)
	if err != nil {
		return m.user, "", false, err
	}
	nonce, _, _ := strings.Cut(strings.TrimPrefix(challenge, "r="), ",")
	binding := base64.StdEncoding.EncodeToString([]byte(m.header))
	if f.nonce != nonce || f.binding != binding || len(nonce) <= len(m.nonce) {
		return m.user, "", false, ErrSyntax
	}
	s, there, err := c.scramOf(ctx, t, m.user)
	if err != nil {
		return m.user, "", false, err
	}
	sign, ok := s.Proves(m.bare+","+challenge+","+f.bare, f.proof)
	if !ok || !there {
		return m.user, "", false, nil
	}
	return m.user, "v=" + base64.StdEncoding.EncodeToString(sign), true, nil
}

// scramOf returns the secret of a user, or one that nobody knows.
func (c *Checker) scramOf(ctx context.Context, t table.Table, user string) (s crypt.Scram, there bool, err error) {
	value, found, err := t.Lookup(ctx, table.Credentials, user)
	if err != nil {
		return s, false, err
	}
	if found {
		if s, err := crypt.ParseScram(password(user, value)); err == nil {
			return s, true, nil
		}
	}
	mac := func(what string) []byte {
		h := hmac.New(sha256.New, c.secret)
		fmt.Fprintf(h, "%s %s %s", what, t.Name(), strings.ToLower(user))
		return h.Sum(nil)
	}
	s = crypt.Scram{Salt: mac("salt")[:16], Iterations: 4096, StoredKey: mac("stored"), ServerKey: mac("server")}
	if held, ok := t.(firster); ok {
		key, value, _ := held.First()
		if like, err := crypt.ParseScram(password(key, value)); err == nil {
			s.Iterations = like.Iterations
			s.Salt = mac("salt")[:min(len(like.Salt), sha256.Size)]
		}
	}
	return s, false, nil
}

// firstMessage is the first one of a client.
type firstMessage struct {
	header, bare, user, nonce string
}

func parseFirst(text string) (m firstMessage, err error) {
	if len(text) > maxMessage || strings.ContainsAny(text, "\x00\r\n") {
		return m, ErrSyntax
	}
	parts := strings.SplitN(text, ",", 3)
	if len(parts) != 3 || parts[0] != "n" && parts[0] != "y" {
		return m, ErrSyntax
	}
	m.header, m.bare = parts[0]+","+parts[1]+",", parts[2]
	attrs := strings.Split(m.bare, ",")
	if len(attrs) < 2 || !strings.HasPrefix(attrs[0], "n=") || !strings.HasPrefix(attrs[1], "r=") {
		return m, ErrSyntax // an extension that we must understand, "m=", among them
	}
	m.user, err = unescape(attrs[0][2:])
	m.nonce = attrs[1][2:]
	if err != nil || m.user == "" || m.nonce == "" || !printable(m.nonce) {
		return m, ErrSyntax
	}
	if parts[1] != "" {
		// Nobody may act as somebody else.
		as, err := unescape(strings.TrimPrefix(parts[1], "a="))
		if err != nil || !strings.HasPrefix(parts[1], "a=") || as != m.user {
			return m, ErrSyntax
		}
	}
	return m, nil
}

// finalMessage is the second one.
type finalMessage struct {
	bare, binding, nonce string
	proof                []byte
}

func parseFinal(text string) (m finalMessage, err error) {
	i := strings.LastIndex(text, ",p=")
	if i < 0 || len(text) > maxMessage {
		return m, ErrSyntax
	}
	m.bare = text[:i]
	attrs := strings.Split(m.bare, ",")
	if len(attrs) < 2 || !strings.HasPrefix(attrs[0], "c=") || !strings.HasPrefix(attrs[1], "r=") {
		return m, ErrSyntax
	}
	m.binding, m.nonce = attrs[0][2:], attrs[1][2:]
	if m.proof, err = base64.StdEncoding.DecodeString(text[i+3:]); err != nil {
		return m, ErrSyntax
	}
	return m, nil
}

// unescape reads a name, in which ',' is written "=2C" and '=' "=3D".
func unescape(s string) (string, error) {
	rest := strings.NewReplacer("=2C", "", "=3D", "").Replace(s)
	if strings.Contains(rest, "=") {
		return "", ErrSyntax
	}
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s), nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
