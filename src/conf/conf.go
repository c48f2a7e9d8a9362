// Package conf holds the configuration as plain data with positions. Front ends
// (conf/native, later conf/legacy and conf/hcl) fill it, conf/load checks it and
// resolves what depends on the machine, conf/printer writes it back, and
// conf/project cuts out the part that each process is sent.
//
// Names are the words of smtpd.conf(5). A zero value means "not written";
// defaults that the manual documents are filled in by load, so that every other
// package sees them.
package conf

import (
	"strings"
	"time"
)

// Pos is a place in a configuration file; lines and columns count from 1, a
// column is a byte. The zero Pos is no place.
type Pos struct {
	File string
	Line int
	Col  int
}

// Node is what every statement has: its place and the comments that belong to
// it, each with its leading '#'.
type Node struct {
	Pos     Pos
	Doc     []string // comment lines above
	Comment string   // comment at the end of the line
	// At is the place of each part, by the word that the manual has for it;
	// "name" is the name of what is declared.
	At map[string]Pos
	// Bad tells that the statement had an error, which was reported: it is kept
	// so that its name is known, and checks leave the rest of it alone.
	Bad bool
}

// Place returns where the part named by word was written, or where the
// statement begins.
func (n *Node) Place(word string) Pos {
	if p, ok := n.At[word]; ok {
		return p
	}
	return n.Pos
}

// Statement returns n, for code that takes statements of any kind.
func (n *Node) Statement() *Node { return n }

// IsZero tells whether p is no place.
func (p Pos) IsZero() bool { return p == Pos{} }

// Config is one configuration, whole.
type Config struct {
	Macros  []*Macro // kept for the printers; all uses are already expanded
	Tables  []*Table // in order of declaration; inline ones last, see Table.Inline
	Server  Server
	PKIs    []*PKI
	CAs     []*CA
	Procs   []*Proc
	Filters []*Filter
	Listens []*Listen
	Actions []*Action
	Matches []*Match
	Trailer []string // comments after the last statement
	// AnyOrder tells that a name may be used before it is declared, as in HCL.
	AnyOrder bool
}

// Macro is `name = "value"`.
type Macro struct {
	Node
	Name, Value string
}

// TableRef refers to a table by name. Inline lists and bare strings become
// tables with Inline set, whose names begin with "<" and cannot be written.
// The empty TableRef is "not written".
type TableRef string

// Table is `table NAME type:config` or `table NAME { … }`, or an inline list.
type Table struct {
	Node
	Name    string
	Inline  bool
	Backend string // "static", "file", "db", "getpwnam", "proc", or a program's name
	Config  string // what follows the colon; empty for static
	Kind    Kind   // of a static table
	Entries []Entry
}

// Kind says what a static table holds.
type Kind uint8

const (
	List Kind = iota // values alone
	Map              // keys with values
)

// Dovecot returns the path of the socket by which Dovecot verifies passwords, for
// a table that stands for it: one declared as dovecot:/path, or just dovecot:/path
// in the place of a table.
func (t *Table) Dovecot() (path string, ok bool) {
	const prefix = "dovecot:/"
	switch {
	case t.Backend == "dovecot":
		return t.Config, true
	case t.Inline && t.Kind == List && len(t.Entries) == 1 && strings.HasPrefix(t.Entries[0].Key, prefix):
		return t.Entries[0].Key[len(prefix)-1:], true
	}
	return "", false
}

// Entry is one element of a static table; Value is empty in a list.
type Entry struct {
	Pos        Pos
	Key, Value string
}

