package parent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/auth"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// verifier tells whether a password is that of an account of the system.
type verifier interface {
	verify(ctx context.Context, user, password string) (bool, error)
}

// errNotRoot: who may not read the system's passwords cannot compare with them.
var errNotRoot = errors.New("the system's passwords are known to root alone: give auth a table, or start smtpd as root without -S")

// systemAuth answers lookup about a system account.
func (p *Parent) systemAuth(ctx context.Context, r proc.Request) {
	var m msg.SystemAuth
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	ok, err := false, errNotRoot
	if !p.who.unprivileged {
		ok, err = p.accounts.verify(ctx, m.User, m.Password)
	}
	if err != nil {
		r.Reply(&msg.Authenticated{Err: mailerr.Local(err)})
		return
	}
	r.Reply(&msg.Authenticated{OK: ok})
}

// account is what a file of accounts says of one.
type account struct {
	hash string
	// barred tells why nobody may use the account, though he know the password.
	barred string
}

// accountFile verifies by a file that only root may read. It is read every time:
// a password that was changed holds at once.
type accountFile struct {
	path    string
	parse   func(line []string, now time.Time) account
	clock   clock.Clock
	checker *auth.Checker
}

func (a *accountFile) verify(ctx context.Context, user, password string) (bool, error) {
	found, decoy, err := a.find(user)
	if err != nil {
		return false, err
	}
	ok, err := a.checker.Hash(ctx, found.hash, decoy, password)
	return ok && found.barred == "", err
}

// find returns an account, the zero one when there is none, and a hash such as
// others have.
func (a *accountFile) find(user string) (found account, decoy string, err error) {
	data, err := os.ReadFile(a.path)
	if err != nil {
		return account{}, "", fmt.Errorf("accounts: %w", err)
	}
	now := a.clock.Now()
	seen := false
	for line := range bytes.Lines(data) {
		f := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		if len(f) < 2 || f[0] == "" || strings.HasPrefix(f[0], "#") {
			continue
		}
		if _, err := crypt.Parse(f[1]); err == nil && decoy == "" {
			decoy = f[1]
		}
		if f[0] == user && !seen {
			found, seen = a.parse(f, now), true
		}
	}
	return found, decoy, nil
}

// day is the unit of shadow(5).
const day = 24 * 60 * 60

// parseShadow reads the fields of shadow(5): name, hash, day of the last change,
// and days: minimum, maximum, warning, inactive; day of expiry. The rules are
// those of pam_unix(8): who would have to change his password first cannot do
// that here.
func parseShadow(f []string, now time.Time) account {
	a := account{hash: f[1]}
	number := func(i int) int64 {
		if i >= len(f) || f[i] == "" {
			return -1
		}
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	today := now.Unix() / day
	changed, most, expires := number(2), number(4), number(7)
	switch {
	case expires >= 0 && today >= expires:
		a.barred = "the account has expired"
	case changed == 0:
		a.barred = "the password must be changed"
	case changed > 0 && most >= 0 && most < 99999 && today > changed+most:
		a.barred = "the password has expired"
	}
	return a
}

// parseMaster reads the fields of the BSDs' master.passwd(5): name, hash, uid,
// gid, class, and in seconds when the password and the account end.
func parseMaster(f []string, now time.Time) account {
	if len(f) != 10 {
		return account{}
	}
	a := account{hash: f[1]}
	for i, why := range map[int]string{5: "the password has expired", 6: "the account has expired"} {
		// Zero is never. What is no number bars: it was meant to say something.
		if n, err := strconv.ParseInt(f[i], 10, 64); err != nil && f[i] != "" || n != 0 && now.Unix() >= n {
			a.barred = why
		}
	}
	return a
}
