package table

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/check"
	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/aliases"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/safefile"
)

// Words gives v the functions that read what is in tables as lookups do.
func Words(v check.Values) check.Values {
	v.Alias = aliases.Check
	v.Addresses = func(list string) error {
		_, err := MatchAddrs(list, addr.Address{}, "+")
		return err
	}
	v.Password = checkPassword
	return v
}

// checkPassword tells why nobody will ever match what a table holds for a user of
// a listener. What begins as no hash does is locked on purpose.
func checkPassword(user, value string) error {
	if strings.Trim(value, "*!x") == "" || strings.ContainsAny(value[:1], "*!") {
		return nil
	}
	secret, err := ParseSecret(user, value)
	if err != nil {
		return crypt.ErrScheme
	}
	_, err = crypt.Parse(secret.Password)
	return err
}

// Entries calls fn for each entry of a table that is in a file, as u will find it.
// again tells that the key is there several times.
func Entries(u conf.Use, t *conf.Table, fn func(line int, e conf.Entry, again bool)) error {
	f, err := safefile.Open(t.Config)
	if err != nil {
		return nil // who looks for files has said so
	}
	defer f.Close()
	read := NewFile
	if t.Backend == "db" {
		read = NewDB
	}
	s, err := read(t.Name, t.Config, f, "+")
	if err != nil {
		return err
	}
	whole := u.Service == conf.AliasService || u.Service == conf.VirtualService || u.Service == conf.CredentialsService
	s.each(whole, fn)
	return nil
}

func (t *Static) each(whole bool, fn func(line int, e conf.Entry, again bool)) {
	s := t.now.Load()
	again := make(map[uint32]bool, len(s.again))
	for _, line := range s.again {
		again[line] = true
	}
	for i, e := range s.ents {
		value := s.value(i)
		if !whole {
			value = string(cutComment([]byte(value)))
		}
		fn(int(e.line), conf.Entry{Key: s.key(i), Value: value}, again[e.line])
	}
}