// Server holds the global settings; each has a Node so that the printers can
// keep its comments. Zero values mean the default.
type Server struct {
	Name             string // this host's name in mail; from mailname or the host, by load
	ADMD             Text   // authserv-id for filters
	BounceWarn       Durations
	QueueCompression Flag
	QueueEncryption  Text // the key, or "stdin"
	QueueTTL         Duration
	MDALimits        []*Limit // max-session, max-session-per-user, task-hiwat, task-lowat, task-release
	MTALimits        []*MTALimit
	MTAMaxDeferred   Number
	SchedulerLimits  []*Limit // max-inflight, max-evp-batch-size, max-msg-batch-size, max-schedule
	SMTPCiphers      Text
	SMTPLimits       []*Limit // max-mails, max-rcpt, max-session, max-session-per-address
	MaxMessageSize   Number   // bytes; default 35 MiB
	SubAddrDelim     Text     // one character; default "+"
	SRSKey           Text
	SRSKeyBackup     Text
	SRSTTL           Duration
	Wrappers         []*Wrapper
}

// Text, Number, Flag, Duration and Durations are settings with a place; the
// zero Node.Pos tells "not written".
type (
	Text struct {
		Node
		Value string
	}
	Number struct {
		Node
		Value int64
	}
	Flag struct {
		Node
		Value bool
	}
	Duration struct {
		Node
		Value time.Duration
	}
	Durations struct {
		Node
		Value []time.Duration
	}
)

// Limit is one `KEY NUMBER` of mda limit, smtp limit or scheduler limit.
type Limit struct {
	Node
	Key   string
	Value int64
}

// MTALimit is `mta limit [for domain D] KEY NUMBER | inet4 | inet6`.
type MTALimit struct {
	Node
	Domain string // empty: every domain
	Key    string // "inet4" and "inet6" have no value
	Value  int64
}

// Wrapper is `mda wrapper NAME COMMAND`.
type Wrapper struct {
	Node
	Name, Command string
}

// PKI is `pki NAME cert|key|dhe`, its statements joined.
type PKI struct {
	Node
	Name      string
	Cert, Key string
	DHE       string // none, legacy, auto
}

// CA is `ca NAME cert FILE`.
type CA struct {
	Node
	Name, Cert string
}

// Proc is `proc NAME COMMAND [user U] [group G] [chroot D]`.
type Proc struct {
	Node
	Name, Command       string
	User, Group, Chroot string
}

// FilterKind tells the four forms of filter.
type FilterKind uint8

const (
	FilterBuiltin  FilterKind = iota // phase … match … decision
	FilterChain                      // chain { … }
	FilterProc                       // proc NAME
	FilterProcExec                   // proc-exec COMMAND
)

// OnFailure tells what becomes of sessions while the program of a filter is
// gone.
type OnFailure uint8

const (
	TempFail OnFailure = iota // clients are to come again
	Bypass                    // as if there were no such filter
)

// Filter is `filter NAME …`. Inline filter lists of listeners and actions
// become chains with Inline set.
type Filter struct {
	Node
	Name   string
	Inline bool
	Kind   FilterKind
	Proc   *Proc // of proc-exec: an unnamed one; of proc: the Name alone
	Chain  []string
	Phase  string // connect helo ehlo starttls auth mail-from rcpt-to data data-line commit noop quit rset
	Conds  []FilterCond
	Decide Decision
	// OnFailure is of proc and proc-exec.
	OnFailure OnFailure
}

// FilterCond is one condition of a built-in filter.
type FilterCond struct {
	Pos   Pos
	Not   bool
	Kind  string // fcrdns rdns src helo auth mail-from rcpt-to
	Table TableRef
	Regex bool
}

// Decision is what a built-in filter does.
type Decision struct {
	Kind string // bypass disconnect greylist junk reject rewrite report
	Arg  string // the reply, address or report line
	Grey Grey   `json:",omitzero"` // of greylist
}

// Grey is the times of greylist.
type Grey struct {
	Delay     time.Duration // before it a try is too early
	Expire    time.Duration // after it a try is a first one again
	Whitelist time.Duration // how long a proven network passes after it was last seen
}

// UsualGrey is what holds where a filter says nothing.
func UsualGrey() Grey {
	return Grey{Delay: 25 * time.Minute, Expire: 4 * time.Hour, Whitelist: 36 * 24 * time.Hour}
}

