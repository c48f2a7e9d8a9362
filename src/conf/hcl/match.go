package hcl

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

type matchField = field[*conf.Match]

// condField is a condition of a rule; alone tells that it may be true or false.
func condField(word string, alone bool, to func(*conf.Match) *conf.Cond) matchField {
	return matchField{word, func(p *parser, m *conf.Match, a *hclsyntax.Attribute) {
		p.mark(&m.Node, word, a.NameRange)
		*to(m) = p.cond(&m.Node, word, a, alone)
	}}
}

// matchFields are the parts of a rule.
func matchFields() []matchField {
	return []matchField{
		{"from", (*parser).from},
		{"for", (*parser).forDest},
		condField("tag", false, func(m *conf.Match) *conf.Cond { return &m.Tag }),
		condField("helo", false, func(m *conf.Match) *conf.Cond { return &m.Helo }),
		{"tls", func(p *parser, m *conf.Match, a *hclsyntax.Attribute) {
			m.TLS = conf.Cond{Pos: p.pos(a.NameRange), Not: !p.flag(a.Expr)}
		}},
		condField("auth", true, func(m *conf.Match) *conf.Cond { return &m.Auth }),
		condField("mail-from", false, func(m *conf.Match) *conf.Cond { return &m.MailFrom }),
		condField("rcpt-to", false, func(m *conf.Match) *conf.Cond { return &m.RcptTo }),
		{"action", func(p *parser, m *conf.Match, a *hclsyntax.Attribute) {
			p.mark(&m.Node, "action", a.Expr.Range())
			m.Action = p.refTo(a.Expr, "action")
		}},
		{"reject", func(p *parser, m *conf.Match, a *hclsyntax.Attribute) {
			p.mark(&m.Node, "action", a.NameRange)
			if m.Reject = p.flag(a.Expr); !m.Reject && !p.bad {
				p.fail(a.Expr.Range(), "", "reject = false says nothing: a rule has an action, or reject = true")
			}
		}},
	}
}

// match reads match { … }.
func (p *parser) match(b *hclsyntax.Block) {
	m := &conf.Match{Node: p.declaration(b)}
	p.cfg.Matches = append(p.cfg.Matches, m)
	p.keep(&m.Node, b.Range())
	fields(p, "match", b.Body, m, matchFields())
	has := b.Body.Attributes
	switch {
	case p.bad:
	case has["action"] != nil && has["reject"] != nil:
		p.fail(has["reject"].NameRange, "", "action and reject are mutually exclusive")
	case has["action"] == nil && has["reject"] == nil:
		p.fail(b.TypeRange, "add action = action.NAME, or reject = true", "the rule says nothing to do")
	case has["auth"] != nil && m.FromKind == conf.FromAuth:
		p.fail(has["auth"].NameRange, "from = auth(…) is one", "auth already specified")
	case has["mail-from"] != nil && m.FromKind == conf.FromMailFrom:
		p.fail(has["mail-from"].NameRange, "from = mail-from(…) is one", "mail-from already specified")
	case has["rcpt-to"] != nil && m.ForKind == conf.ForRcptTo:
		p.fail(has["rcpt-to"].NameRange, "for = rcpt-to(…) is one", "rcpt-to already specified")
	}
	m.Bad = p.bad
}

// kind is what stands behind from and for.
type kind struct {
	word string
	call bool // takes T in parentheses
	none bool // T may be missing
}

// The kinds in the order of conf.FromKind and conf.ForKind; never written.
var (
	fromKinds = []kind{{word: "local"}, {word: "any"}, {word: "socket"}, {word: "src", call: true},
		{word: "rdns", call: true, none: true}, {word: "auth", call: true, none: true}, {word: "mail-from", call: true}}
	forKinds = []kind{{word: "local"}, {word: "any"}, {word: "domain", call: true}, {word: "rcpt-to", call: true}}
)

func (p *parser) from(m *conf.Match, a *hclsyntax.Attribute) {
	if i, ok := p.side(m, "from", a, &m.From, fromKinds, `"local", "any", "socket", src(…), rdns(…), auth(…) or mail-from(…)`); ok {
		m.FromKind = conf.FromKind(i)
	}
}

func (p *parser) forDest(m *conf.Match, a *hclsyntax.Attribute) {
	if i, ok := p.side(m, "for", a, &m.For, forKinds, `"local", "any", domain(…) or rcpt-to(…)`); ok {
		m.ForKind = conf.ForKind(i)
	}
}

// side reads the source or the destination that a rule wants.
func (p *parser) side(m *conf.Match, word string, a *hclsyntax.Attribute, c *conf.Cond, table []kind, want string) (int, bool) {
	p.mark(&m.Node, word, a.NameRange)
	c.Pos = p.pos(a.NameRange)
	x, not, ok := p.not(a.Expr)
	if !ok {
		return 0, false
	}
	c.Not = not
	for i, k := range table {
		fc := call(x, k.word)
		switch {
		case fc == nil:
		case !k.call:
			p.fail(x.Range(), `write "`+k.word+`"`, "%s() is no function", k.word)
			return 0, false
		case len(fc.Args) == 0 && k.none:
			return i, true
		default:
			in, ok := p.argument(fc)
			if !ok {
				return 0, false
			}
			p.pattern(&m.Node, word, in, c, false)
			return i, true
		}
	}
	return p.sideWord(x, word, table, want)
}

// sideWord reads "local", "any" and the like.
func (p *parser) sideWord(x hclsyntax.Expression, word string, table []kind, want string) (int, bool) {
	v, ok := p.eval(x)
	if !ok {
		return 0, false
	}
	s, isText := p.text(v)
	var words []string
	for i, k := range table {
		switch {
		case !isText || k.word != s:
			words = append(words, k.word)
		case k.call:
			p.fail(x.Range(), "write "+s+"(…), without quotes", "%q needs a value", s)
			return 0, false
		default:
			return i, true
		}
	}
	hint := near(s, words)
	if hint == "" {
		hint = map[string]string{"from": "write src(…) around it if that is what it is", "for": "write domain(…) around it if that is what it is"}[word]
	}
	p.fail(x.Range(), hint, "expected %s after %q, got %s", want, word, p.describe(v))
	return 0, false
}
