package ruleset

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
)

// attribute is the part of a subject that a predicate is about.
type attribute uint8

const (
	attrFact attribute = iota // no table
	attrTag
	attrHelo
	attrSrc
	attrRDNS
	attrAuth
	attrMailFrom
	attrFor
	attrRcptTo
)

// predicate is one question. Predicates are compared with ==, to be shared.
type predicate struct {
	word  string // as in smtpd.conf(5), for explanations
	attr  attribute
	regex bool
	table table.Table // nil for facts
}

// The predicates that need no table; their numbers are fixed.
const (
	predTLS = iota
	predAuth
	predLocal
	predSocket
	predRDNS
	predForLocal
	predAny
	builtinCount
)

// compiler fills a Ruleset.
type compiler struct {
	*Ruleset
	find  func(string) table.Table
	known map[predicate]uint32
	names table.Table // of for local
}

func (c *compiler) builtins(local Local) {
	var names []table.Entry
	for _, n := range local.Names {
		names = append(names, table.Entry{Key: n})
	}
	c.names = table.NewStatic("<localnames>", conf.List, names, "")
	c.preds = make([]predicate, builtinCount)
	c.preds[predTLS] = predicate{word: "tls"}
	c.preds[predAuth] = predicate{word: "auth"}
	c.preds[predLocal] = predicate{word: "from local"}
	c.preds[predSocket] = predicate{word: "from socket"}
	c.preds[predRDNS] = predicate{word: "from rdns"}
	c.preds[predAny] = predicate{word: "any"}
	c.preds[predForLocal] = predicate{word: "for local", attr: attrFor, table: c.names}
}

// rule adds the conditions of m; those that are always true are left out. The
// ones that are known before the walk come first, so that no table is asked, and
// none can fail, for a rule that does not apply.
func (c *compiler) rule(m *project.Match) error {
	from := len(c.conds)
	if err := c.parts(m); err != nil {
		return err
	}
	slices.SortStableFunc(c.conds[from:], func(a, b cond) int {
		return c.preds[a.pred].cost() - c.preds[b.pred].cost()
	})
	return nil
}

// cost is 0 for what is known before the walk.
func (p *predicate) cost() int {
	if p.table == nil || p.fixed() != nil {
		return 0
	}
	return 1
}

// fixed returns the table when it cannot change and takes part in a union.
func (p *predicate) fixed() *table.Static {
	if t, ok := p.table.(*table.Static); ok && t.Path() == "" && !p.regex {
		return t
	}
	return nil
}

