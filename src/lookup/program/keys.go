package program

import (
	"net/netip"
	"strings"

	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
)

// A program finds keys as they are, most often: a row of a database, an entry of
// a directory. The other back ends know wildcards, catch-alls and sub-addresses;
// so that a table means the same wherever it is kept, a program is asked for
// every key that would match, the best first. Networks and regular expressions
// it must compare itself.

// maxKey bounds what a stranger can have sent to a program.
const maxKey = 4096

// keys lists what a program is asked for key. The first is the key itself.
func keys(s table.Service, key, delim string) []string {
	if key == "" && s != table.MailAddr {
		return nil
	}
	switch s {
	case table.Auth:
		// The password behind the user stays as it is.
		user, password, _ := strings.Cut(key, ":")
		return []string{addr.Lower(user) + ":" + password}
	case table.NetAddr, table.AddrName:
		if a, err := netip.ParseAddr(strings.Trim(key, "[]")); err == nil {
			key = table.AddrKey(a)
		}
	case table.Domain:
		return append([]string{addr.Lower(key)}, wildcards("", addr.Lower(key))...)
	case table.MailAddr:
		return mailKeys(addr.Lower(key), delim)
	}
	return []string{addr.Lower(key)}
}

// mailKeys lists the entries that match a mail address, in the order of table(5).
func mailKeys(key, delim string) []string {
	a := addr.Cut(key)
	if a.IsZero() {
		return []string{"@"}
	}
	locals := []string{a.Local}
	if user, _, tagged := addr.SplitTag(a.Local, delim); tagged && user != "" {
		locals = append(locals, user)
	}
	var list []string
	if a.Domain != "" {
		for _, l := range locals {
			list = append(append(list, l+"@"+a.Domain), wildcards(l+"@", a.Domain)...)
		}
	}
	list = append(list, locals...)
	if a.Domain != "" {
		list = append(append(list, "@"+a.Domain), wildcards("@", a.Domain)...)
	}
	return append(list, "@")
}

// wildcards lists the patterns that hold a domain and begin with a '*': one for
// each dot, longest first, and "*".
func wildcards(prefix, domain string) []string {
	if domain == "" {
		return nil
	}
	var list []string
	for i := range len(domain) {
		if domain[i] == '.' && len(list) < maxLabels {
			list = append(list, prefix+"*"+domain[i:])
		}
	}
	return append(list, prefix+"*")
}

// maxLabels bounds how many questions one domain makes.
const maxLabels = 16
