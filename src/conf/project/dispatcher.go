package project

import (
	"net/netip"
	"slices"
	"time"

	"opensmtpd/src/conf"
)

// DispatcherConf is what the process that speaks SMTP must know.
type DispatcherConf struct {
	ServerName     string // in greetings and Received lines
	SubAddrDelim   string // one character
	MaxMessageSize int64  // bytes
	MaxMails       int    // messages of one session
	MaxRcpt        int    // recipients of one transaction
	MaxSession     int    // at a time; 0: as many as there can be
	MaxPerAddress  int    // of them with one address; 0: any number
	Ciphers        string // default for listeners and relays; "" is the library's

	Listeners []Listener
	Filters   []Filter // in order of declaration
	Procs     []Proc   // filter programs; their pipes come by Identity
	PKIs      []PKI
	CAs       []CA

	Relays         []RelayAction
	MTALimits      []MTALimits // the first has Domain "" and holds for all others
	MTAMaxDeferred int         // envelopes kept in memory for a suspended host

	SRSKey       string // "": no SRS
	SRSKeyBackup string
	SRSTTL       time.Duration
}

// Listener is one socket that mail comes in by: `listen on` may make several.
type Listener struct {
	Identity   string // names the descriptor; the same while address and port are
	Socket     bool   // the local socket, which control hands sessions of
	Addr       netip.AddrPort
	Local      bool   // loopback or the socket
	Hostname   string // in the greeting; never empty
	Hostnames  string // table of address → name, or ""
	Tag        string
	MaskSrc    bool
	NoDSN      bool
	ProxyV2    bool
	RecvAuth   bool
	Senders    string // table of user → addresses, or ""
	Masquerade bool
	Auth       conf.Auth
	AuthTable  string // "": system users
	TLS        conf.TLSMode
	TLSVerify  bool     // clients must show a certificate
	PKIs       []string // names, the first is the default, the others for SNI
	CA         string
	Ciphers    string
	Protocols  string
	Filter     string // name of a filter, or ""
}

// Filter is a filter as dispatcher runs it. Tables of conditions are asked of
// lookup.
type Filter struct {
	Name   string
	Kind   conf.FilterKind
	Proc   string   // of FilterProc and FilterProcExec
	Chain  []string // of FilterChain
	Phase  string
	Conds  []FilterCond
	Decide conf.Decision
	// OnFailure is of FilterProc and FilterProcExec.
	OnFailure conf.OnFailure `json:",omitempty"`
}

// FilterCond is a condition of a built-in filter.
type FilterCond struct {
	Not   bool
	Kind  string // fcrdns rdns src helo auth mail-from rcpt-to
	Table string // "" when the condition has none
	Regex bool
}

// Members returns the filters behind a name: itself, or those of its chain.
func (d *DispatcherConf) Members(name string) []*Filter {
	f := d.filter(name)
	switch {
	case f == nil:
		return nil
	case len(f.Chain) == 0:
		return []*Filter{f}
	}
	var list []*Filter
	for _, part := range f.Chain {
		if g := d.filter(part); g != nil {
			list = append(list, g)
		}
	}
	return list
}

func (d *DispatcherConf) filter(name string) *Filter {
	i := slices.IndexFunc(d.Filters, func(f Filter) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Filters[i]
}

// Proc is a filter program that parent keeps running.
type Proc struct {
	Name     string
	Identity string // names the pipe; the same while all the rest is, and how it is started
	Told     Told
}

// Told is what a program is told of the configuration when it starts.
type Told struct {
	ADMD string // the authserv-id
	// In and Out tell whether it hears of sessions with clients and servers.
	In, Out bool
}

// PKI is a certificate; the key stays with crypto, which signs under Name.
type PKI struct {
	Name     string
	Identity string // of the certificate file, which parent reads
	DHE      string
}

// CA is a set of trusted authorities.
type CA struct {
	Name     string
	Identity string // of the file, which parent reads
}

// RelayAction is an action that sends mail to other machines.
type RelayAction struct {
	Name      string
	TTL       time.Duration
	Backup    bool
	BackupMX  string
	Src       string // table of source addresses, or ""
	Helo      string
	HeloSrc   string // table of source address → name, or ""
	Host      string // url of the one relay, or ""; conf.ParseRelay reads it
	Hosts     string // table of relay urls, or ""
	ByDomain  bool   // Hosts maps a destination domain to its relay
	AuthTable string // table of credentials by label, or ""
	MailFrom  string
	PKI       string
	CA        string
	TLS       bool // demanded
	NoVerify  bool
	Protocols string
	Ciphers   string
	Filter    string
	SRS       bool
}

// MTALimits is the whole set of limits for a destination domain. Delays are in
// seconds in the file.
type MTALimits struct {
	Domain                string
	MaxConnPerHost        int
	MaxConnPerRoute       int
	MaxConnPerSource      int
	MaxConnPerConnector   int
	MaxConnPerRelay       int
	MaxConnPerDomain      int
	ConnDelayHost         time.Duration
	ConnDelayRoute        time.Duration
	ConnDelaySource       time.Duration
	ConnDelayConnector    time.Duration
	ConnDelayRelay        time.Duration
	ConnDelayDomain       time.Duration
	ReconnDelayRoute      time.Duration
	SessionMailMax        int
	SessionTransactionLag time.Duration // session-transaction-delay
	SessionKeepalive      time.Duration
	MaxFailuresPerSession int
	TaskHiwat             int
	TaskLowat             int
	TaskRelease           int
	Family                conf.Family
	// Written names the keys that the file sets, sorted: what is not in it is
	// the reference's default, which a better scheduler may ignore.
	Written []string
}
