package addr

import (
	"strings"

	"golang.org/x/net/idna"
)

// labels turns names beyond ASCII into the form that DNS has and back (RFC 5891).
// Nothing is mapped: a name that IDNA has another spelling for is refused, and
// not taken for a name that looks alike.
var labels = idna.New(idna.ValidateForRegistration())

// ASCIIDomain returns a domain as DNS knows it, "xn--…" for what is beyond ASCII;
// false when no such name can be.
func ASCIIDomain(s string) (string, bool) {
	if ASCII(s) {
		return s, true
	}
	a, err := labels.ToASCII(Lower(s))
	return a, err == nil
}

// OtherForm returns a domain, or an address, with the domain in the other of its
// two forms, in letters or as "xn--…"; "" when it has one alone. Both are the
// same domain (RFC 5890 section 2.3.2.4).
func OtherForm(s string) string {
	at := strings.LastIndexByte(s, '@') + 1
	domain := s[at:]
	if ASCII(domain) {
		if !strings.Contains(Lower(domain), "xn--") {
			return ""
		}
		u, err := labels.ToUnicode(Lower(domain))
		if err != nil || u == Lower(domain) {
			return ""
		}
		return s[:at] + u
	}
	a, ok := ASCIIDomain(domain)
	if !ok {
		return ""
	}
	return s[:at] + a
}

// ASCII tells whether no byte of s is above 127.
func ASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// ASCII tells whether a can be said without SMTPUTF8 (RFC 6531).
func (a Address) ASCII() bool { return ASCII(a.Local) && ASCII(a.Domain) }
