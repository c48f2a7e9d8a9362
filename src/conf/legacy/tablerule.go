package legacy

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// tableRule reads conditions lookups action parameters, in any order up to the
// action.
func (p *parser) tableRule(n conf.Node, reject bool) *conf.Node {
	r := &rule{Node: n, reject: reject}
	p.rules = append(p.rules, r)
	d := dest{pos: n.Pos, cond: conf.Cond{Pos: n.Pos}}
	a := &conf.Action{Node: conf.Node{Pos: n.Pos}, Method: conf.ExpandOnly}
	syntax.Mark(&a.Node, "method", n.Pos)
	acted := false
	for p.More() {
		switch {
		case p.condition(r, &d):
		case p.lookup(&r.Node, &d, a):
		case p.parameter(a):
		case p.word("deliver"), p.word("relay"):
			if acted || a.Method == conf.ForwardOnly {
				p.Fail(p.Tok.Pos, "", "a rule has one action")
				break
			}
			acted = true
			p.tableAction(r, a)
		default:
			p.UnknownOption("a rule", []string{"tagged", "authenticated", "from", "for", "sender", "recipient",
				"alias", "virtual", "userbase", "deliver", "relay", "expire", "forward-only"})
		}
	}
	switch {
	case p.Bad:
	case reject && (acted || a.Method != conf.ExpandOnly):
		p.Complain(a.Place("method"), "reject takes no action")
	default:
		p.checkRule(r, &d, a)
	}
	r.dests = []dest{d}
	if !reject {
		r.action = a
	}
	return &r.Node
}

// checkRule checks what parts of a rule exclude each other.
func (p *parser) checkRule(r *rule, d *dest, a *conf.Action) {
	relay := !a.Method.Local()
	switch {
	case relay && a.UserBase != "":
		p.Complain(a.Place("userbase"), "userbase may not be used with a relay rule")
	case relay && d.alias != "":
		p.Complain(a.Place("alias"), "alias may not be used with a relay rule")
	case d.alias != "" && d.virtual != "":
		p.Complain(r.Place("virtual"), "alias and virtual are mutually exclusive")
	}
}

// not reads an exclamation mark.
func (p *parser) not() bool { return p.SkipPunct("!") }

// condition reads one condition when it is at hand.
func (p *parser) condition(r *rule, d *dest) bool {
	pos := p.Tok.Pos
	n := &r.Node
	switch {
	case p.IsPunct("!"), p.word("authenticated"):
		c := conf.Cond{Pos: pos, Not: p.not()}
		p.Want("authenticated")
		p.Once(n, "auth", pos)
		r.match.Auth = c
	case p.Skip("tagged"):
		p.Once(n, "tag", pos)
		not := p.not()
		p.ruleTag(r, pos)
		r.match.Tag.Not = not
	case p.Skip("sender"):
		p.Once(n, "mail-from", pos)
		r.match.MailFrom = conf.Cond{Pos: pos, Not: p.not()}
		r.match.MailFrom.Table = p.Ref(n, "mail-from")
	case p.Skip("recipient"):
		p.Once(n, "rcpt-to", pos)
		r.match.RcptTo = conf.Cond{Pos: pos, Not: p.not()}
		r.match.RcptTo.Table = p.Ref(n, "rcpt-to")
	case p.Skip("from"):
		p.Once(n, "from", pos)
		p.tableFrom(r, pos)
	case p.Skip("for"):
		p.Once(n, "for", pos)
		p.tableFor(n, d, pos)
	default:
		return false
	}
	return true
}

func (p *parser) tableFrom(r *rule, pos conf.Pos) {
	r.cond = conf.Cond{Pos: pos, Not: p.not()}
	switch {
	case p.any():
		r.from = conf.FromAny
	case p.Skip("local"):
		r.from = conf.FromLocal
	default: // 5.3 has no word before the addresses
		p.Skip("source")
		r.from = conf.FromSrc
		if !p.refOr("from", "any, local, or source and addresses") {
			return
		}
		r.cond.Table = p.Ref(&r.Node, "from")
	}
}

// any reads any, or all: the word of before, which guides of 5.3 and later still
// have, and which can be no network and no domain.
func (p *parser) any() bool { return p.Skip("any") || p.Skip("all") }

func (p *parser) tableFor(n *conf.Node, d *dest, pos conf.Pos) {
	d.cond = conf.Cond{Pos: pos, Not: p.not()}
	switch {
	case p.any():
		d.kind = conf.ForAny
	case p.Skip("local"):
		d.kind = conf.ForLocal
	default:
		d.kind = conf.ForDomain
		if !p.Skip("domain") && !p.refOr("for", "any, local, or domain and names") {
			return
		}
		d.cond.Table = p.Ref(n, "for")
	}
}

// refOr fails when no table is at hand.
func (p *parser) refOr(word, want string) bool {
	if p.IsRef() || p.Tok.Kind == lex.Punct && p.Tok.Text != "!" {
		return true // Ref says what is wrong with punctuation
	}
	p.Unexpected(want + " after " + word)
	return false
}

