package check

import (
	"fmt"
	"net/netip"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// reach warns of rules that cannot do what they seem to do.
func (c *checker) reach() {
	var all *conf.Match
	rejects := false
	taken := make(map[string]*conf.Match)
	broken := c.diags.HasErrors()
	c.unsigned()
	for _, m := range c.cfg.Matches {
		if m.Bad {
			continue
		}
		if all != nil {
			c.diags.Warnf(m.Pos, "no mail gets to this rule: the one in line %d takes all", all.Pos.Line)
			continue
		}
		if !broken {
			c.covered(m, taken)
		}
		c.unreachable(m)
		if everything(m) {
			all = m
			c.openRelay(m, rejects)
		}
		rejects = rejects || m.Reject
	}
}

// unsigned warns when a filter that signs mail does not see what sendmail(8)
// hands in: that comes by the socket, which has a filter of its own.
func (c *checker) unsigned() {
	var signer *conf.Listen
	for _, l := range c.cfg.Listens {
		if l.Socket && l.Filter != "" {
			return
		}
		if signer == nil && c.signs(l.Filter) {
			signer = l
		}
	}
	if signer != nil {
		c.diags.Add(diag.Diag{Severity: diag.Warning, Pos: signer.Place("filter"),
			Message: "mail that programs of this machine hand in is not signed: it comes by the socket, which has no filter",
			Hint:    "add listen on socket filter …"})
	}
}

// signs tells whether a filter is, or a chain contains, a program for DKIM.
func (c *checker) signs(name string) bool {
	f := c.filters[name]
	if f == nil || f.Bad {
		return false
	}
	for _, part := range f.Chain {
		if g := c.filters[part]; g != nil && g.Kind != conf.FilterChain && c.signs(part) {
			return true
		}
	}
	p := f.Proc
	if f.Kind == conf.FilterProc {
		p = c.procs[p.Name]
	}
	return p != nil && strings.Contains(p.Command, "dkim")
}

// covered warns of a rule whose every mail an earlier one takes: one with the
// same source or any, the same destination or any, and no condition that this one
// does not have. taken has the rules before.
func (c *checker) covered(m *conf.Match, taken map[string]*conf.Match) {
	from := []string{c.condKey(int(m.FromKind), m.From), c.condKey(int(conf.FromAny), conf.Cond{})}
	dest := []string{c.condKey(int(m.ForKind), m.For), c.condKey(int(conf.ForAny), conf.Cond{})}
	rest := []string{c.restKey(m), c.restKey(new(conf.Match))}
	for _, f := range from {
		for _, d := range dest {
			for _, r := range rest {
				if old := taken[f+d+r]; old != nil && old.Pos != m.Pos {
					c.diags.Warnf(m.Pos, "no mail gets to this rule: the one in line %d takes all of it", old.Pos.Line)
					return
				}
			}
		}
	}
	taken[from[0]+dest[0]+rest[0]] = m
}

func (c *checker) restKey(m *conf.Match) string {
	key := ""
	for _, cond := range []conf.Cond{m.Tag, m.Helo, m.TLS, m.Auth, m.MailFrom, m.RcptTo} {
		kind := 0
		if cond.Set() {
			kind = 1
		}
		key += c.condKey(kind, cond)
	}
	return key
}

// condKey is the same for conditions that are the same; inline tables are
// compared by what is in them.
func (c *checker) condKey(kind int, cond conf.Cond) string {
	table := string(cond.Table)
	if t := c.tables[table]; t != nil && t.Inline {
		table = ""
		for _, e := range t.Entries {
			table += fmt.Sprintf("%q", strings.ToLower(e.Key))
		}
	}
	return fmt.Sprintf("%d %v %v %s;", kind, cond.Not, cond.Regex, table)
}

// everything tells whether a rule matches any mail.
func everything(m *conf.Match) bool {
	return m.FromKind == conf.FromAny && !m.From.Not && m.ForKind == conf.ForAny && !m.For.Not &&
		!m.Tag.Set() && !m.Helo.Set() && !m.TLS.Set() && !m.Auth.Set() && !m.MailFrom.Set() && !m.RcptTo.Set()
}

// openRelay warns of a rule that sends anybody's mail anywhere.
func (c *checker) openRelay(m *conf.Match, rejects bool) {
	a := c.actions[m.Action]
	if m.Reject || a == nil || a.Method != conf.Relay || !c.remote() {
		return
	}
	but := ""
	if rejects {
		but = ", but for what the rules above reject"
	}
	c.diags.Warnf(m.Pos, "open relay: this rule lets anybody send mail to anywhere%s", but)
}

// remote tells whether a listener takes connections that are not from here.
func (c *checker) remote() bool {
	for _, l := range c.cfg.Listens {
		if !l.Socket && !loopback(l.On) && l.Auth != conf.AuthRequire {
			return true
		}
	}
	return false
}

// outside tells whether a listener may be reached from other machines.
func (c *checker) outside() bool {
	for _, l := range c.cfg.Listens {
		if !l.Socket && !loopback(l.On) {
			return true
		}
	}
	return false
}

func loopback(on string) bool {
	switch on {
	case "", "lo", "lo0", "localhost", "127.0.0.1", "::1", "[::1]":
		return true
	}
	return false
}

// here tells whether a table may hold an address of this machine, as far as can
// be seen.
func (c *checker) here(ref conf.TableRef) bool {
	t := c.tables[string(ref)]
	if t == nil || t.Backend != "static" {
		return true
	}
	for _, e := range t.Entries {
		p, _, err := conf.ParseNet(e.Key)
		if err != nil || p.Contains(netip.IPv6Loopback()) || p.Overlaps(netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)) {
			return true
		}
	}
	return false
}

// unreachable warns of a rule whose condition no listener can meet.
func (c *checker) unreachable(m *conf.Match) {
	auth, anyTLS := false, false
	tags := make(map[string]bool)
	for _, l := range c.cfg.Listens {
		auth = auth || l.Auth != conf.NoAuth
		anyTLS = anyTLS || l.TLS != conf.NoTLS
		tags[l.Tag] = true
	}
	wantsAuth := m.Auth.Set() && !m.Auth.Not || m.FromKind == conf.FromAuth && !m.From.Not
	switch {
	case wantsAuth && !auth:
		c.diags.Warnf(m.Pos, "no mail gets to this rule: no listener has auth")
	case m.FromKind == conf.FromSrc && !m.From.Not && !m.From.Regex && !c.outside() && !c.here(m.From.Table):
		c.diags.Warnf(m.Pos, "no mail gets to this rule: all listeners are of this machine alone")
	case m.TLS.Set() && !m.TLS.Not && !anyTLS:
		c.diags.Warnf(m.TLS.Pos, "no mail gets to this rule: no listener has tls")
	case m.Tag.Set() && !m.Tag.Not && !m.Tag.Regex:
		t := c.tables[string(m.Tag.Table)]
		if t == nil || t.Backend != "static" {
			return
		}
		for _, e := range t.Entries {
			if tags[e.Key] {
				return
			}
		}
		c.diags.Warnf(m.Tag.Pos, "no mail gets to this rule: no listener has that tag")
	}
}
