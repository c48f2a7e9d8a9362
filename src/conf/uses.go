package conf

import (
	"fmt"
	"slices"
	"strings"
)

// Service says what a table is asked for.
type Service uint8

const (
	AliasService Service = iota
	VirtualService
	UserInfoService
	DomainService      // names of domains and hosts
	NetAddrService     // addresses and networks
	MailAddrService    // mail addresses, or "@domain"
	StringService      // tags
	CredentialsService // users with passwords, or names of users in a rule
	SourceService      // addresses to connect from
	AddrNameService    // address → host name
	MailAddrMapService // user → addresses
	RelayHostService   // relay urls
	RelayMapService    // domain → relay url
)

// Use is one mention of a table.
type Use struct {
	Ref     *TableRef
	Node    *Node // the statement
	Pos     Pos
	What    string // words of the option, as in "match … from src"
	Service Service
	Regex   bool
	Lists   bool // may be a list
	Maps    bool // may be a mapping
}

// Uses returns every mention of a table in cfg, in the order in which the
// canonical form is printed. Mentions that were not written are left out.
func Uses(cfg *Config) []Use {
	var u uses
	for _, f := range cfg.Filters {
		u.filter(f)
	}
	for _, l := range cfg.Listens {
		u.listen(l)
	}
	for _, a := range cfg.Actions {
		u.action(a)
	}
	for _, m := range cfg.Matches {
		u.match(m)
	}
	return u
}

type uses []Use

const (
	lists = 1 << iota
	maps
)

func (u *uses) add(n *Node, ref *TableRef, word, what string, s Service, regex bool, kinds int) {
	if *ref == "" {
		return
	}
	pos, ok := n.At[TablePart(word)]
	if !ok {
		pos = n.Place(word)
	}
	if regex {
		kinds = lists
	}
	*u = append(*u, Use{ref, n, pos, what, s, regex, kinds&lists != 0, kinds&maps != 0})
}

func (u *uses) filter(f *Filter) {
	for i := range f.Conds {
		c := &f.Conds[i]
		s, kinds := DomainService, lists
		switch c.Kind {
		case "src":
			s = NetAddrService
		case "auth":
			s, kinds = CredentialsService, lists|maps
		case "mail-from", "rcpt-to":
			s, kinds = MailAddrService, lists|maps
		}
		u.add(&f.Node, &c.Table, c.Kind, "filter … "+c.Kind, s, c.Regex, kinds)
	}
}

func (u *uses) listen(l *Listen) {
	add := func(ref *TableRef, word string, s Service) {
		u.add(&l.Node, ref, word, "listen on … "+word, s, false, maps)
	}
	add(&l.AuthTable, "auth", CredentialsService)
	add(&l.Hostnames, "hostnames", AddrNameService)
	add(&l.Senders, "senders", MailAddrMapService)
}

func (u *uses) action(a *Action) {
	add := func(ref *TableRef, word string, s Service, kinds int) {
		u.add(&a.Node, ref, word, "action … "+word, s, false, kinds)
	}
	add(&a.Alias, "alias", AliasService, maps)
	add(&a.Virtual, "virtual", VirtualService, maps)
	add(&a.UserBase, "userbase", UserInfoService, maps)
	add(&a.HeloSrc, "helo-src", AddrNameService, maps)
	add(&a.BindTo, "src", SourceService, lists|maps)
	add(&a.HostTable, "host", RelayHostService, lists)
	add(&a.Domain, "domain", RelayMapService, maps)
	add(&a.AuthTable, "auth", CredentialsService, maps)
}

func (u *uses) match(m *Match) {
	add := func(c *Cond, word string, s Service, kinds int) {
		first, _, _ := strings.Cut(word, " ")
		u.add(&m.Node, &c.Table, first, "match … "+word, s, c.Regex, kinds)
	}
	switch m.FromKind {
	case FromSrc:
		add(&m.From, "from src", NetAddrService, lists)
	case FromRDNS:
		add(&m.From, "from rdns", DomainService, lists)
	case FromAuth:
		add(&m.From, "from auth", CredentialsService, lists|maps)
	case FromMailFrom:
		add(&m.From, "from mail-from", MailAddrService, lists|maps)
	case FromLocal, FromAny, FromSocket:
	}
	switch m.ForKind {
	case ForDomain:
		add(&m.For, "for domain", DomainService, lists)
	case ForRcptTo:
		add(&m.For, "for rcpt-to", MailAddrService, lists|maps)
	case ForLocal, ForAny:
	}
	add(&m.Tag, "tag", StringService, lists)
	add(&m.Helo, "helo", DomainService, lists)
	add(&m.Auth, "auth", CredentialsService, lists|maps)
	add(&m.MailFrom, "mail-from", MailAddrService, lists|maps)
	add(&m.RcptTo, "rcpt-to", MailAddrService, lists|maps)
}

// NameInline gives inline tables and inline filter chains their final names,
// which depend on nothing but the order of the canonical form, and puts them
// behind the declared ones. Those that nothing mentions are dropped.
func NameInline(cfg *Config) {
	nameChains(cfg)
	tables := make(map[string]*Table)
	var kept []*Table
	for _, t := range cfg.Tables {
		if t.Inline {
			tables[t.Name] = t
		} else {
			kept = append(kept, t)
		}
	}
	n := 0
	for _, u := range Uses(cfg) {
		if t := tables[string(*u.Ref)]; t != nil {
			n++
			t.Name = fmt.Sprintf("<table:%d>", n)
			*u.Ref = TableRef(t.Name)
			kept = append(kept, t)
		}
	}
	cfg.Tables = kept
}

func nameChains(cfg *Config) {
	chains := make(map[string]*Filter)
	var kept []*Filter
	for _, f := range cfg.Filters {
		if f.Inline {
			chains[f.Name] = f
		} else {
			kept = append(kept, f)
		}
	}
	n := 0
	rename := func(name *string) {
		if f := chains[*name]; f != nil {
			n++
			f.Name = fmt.Sprintf("<chain:%d>", n)
			*name = f.Name
			kept = append(kept, f)
		}
	}
	for _, l := range cfg.Listens {
		rename(&l.Filter)
	}
	for _, a := range cfg.Actions {
		rename(&a.Filter)
	}
	cfg.Filters = kept
}

// ChainPart is the word under which the place of a chain's i-th filter is kept.
func ChainPart(i int) string { return fmt.Sprintf("chain %d", i) }

// TablePart is the word under which the place of an option's table is kept.
func TablePart(option string) string { return option + " table" }

// Table returns the table of that name, or nil.
func (c *Config) Table(name TableRef) *Table {
	i := slices.IndexFunc(c.Tables, func(t *Table) bool { return t.Name == string(name) })
	if i < 0 {
		return nil
	}
	return c.Tables[i]
}