// Auth tells what a listener wants of AUTH.
type Auth uint8

const (
	NoAuth Auth = iota
	AuthOptional
	AuthRequire
)

// TLSMode tells how a listener speaks TLS.
type TLSMode uint8

const (
	NoTLS TLSMode = iota
	StartTLS
	StartTLSRequire
	SMTPS
)

// Family restricts addresses.
type Family uint8

const (
	AnyFamily Family = iota
	Inet4
	Inet6
)

// Listen is `listen on …`. The implicit socket listener, when the file has
// none, is added by load with a zero Pos.
type Listen struct {
	Node
	On         string // interface, group, address or host; empty for the socket
	Socket     bool
	Family     Family
	Port       string // number or service name; empty: 25, or 465 with smtps
	TLS        TLSMode
	TLSVerify  bool
	Auth       Auth
	AuthTable  TableRef
	PKIs       []string
	CA         string
	Ciphers    string
	Protocols  string
	Filter     string // name of a filter or of an inline chain
	Hostname   string
	Hostnames  TableRef
	Tag        string
	MaskSrc    bool
	NoDSN      bool
	ProxyV2    bool
	RecvAuth   bool
	Senders    TableRef
	Masquerade bool
}

// Method tells what an action does with mail.
type Method uint8

const (
	MBOX Method = iota
	Maildir
	MDA
	LMTP
	ExpandOnly
	ForwardOnly
	Relay
	Bounce // the internal action of bounces; no statement makes it
)

func (m Method) String() string {
	return [...]string{"mbox", "maildir", "mda", "lmtp", "expand-only", "forward-only", "relay", "bounce"}[m]
}

// Local tells whether mail of the action stays on this machine.
func (m Method) Local() bool { return m <= ForwardOnly }

// Action is `action NAME METHOD …`.
type Action struct {
	Node
	Name   string
	Method Method
	TTL    time.Duration // zero: queue ttl

	// Local methods.
	Command  string // of mda
	Path     string // of maildir
	Junk     bool   // of maildir
	LMTPDest string // of lmtp: host:port or socket path
	RcptTo   bool   // of lmtp
	Alias    TableRef
	Virtual  TableRef
	UserBase TableRef
	User     string
	Wrapper  string

	// relay
	Backup    bool
	BackupMX  string
	BindTo    TableRef // src
	Helo      string
	HeloSrc   TableRef
	Host      string // url
	HostTable TableRef
	Domain    TableRef // relay to the host that the table names for the domain
	AuthTable TableRef
	MailFrom  string
	PKI, CA   string
	TLS       bool
	NoVerify  bool
	Protocols string
	Ciphers   string
	Filter    string
	SRS       bool
}

// FromKind tells the source that a rule wants.
type FromKind uint8

const (
	FromLocal FromKind = iota // default
	FromAny
	FromSocket
	FromSrc
	FromRDNS
	FromAuth
	FromMailFrom
)

// ForKind tells the destination that a rule wants.
type ForKind uint8

const (
	ForLocal ForKind = iota // default
	ForAny
	ForDomain
	ForRcptTo
)

// Cond is one optional condition of a rule.
type Cond struct {
	Pos   Pos // zero: the condition is absent
	Not   bool
	Regex bool
	Table TableRef // empty for tls, and for auth without a table
}

// Set tells whether the condition was written.
func (c Cond) Set() bool { return c.Pos != Pos{} }

// Match is `match … action NAME` or `match … reject`.
type Match struct {
	Node
	Reject   bool
	Action   string
	FromKind FromKind
	From     Cond // table of src, rdns, auth, mail-from; Not of any kind
	ForKind  ForKind
	For      Cond // table of domain, rcpt-to
	Tag      Cond
	Helo     Cond
	TLS      Cond
	Auth     Cond
	MailFrom Cond
	RcptTo   Cond
}
