// Package addr knows mail addresses: how they are written in SMTP (RFC 5321
// section 4.1.2) and how they compare.
package addr

// Address is a mailbox: local part and domain as given, without quoting. The
// zero Address is the null sender; an empty Domain alone is "postmaster" or a
// local name not yet completed.
type Address struct {
	Local  string
	Domain string
}

// IsZero tells whether a is the null sender.
func (a Address) IsZero() bool { return a == Address{} }

// String returns local@domain, or the local part alone, or "".
func (a Address) String() string {
	if a.Domain == "" {
		return a.Local
	}
	return a.Local + "@" + a.Domain
}
