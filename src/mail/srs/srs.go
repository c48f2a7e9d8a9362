// Package srs is the Sender Rewriting Scheme: mail that is forwarded gets a
// sender at our own domain, which the next server finds us entitled to use, and
// a bounce that comes back to that finds the way to the real one.
//
//	SRS0=hash=day=domain=local@us            what we make of local@domain
//	SRS1=hash=first==hash=day=domain=local@us  of what another forwarder, first,
//	                                         had made into SRS0 already
//
// The hash, four characters, says that we have made the address; only then is it
// turned back, for otherwise anybody could send through us. The day, two
// characters, is when, modulo 1024. The separator behind SRS0 and SRS1 may be
// "+" or "-" too.
package srs

import (
	"crypto/hmac"
	"crypto/sha1" // the scheme's own; of it 24 bits are kept
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"opensmtpd/src/mail/addr"
)

// Why an address is not turned back.
var (
	ErrForm   = errors.New("not an address that was rewritten")
	ErrForged = errors.New("its hash is not ours")
	ErrOld    = errors.New("too old")
)

// Rewriter rewrites senders and turns them back. It is not changed.
type Rewriter struct {
	Key    string
	Backup string        // a key that was in use before; "": none
	TTL    time.Duration // how long a rewritten sender is good for
}

const (
	hashLen = 4
	dayLen  = 2
	days    = 1024 // the days before the count begins anew
	digits  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// Forward returns the sender for mail that domain, one of ours, forwards. What
// would be too long, and the null sender, stay as they are.
func (r *Rewriter) Forward(sender addr.Address, domain string, now time.Time) addr.Address {
	if sender.Local == "" || sender.Domain == "" {
		return sender
	}
	tag, rest := "SRS0", ""
	switch kind, sep, tail := split(sender.Local); kind {
	case 0:
		tag, rest = "SRS1", sender.Domain+"="+string(sep)+tail
	case 1:
		// The first forwarder stays, we take the place of the last.
		_, after, ok := cut(tail)
		if !ok {
			return sender
		}
		tag, rest = "SRS1", after
	default:
		rest = day(now) + "=" + sender.Domain + "=" + sender.Local
	}
	out := addr.Address{Local: tag + "=" + hash(r.Key, rest, domain) + "=" + rest, Domain: domain}
	if len(out.Local) > addr.MaxLocal {
		return sender
	}
	return out
}

// Is tells whether an address looks like a rewritten one.
func Is(a addr.Address) bool {
	kind, _, _ := split(a.Local)
	return kind >= 0
}

// Reverse returns the address that a bounce to a rewritten one is for.
func (r *Rewriter) Reverse(a addr.Address, now time.Time) (addr.Address, error) {
	kind, _, tail := split(a.Local)
	if kind < 0 {
		return addr.Address{}, ErrForm
	}
	sum, rest, ok := cut(tail)
	if !ok {
		return addr.Address{}, ErrForm
	}
	if !r.signed(sum, rest, a.Domain) {
		return addr.Address{}, ErrForged
	}
	var out addr.Address
	if kind == 0 {
		made, orig, ok := strings.Cut(rest, "=")
		if !ok {
			return addr.Address{}, ErrForm
		}
		if err := r.fresh(made, now); err != nil {
			return addr.Address{}, err
		}
		out.Domain, out.Local, ok = strings.Cut(orig, "=")
		if !ok {
			return addr.Address{}, ErrForm
		}
	} else {
		first, inner, ok := strings.Cut(rest, "=")
		if !ok {
			return addr.Address{}, ErrForm
		}
		out = addr.Address{Local: "SRS0" + inner, Domain: first}
		if err := r.inner(out.Local, now); err != nil {
			return addr.Address{}, err
		}
	}
	if _, rest, err := addr.ParsePath("<" + out.SMTP() + ">"); err != nil || rest != "" {
		return addr.Address{}, ErrForm
	}
	return out, nil
}

// inner looks at the day in another's SRS0 address, whose hash says nothing to
// us.
func (r *Rewriter) inner(local string, now time.Time) error {
	kind, _, tail := split(local)
	if kind != 0 {
		return ErrForm
	}
	_, rest, ok := cut(tail)
	if !ok || len(rest) <= dayLen {
		return ErrForm
	}
	return r.fresh(rest[:dayLen], now)
}

// split tells of a local part whether it begins with SRS0 or SRS1, and what the
// separator and the rest are; -1 when with neither.
func split(local string) (kind int, sep byte, tail string) {
	if len(local) < len("SRS0=") || !strings.EqualFold(local[:3], "SRS") || strings.IndexByte("=+-", local[4]) < 0 {
		return -1, 0, ""
	}
	switch local[3] {
	case '0', '1':
		return int(local[3] - '0'), local[4], local[5:]
	}
	return -1, 0, ""
}

// cut takes a hash off the head of s.
func cut(s string) (sum, rest string, ok bool) {
	if len(s) <= hashLen || strings.IndexByte("=+-", s[hashLen]) < 0 {
		return "", "", false
	}
	return s[:hashLen], s[hashLen+1:], true
}

// hash is what only we can say of text at a domain.
func hash(key, text, domain string) string {
	m := hmac.New(sha1.New, []byte(key))
	m.Write([]byte(text + "@" + addr.Lower(domain)))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))[:hashLen]
}

// hashOld is how OpenSMTPD makes it: bounces to what it has rewritten arrive
// after the change to us.
func hashOld(key, text, domain string) string {
	sum := sha1.Sum([]byte(key + text + "@" + domain))
	return base64.StdEncoding.EncodeToString(sum[:])[:hashLen]
}

func (r *Rewriter) signed(sum, text, domain string) bool {
	ok := 0
	for _, key := range []string{r.Key, r.Backup} {
		if key == "" {
			continue
		}
		ok |= subtle.ConstantTimeCompare([]byte(sum), []byte(hash(key, text, domain)))
		ok |= subtle.ConstantTimeCompare([]byte(sum), []byte(hashOld(key, text, domain)))
	}
	return ok == 1
}

func number(now time.Time) int { return int(now.Unix()/86400) % days }

// day writes the number of the day.
func day(now time.Time) string {
	n := number(now)
	return string([]byte{digits[n>>5], digits[n&31]})
}

// fresh tells whether a day is within the TTL. That of tomorrow is, because
// clocks differ.
func (r *Rewriter) fresh(made string, now time.Time) error {
	if len(made) != dayLen {
		return ErrForm
	}
	n := 0
	for _, c := range []byte(strings.ToUpper(made)) {
		i := strings.IndexByte(digits, c)
		if i < 0 {
			return ErrForm
		}
		n = n<<5 | i
	}
	age := (number(now) - n + days) % days
	if age == days-1 {
		return nil
	}
	if age > int(r.TTL/(24*time.Hour)) {
		return ErrOld
	}
	return nil
}
