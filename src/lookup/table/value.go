package table

import (
	"errors"
	"strconv"
	"strings"

	"opensmtpd/src/mail/addr"
)

// User is what a userinfo lookup yields.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
}

var (
	errUser        = errors.New("userinfo is not uid:gid:directory")
	errCredentials = errors.New("credentials are not user:password")
	errAddrs       = errors.New("not a list of mail addresses")
)

// ParseUser reads the value of a userinfo lookup for name: "uid:gid:directory".
func ParseUser(name, value string) (User, error) {
	uid, rest, ok1 := strings.Cut(value, ":")
	gid, home, ok2 := strings.Cut(rest, ":")
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || !strings.HasPrefix(home, "/") {
		return User{}, errUser
	}
	return User{name, uint32(u), uint32(g), home}, nil
}

// String is the form that ParseUser reads.
func (u User) String() string {
	return strconv.FormatUint(uint64(u.UID), 10) + ":" + strconv.FormatUint(uint64(u.GID), 10) + ":" + u.Home
}

// Secret is what a credentials lookup yields: for a relay a password as it is,
// for a listener an encrypted one.
type Secret struct{ User, Password string }

// ParseSecret reads the value of a credentials lookup for key: "user:password",
// or the password alone for the user key. An encrypted password holds no ':'.
func ParseSecret(key, value string) (Secret, error) {
	user, password, found := strings.Cut(value, ":")
	if !found {
		user, password = key, value
	}
	if user == "" || password == "" || len(value) < 3 {
		return Secret{}, errCredentials
	}
	return Secret{user, password}, nil
}

// MatchAddrs tells whether a is among the addresses in value, the value of a
// mailaddrmap lookup: entries as in a mailaddr table, separated by commas.
func MatchAddrs(value string, a addr.Address, delim string) (bool, error) {
	s := &set{}
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if strings.ContainsAny(part, " \t\"'\\") {
			return false, errAddrs
		}
		if part != "" {
			s.ents = append(s.ents, entry{key: uint32(len(s.text)), keyLen: uint32(len(part))})
			s.text = append(s.text, part...)
		}
	}
	s.build()
	key := a.String()
	if a.IsZero() {
		key = "@"
	}
	return s.best(MailAddr, key, delim) >= 0, nil
}
