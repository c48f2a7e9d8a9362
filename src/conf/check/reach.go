package check

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// reach warns of rules that cannot do what they seem to do.
func (c *checker) reach() {
	var all *conf.Match
	rejects := false
	c.unsigned()
	for _, m := range c.cfg.Matches {
		if m.Bad {
			continue
		}
		if all != nil {
			c.diags.Warnf(m.Pos, "no mail gets to this rule: the one in line %d takes all", all.Pos.Line)
			continue
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
		switch l.On {
		case "", "lo", "lo0", "localhost", "127.0.0.1", "::1":
		default:
			if l.Auth != conf.AuthRequire {
				return true
			}
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
