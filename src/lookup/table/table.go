// Package table answers questions about the tables of smtpd.conf(5): is a key in
// the table, what does it map to, what is the next element. A table has a back
// end (static, file, getpwnam) and is asked under a service, which says what
// its keys are and how they compare. The comparison is the same for every back
// end:
//
//	string, alias, credentials, userinfo, mailaddrmap, relayhost, source, auth
//	         the whole key, ASCII case apart
//	domain   the same, '*' in an entry standing for any bytes
//	mailaddr entries are user, @domain, user@domain or @; '*' in the domain as
//	         above; an entry without a sub-address takes every sub-address
//	netaddr  entries are addresses and networks, or "local" for the socket
//	addrname the same, networks too
//	regex    entries are POSIX extended expressions, looked for anywhere in the
//	         key; ASCII case apart
//
// Where several entries match, an exact one is preferred to a wildcard and a
// longer suffix or network to a shorter one.
package table

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Service says what a key is; the names are those of smtpd-tables(7).
type Service uint8

const (
	Alias Service = iota + 1
	Domain
	Credentials
	NetAddr
	UserInfo
	Source
	MailAddr
	AddrName
	MailAddrMap
	RelayHost
	String
	Regex
	Auth
)

func (s Service) String() string {
	names := [...]string{
		"none", "alias", "domain", "credentials", "netaddr", "userinfo", "source",
		"mailaddr", "addrname", "mailaddrmap", "relayhost", "string", "regex", "auth",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("service %d", uint8(s))
}

// Table is one table. All methods may be called from several goroutines. An
// error means that the answer could not be found out and is temporary.
type Table interface {
	// Name is the name in the configuration; inline tables have one too.
	Name() string
	// Match tells whether key is in the table.
	Match(ctx context.Context, s Service, key string) (bool, error)
	// Lookup returns what the table maps key to, as it is written there.
	Lookup(ctx context.Context, s Service, key string) (value string, found bool, err error)
	// Fetch returns the elements of the table one by one, and over again.
	Fetch(ctx context.Context, s Service) (value string, found bool, err error)
}

// ErrService is returned by a back end that cannot serve what it is asked.
var ErrService = errors.New("table does not serve this")

// Problem is an entry that a service cannot use, and that never matches. Line is
// 0 for a table without lines.
type Problem struct {
	Line int
	Key  string
	Err  error
}

func (p Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%q: %v", p.Key, p.Err)
	}
	return fmt.Sprintf("%d: %q: %v", p.Line, p.Key, p.Err)
}

// AddrKey is an address as the key of a netaddr or addrname lookup: IPv6 in
// brackets, with its zone if it has one; the zero Addr is "local", the key of
// the local socket. IPv4 in IPv6 is IPv4.
func AddrKey(a netip.Addr) string {
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return "local"
	case a.Is4():
		return a.String()
	}
	return "[" + a.String() + "]"
}