func (c *compiler) parts(m *project.Match) error {
	for _, add := range []func(*project.Match) error{c.forPart, c.fromPart} {
		if err := add(m); err != nil {
			return err
		}
	}
	for _, o := range []struct {
		cond project.Cond
		word string
		attr attribute
		fact int
	}{
		{m.Tag, "tag", attrTag, -1},
		{m.Helo, "helo", attrHelo, -1},
		{m.Auth, "auth", attrAuth, predAuth},
		{m.TLS, "tls", attrFact, predTLS},
		{m.MailFrom, "mail-from", attrMailFrom, -1},
		{m.RcptTo, "rcpt-to", attrRcptTo, -1},
	} {
		if !o.cond.Set {
			continue
		}
		if err := c.option(o.cond, o.word, o.attr, o.fact); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) forPart(m *project.Match) error {
	switch m.ForKind {
	case conf.ForLocal:
		c.fact(predForLocal, m.For.Not)
	case conf.ForAny:
		c.always(m.For.Not)
	case conf.ForDomain:
		return c.option(m.For, "for domain", attrFor, -1)
	case conf.ForRcptTo:
		return c.option(m.For, "for rcpt-to", attrRcptTo, -1)
	default:
		return fmt.Errorf("unknown kind %d of for", m.ForKind)
	}
	return nil
}

func (c *compiler) fromPart(m *project.Match) error {
	switch m.FromKind {
	case conf.FromLocal:
		c.fact(predLocal, m.From.Not)
	case conf.FromAny:
		c.always(m.From.Not)
	case conf.FromSocket:
		c.fact(predSocket, m.From.Not)
	case conf.FromSrc:
		return c.option(m.From, "from src", attrSrc, -1)
	case conf.FromRDNS:
		return c.option(m.From, "from rdns", attrRDNS, predRDNS)
	case conf.FromAuth:
		return c.option(m.From, "from auth", attrAuth, predAuth)
	case conf.FromMailFrom:
		return c.option(m.From, "from mail-from", attrMailFrom, -1)
	default:
		return fmt.Errorf("unknown kind %d of from", m.FromKind)
	}
	return nil
}

// option adds a condition with a table, or the fact that stands without one.
func (c *compiler) option(o project.Cond, word string, attr attribute, fact int) error {
	if o.Table == "" {
		if fact < 0 {
			return fmt.Errorf("%s without a table", word)
		}
		c.fact(uint32(fact), o.Not)
		return nil
	}
	t := c.find(o.Table)
	if t == nil {
		return fmt.Errorf("no table %s", o.Table)
	}
	p := predicate{word: word, attr: attr, regex: o.Regex, table: t}
	n, ok := c.known[p]
	if !ok {
		n = uint32(len(c.preds))
		c.preds = append(c.preds, p)
		c.known[p] = n
	}
	c.fact(n, o.Not)
	return nil
}

func (c *compiler) fact(pred uint32, not bool) { c.conds = append(c.conds, cond{pred, truth(!not)}) }

// always adds nothing, or for "!from any" a condition that never holds.
func (c *compiler) always(not bool) {
	if not {
		c.fact(predAny, true)
	}
}

// finish gathers the predicates over fixed tables into groups.
func (c *compiler) finish() {
	c.blank = make([]verdict, len(c.preds))
	byKind := make(map[attribute]*group)
	var order []attribute
	for n, p := range c.preds {
		t := p.fixed()
		if t == nil {
			continue
		}
		g := byKind[p.attr]
		if g == nil {
			g = &group{attr: p.attr}
			byKind[p.attr] = g
			order = append(order, p.attr)
		}
		g.preds = append(g.preds, uint32(n))
		g.tables = append(g.tables, t)
		c.blank[n] = no
	}
	for _, a := range order {
		c.groups = append(c.groups, byKind[a].finish())
	}
}

// group is the predicates about one attribute whose tables never change.
type group struct {
	attr   attribute
	preds  []uint32
	tables []*table.Static
	union  *table.Union
	mails  *table.Union // of attrAuth: for user names that are addresses
}

func (g *group) finish() group {
	service := services[g.attr]
	g.union = table.NewUnion(service, g.tables)
	if g.attr == attrAuth {
		g.mails = table.NewUnion(table.MailAddr, g.tables)
	}
	return *g
}

// services names the service under which the tables of an attribute are asked.
var services = [...]table.Service{
	attrTag: table.String, attrHelo: table.Domain, attrSrc: table.NetAddr, attrRDNS: table.Domain,
	attrAuth: table.String, attrMailFrom: table.MailAddr, attrFor: table.Domain, attrRcptTo: table.MailAddr,
}

func (g *group) evaluate(s *Subject, m *memo) {
	key, ok := s.key(g.attr)
	if !ok {
		return
	}
	u := g.union
	if g.attr == attrAuth && isMail(key) {
		u = g.mails
	}
	u.Match(key, func(i int) { m.known[g.preds[i]] = yes })
}

func isMail(user string) bool { return strings.IndexByte(user, '@') >= 0 }

// key returns what a table is asked about an attribute; without ok no table
// holds it.
func (s *Subject) key(a attribute) (key string, ok bool) {
	switch a {
	case attrTag:
		return s.Tag, true
	case attrHelo:
		return s.Helo, true
	case attrSrc:
		if s.Internal {
			return "local", true
		}
		return table.AddrKey(s.Addr), true
	case attrRDNS:
		return s.RDNS, s.RDNS != "" && !s.Internal
	case attrAuth:
		return s.AuthUser, s.Authenticated && s.AuthUser != ""
	case attrMailFrom:
		return mailKey(s.Sender), true
	case attrFor:
		return s.Rcpt.Domain, true
	case attrRcptTo:
		return mailKey(s.Rcpt), true
	}
	return "", false
}

// mailKey is an address as it is looked up: always with its '@'.
func mailKey(a addr.Address) string { return a.Local + "@" + a.Domain }

// ask evaluates a predicate about a table.
func (p *predicate) ask(ctx context.Context, s *Subject) (verdict, error) {
	key, ok := s.key(p.attr)
	if !ok {
		return no, nil
	}
	service := services[p.attr]
	switch {
	case p.regex:
		service = table.Regex
	case p.attr == attrAuth && isMail(key):
		service = table.MailAddr
	}
	found, err := p.table.Match(ctx, service, key)
	if err != nil {
		return unknown, fmt.Errorf("%s: table %s: %w", p.word, p.table.Name(), err)
	}
	return truth(found), nil
}

// text names the condition, or its negation.
func (p *predicate) text(not bool) string {
	s := p.word
	if not {
		s = "!" + s
	}
	if p.table != nil && p.attr != attrFact && p.table.Name() != "<localnames>" {
		if p.regex {
			s += " regex"
		}
		s += " " + tableText(p.table.Name())
	}
	return s
}
