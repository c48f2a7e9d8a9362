package project

import (
	"net/netip"
	"time"

	"opensmtpd/src/conf"
)

// LookupConf is what the process that answers questions must know: tables,
// rules, and the half of the actions that expansion needs.
type LookupConf struct {
	ServerName   string
	SubAddrDelim string // one character
	QueueTTL     time.Duration
	// LocalNames are the domains of `for local`: localhost, the server name
	// and this machine's addresses as they stand in a mail domain: IPv4 plain,
	// IPv6 in brackets.
	LocalNames []string
	// LocalAddrs are the addresses of `from local`, beside the socket.
	LocalAddrs []netip.Addr

	// What rewritten senders are known by; "": none are.
	SRSKey       string        `json:",omitempty"`
	SRSKeyBackup string        `json:",omitempty"`
	SRSTTL       time.Duration `json:",omitempty"`

	Tables  []Table // inline ones too
	Matches []Match // in order: the first that matches decides
	Actions []Action
}

// Table is one table. Static entries are here; a file's contents come as a
// descriptor, a table program's pipes too.
type Table struct {
	Name     string
	Inline   bool
	Backend  string // static, file, db, getpwnam, or a program's name
	Config   string // path, or what the program is given
	Identity string // of the descriptor; "" for static and getpwnam
	Kind     conf.Kind
	// Secret tables hold the passwords of a listener's users: nobody is told
	// what they say.
	Secret  bool `json:",omitempty"`
	Entries []Entry
}

// Entry is one element of a static table; Value is "" in a list.
type Entry struct {
	Key   string
	Value string `json:",omitempty"`
}

// Match is one rule.
type Match struct {
	Line     int // in the file, for traces
	Reject   bool
	Action   string
	FromKind conf.FromKind
	From     Cond // Table of src, rdns, auth, mail-from; Not for any kind
	ForKind  conf.ForKind
	For      Cond // Table of domain, rcpt-to; Not for any kind
	Tag      Cond `json:",omitzero"`
	Helo     Cond `json:",omitzero"`
	TLS      Cond `json:",omitzero"`
	Auth     Cond `json:",omitzero"`
	MailFrom Cond `json:",omitzero"`
	RcptTo   Cond `json:",omitzero"`
}

// Cond is one condition of a rule. From and For are always Set.
type Cond struct {
	Set   bool
	Not   bool   `json:",omitempty"`
	Regex bool   `json:",omitempty"`
	Table string `json:",omitempty"`
}

// Action is what expansion needs of an action.
type Action struct {
	Name     string
	Method   conf.Method
	TTL      time.Duration // never zero
	Alias    string        // table, or ""
	Virtual  string        // table, or ""
	UserBase string        // table, or "": system users
	User     string        // delivers for every virtual user, or ""
	Wrapper  string
}
