// Package ldaptable serves tables from an LDAP directory, see table-ldap(5). The
// configuration has a filter and attributes for each service, as the program of
// OpenSMTPD of this name has. Passwords can be checked by a bind as the user.
package ldaptable

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/go-ldap/ldap/v3"

	"opensmtpd/src/lookup/tableprog"
)

// kind is how a service is asked for.
type kind struct {
	service tableprog.Service
	attrs   int
	all     bool // values are a list, joined with commas
}

// kinds are those of SERVICE_filter and SERVICE_attributes. Never written.
var kinds = []kind{
	{tableprog.Alias, 1, true},
	{tableprog.Domain, 1, false},
	{tableprog.Credentials, 2, false},
	{tableprog.NetAddr, 1, false},
	{tableprog.UserInfo, 3, false},
	{tableprog.MailAddr, 1, false},
	{tableprog.AddrName, 1, false},
	{tableprog.MailAddrMap, 1, true},
	{tableprog.RelayHost, 1, false},
	{tableprog.Auth, 0, false},
}

// Table is a table in a directory. It is a tableprog.Table.
type Table struct {
	name, path string

	mu  sync.RWMutex
	cur *directory
}

// Open reads the configuration file and connects; name is the table's.
func Open(ctx context.Context, name, path string) (*Table, error) {
	t := &Table{name: name, path: path}
	if err := t.Update(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Update implements tableprog.Updater: when something is wrong, what was there
// stays.
func (t *Table) Update(context.Context) error {
	d, err := configure(t.path)
	if err != nil {
		return err
	}
	if _, err := d.connection(nil); err != nil {
		return err
	}
	t.mu.Lock()
	old := t.cur
	t.cur = d
	t.mu.Unlock()
	if old != nil {
		old.close()
	}
	return nil
}

// Services lists what the table can be asked for. Without a filter for auth
// passwords are the business of who looks up credentials.
func (t *Table) Services() []tableprog.Service {
	var list []tableprog.Service
	d := t.now()
	for _, k := range kinds {
		if _, ok := d.queries[k.service]; ok || k.service != tableprog.Auth {
			list = append(list, k.service)
		}
	}
	return list
}

// Close lets the directory go.
func (t *Table) Close() error {
	t.now().close()
	return nil
}

func (t *Table) now() *directory {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.cur
}

// Lookup implements tableprog.Table.
func (t *Table) Lookup(_ context.Context, s tableprog.Service, key string) (string, bool, error) {
	for _, k := range kinds {
		if k.service == s && s != tableprog.Auth {
			return t.ask(k, key)
		}
	}
	return "", false, fmt.Errorf("%s is not served by a directory", s)
}

// Check implements tableprog.Checker: an entry is enough, whatever its
// attributes.
func (t *Table) Check(_ context.Context, s tableprog.Service, key string) (bool, error) {
	if s == tableprog.Auth {
		return t.auth(key)
	}
	d := t.now()
	for _, k := range tableprog.Keys(s, key) {
		list, err := d.search(t.name, s, k, "1.1") // no attributes, RFC 4511 section 4.5.1.8
		if err != nil || len(list) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

func (t *Table) ask(k kind, key string) (string, bool, error) {
	d := t.now()
	attrs := d.queries[k.service].attrs
	if len(attrs) < k.attrs {
		return "", false, fmt.Errorf("%s_attributes is not in %s", k.service, t.path)
	}
	for _, key := range tableprog.Keys(k.service, key) {
		list, err := d.search(t.name, k.service, key, attrs...)
		if err != nil {
			return "", false, err
		}
		if value := k.value(list, attrs); value != "" {
			return value, true, nil
		}
	}
	return "", false, nil
}

// value makes the answer of the entries that were found. One that lacks an
// attribute does not count; where one is wanted and there are more, the last
// counts, as in OpenSMTPD.
func (k kind) value(entries []*ldap.Entry, attrs []string) string {
	var list []string
	for _, e := range entries {
		if k.all {
			list = append(list, e.GetEqualFoldAttributeValues(attrs[0])...)
			continue
		}
		var parts []string
		for _, a := range attrs {
			if v := e.GetEqualFoldAttributeValue(a); v != "" {
				parts = append(parts, v)
			}
		}
		if len(parts) < len(attrs) {
			continue
		}
		if k.service == tableprog.Credentials {
			parts[1] = plainHash(parts[1])
		}
		list = []string{strings.Join(parts, ":")}
	}
	return strings.Join(list, ", ")
}

// plainHash takes the scheme off a password of crypt(3), RFC 2307 section 5.3.
func plainHash(s string) string {
	const scheme = "{CRYPT}"
	if len(s) > len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
		return s[len(scheme):]
	}
	return s
}

// auth checks "user:password" by a bind as the user's entry.
func (t *Table) auth(key string) (bool, error) {
	user, password, ok := strings.Cut(key, ":")
	if !ok || user == "" || password == "" {
		// A bind without a password succeeds as nobody, RFC 4513 section 5.1.2.
		return false, nil
	}
	d := t.now()
	list, err := d.search(t.name, tableprog.Auth, user, "1.1")
	if err != nil {
		return false, err
	}
	if len(list) != 1 {
		return false, nil
	}
	c, err := d.dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	err = c.Bind(list[0].DN, password)
	var no *ldap.Error
	if errors.As(err, &no) && refusals[no.ResultCode] {
		return false, nil
	}
	return err == nil, err
}

// refusals are the results of a bind that say no, and not that something is
// wrong. Never written.
var refusals = map[uint16]bool{
	ldap.LDAPResultInvalidCredentials: true, ldap.LDAPResultInappropriateAuthentication: true,
	ldap.LDAPResultNoSuchObject: true, ldap.LDAPResultInsufficientAccessRights: true,
	ldap.LDAPResultConstraintViolation: true, ldap.LDAPResultUnwillingToPerform: true,
}