// lookup reads alias, virtual or userbase when it is at hand.
func (p *parser) lookup(n *conf.Node, d *dest, a *conf.Action) bool {
	pos := p.Tok.Pos
	switch {
	case p.Skip("alias"):
		p.Once(n, "alias", pos)
		syntax.Mark(&a.Node, "alias", pos)
		d.alias = p.Ref(&a.Node, "alias")
	case p.Skip("virtual"):
		p.Once(n, "virtual", pos)
		syntax.Mark(&a.Node, "virtual", pos)
		d.virtual = p.Ref(&a.Node, "virtual")
		syntax.Mark(n, conf.TablePart("rcpt-to"), a.At[conf.TablePart("virtual")])
	case p.Skip("userbase"):
		p.Once(n, "userbase", pos)
		syntax.Mark(&a.Node, "userbase", pos)
		a.UserBase = p.Ref(&a.Node, "userbase")
	default:
		return false
	}
	return true
}

// parameter reads expire or forward-only when it is at hand.
func (p *parser) parameter(a *conf.Action) bool {
	pos := p.Tok.Pos
	switch {
	case p.Skip("expire"):
		p.Once(&a.Node, "ttl", pos)
		a.TTL = p.Delay("expire delay")
	case p.Skip("forward-only"):
		if a.Method != conf.ExpandOnly {
			p.Complain(pos, "forward-only may not be used with a default action")
		}
		a.Method = conf.ForwardOnly
	default:
		return false
	}
	return true
}

func (p *parser) tableAction(r *rule, a *conf.Action) {
	pos := p.Tok.Pos
	a.At["method"] = pos
	if p.Skip("deliver") {
		p.Want("to")
		p.tableDeliver(a)
		return
	}
	p.Want("relay")
	a.Method = conf.Relay
	at := p.Tok.Pos
	if p.Skip("via") {
		url := p.Tok.Pos
		syntax.Mark(&a.Node, "host", at)
		syntax.Mark(&a.Node, "url", url)
		if s := p.Str("a url"); !p.Bad {
			p.url(a, s, url)
		}
	}
	for p.More() && p.relayOption(r, a) {
	}
	p.relayCA(a)
}

func (p *parser) tableDeliver(a *conf.Action) {
	pos := p.Tok.Pos
	switch {
	case p.Skip("maildir"):
		a.Method = conf.Maildir
		at := p.Tok.Pos
		if s, ok := p.optional("a path", "forward-only"); ok {
			syntax.Mark(&a.Node, "path", at)
			a.Path = p.format(s)
		}
	case p.Skip("mbox"):
		a.Method = conf.MBOX
	case p.Skip("mda"):
		a.Method = conf.MDA
		syntax.Mark(&a.Node, "command", p.Tok.Pos)
		a.Command = p.format(p.Str("a command"))
		p.deliverAs(a)
	case p.Skip("lmtp"):
		a.Method = conf.LMTP
		syntax.Mark(&a.Node, "destination", p.Tok.Pos)
		a.LMTPDest = p.Str("host:port or the path of a socket")
		a.RcptTo = p.Skip("rcpt-to")
		p.deliverAs(a)
	default:
		p.Fail(pos, "", "expected maildir, mbox, mda or lmtp, got %s", p.Describe(p.Tok))
	}
}

// relayOption reads one option of relay when it is at hand.
func (p *parser) relayOption(r *rule, a *conf.Action) bool {
	pos := p.Tok.Pos
	n := &a.Node
	switch {
	case p.word("as"):
		p.relayAs(a)
	case p.Skip("source"):
		p.Once(n, "src", pos)
		a.BindTo = p.Ref(n, "src")
	case p.Skip("hostname"):
		p.Once(n, "helo", pos)
		a.Helo = p.Str("a host name")
	case p.Skip("hostnames"), p.Skip("helo"):
		p.Once(n, "helo-src", pos)
		a.HeloSrc = p.Ref(n, "helo-src")
	case p.Skip("pki"):
		p.Once(n, "pki", pos)
		a.PKI = strings.ToLower(p.Str("the name of a pki"))
	case p.Skip("certificate"): // 5.3
		p.Once(n, "pki", pos)
		if s := p.Str("the name of a certificate"); !p.Bad {
			a.PKI = p.pkiOf(s, r.Pos, pos)
		}
	case p.Skip("ca"):
		p.Once(n, "ca", pos)
		a.CA = strings.ToLower(p.Str("the name of a ca"))
	case p.Skip("auth"):
		p.Once(n, "auth", pos)
		a.AuthTable = p.Ref(n, "auth")
	case p.Skip("verify"):
		p.verify(a, pos)
	case p.Skip("tls"):
		p.Once(n, "tls", pos)
		a.TLS, a.NoVerify = true, !p.Skip("verify")
	case p.Skip("backup"):
		p.Once(n, "backup", pos)
		a.Backup = true
		if s, ok := p.optional("the name of a mail exchanger", "pki", "ca", "verify", "hostnames", "helo"); ok {
			a.BackupMX = s
		}
	default:
		return false
	}
	return true
}

// verify demands a certificate that is right of a smarthost.
func (p *parser) verify(a *conf.Action, pos conf.Pos) {
	p.Once(&a.Node, "tls", pos)
	if u, err := conf.ParseRelay(a.Host); err == nil && u.Scheme != "smtps" && u.Scheme != "smtp+tls" {
		p.Complain(pos, "cannot \"verify\" with insecure protocol")
		return
	}
	a.TLS = true
}

// relayCA gives a relay the authority that its pki named.
func (p *parser) relayCA(a *conf.Action) {
	if a.PKI == "" || a.CA != "" {
		return
	}
	for _, c := range p.Cfg.CAs {
		if c.Name == a.PKI {
			a.CA = c.Name
			syntax.Mark(&a.Node, "ca", a.Place("pki"))
		}
	}
}
