package native

import (
	"slices"
	"strconv"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// match reads MATCH options ACTION name | REJECT.
func (p *parser) match(n conf.Node) *conf.Node {
	m := &conf.Match{Node: n}
	p.Cfg.Matches = append(p.Cfg.Matches, m)
	for {
		switch {
		case p.Bad:
			return &m.Node
		case p.Tok.Kind == lex.Word && p.Tok.Text == "action":
			p.Advance()
			syntax.Mark(&m.Node, "action", p.Tok.Pos)
			m.Action = p.Str("the name of an action")
			return &m.Node
		case p.Tok.Kind == lex.Word && p.Tok.Text == "reject":
			syntax.Mark(&m.Node, "action", p.Tok.Pos)
			p.Advance()
			m.Reject = true
			return &m.Node
		case !p.More():
			p.Fail(p.Tok.Pos, "a rule ends in action NAME or in reject", "the rule says nothing to do")
			return &m.Node
		}
		p.matchOption(m)
	}
}

// matchWords are the options of match, for hints.
var matchWords = []string{"auth", "for", "from", "helo", "mail-from", "rcpt-to", "tag", "tls", "action", "reject"}

func (p *parser) matchOption(m *conf.Match) {
	pos := p.Tok.Pos
	c := conf.Cond{Pos: pos, Not: p.SkipPunct("!")}
	if p.isAction() {
		p.Fail(p.Tok.Pos, "write action before it", "expected an option of match, got %s", p.Describe(p.Tok))
		return
	}
	if p.Tok.Kind != lex.Word {
		p.Unexpected("an option of match")
		return
	}
	word := p.Tok.Text
	switch word {
	case "from":
		p.Advance()
		p.Once(&m.Node, "from", pos)
		m.From = c
		p.from(m)
	case "for":
		p.Advance()
		p.Once(&m.Node, "for", pos)
		m.For = c
		p.forDest(m)
	case "tls":
		p.Advance()
		p.Once(&m.Node, "tls", pos)
		m.TLS = c
	case "auth":
		p.Advance()
		p.Once(&m.Node, "auth", pos)
		p.cond(m, &c, "auth", true)
		m.Auth = c
	case "tag", "helo", "mail-from", "rcpt-to":
		p.Advance()
		p.Once(&m.Node, word, pos)
		p.cond(m, &c, word, false)
		*simple(m, word) = c
	default:
		if hint := kindHint(word); hint != "" {
			p.Fail(p.Tok.Pos, hint, "%q is no option of match", word)
		}
		p.UnknownOption("match", matchWords)
	}
}

// isAction tells whether the name of an action stands where an option should.
func (p *parser) isAction() bool {
	return p.IsString() && slices.ContainsFunc(p.Cfg.Actions, func(a *conf.Action) bool { return a.Name == p.Tok.Text })
}

// kindHint tells how a word is written that goes after from or for, or "".
func kindHint(word string) string {
	var ways []string
	if _, ok := fromKinds[word]; ok {
		ways = append(ways, "from "+word)
	}
	if _, ok := forKinds[word]; ok {
		ways = append(ways, "for "+word)
	}
	if ways == nil {
		return ""
	}
	return "it is written " + strings.Join(ways, " or ")
}

func simple(m *conf.Match, word string) *conf.Cond {
	switch word {
	case "tag":
		return &m.Tag
	case "helo":
		return &m.Helo
	case "mail-from":
		return &m.MailFrom
	}
	return &m.RcptTo
}

// cond reads [regex] T of the option word, which may be missing when optional.
func (p *parser) cond(m *conf.Match, c *conf.Cond, word string, optional bool) {
	c.Regex = p.Skip("regex")
	if optional && !c.Regex && !p.IsRef() {
		return
	}
	c.Table = p.Ref(&m.Node, word)
}

// fromKinds maps the words after from; it is never written.
var fromKinds = map[string]conf.FromKind{
	"local": conf.FromLocal, "any": conf.FromAny, "socket": conf.FromSocket,
	"src": conf.FromSrc, "rdns": conf.FromRDNS, "auth": conf.FromAuth, "mail-from": conf.FromMailFrom,
}

func (p *parser) from(m *conf.Match) {
	kind, ok := fromKinds[p.Tok.Text]
	if p.Tok.Kind != lex.Word || !ok {
		p.badKind("from", "local, any, socket, src, rdns, auth or mail-from", "src", "mail-from")
		return
	}
	m.FromKind = kind
	p.Advance()
	switch kind {
	case conf.FromSrc:
		p.cond(m, &m.From, "from", false)
	case conf.FromRDNS:
		p.cond(m, &m.From, "from", true)
	case conf.FromAuth:
		p.Once(&m.Node, "auth", m.From.Pos)
		p.cond(m, &m.From, "from", true)
	case conf.FromMailFrom:
		p.Once(&m.Node, "mail-from", m.From.Pos)
		p.cond(m, &m.From, "from", false)
	case conf.FromLocal, conf.FromAny, conf.FromSocket:
	}
}

// forKinds maps the words after for; it is never written.
var forKinds = map[string]conf.ForKind{
	"local": conf.ForLocal, "any": conf.ForAny, "domain": conf.ForDomain, "rcpt-to": conf.ForRcptTo,
}

func (p *parser) forDest(m *conf.Match) {
	kind, ok := forKinds[p.Tok.Text]
	if p.Tok.Kind != lex.Word || !ok {
		p.badKind("for", "local, any, domain or rcpt-to", "domain", "rcpt-to")
		return
	}
	m.ForKind = kind
	p.Advance()
	switch kind {
	case conf.ForRcptTo:
		p.Once(&m.Node, "rcpt-to", m.For.Pos)
		p.cond(m, &m.For, "for", false)
	case conf.ForDomain:
		p.cond(m, &m.For, "for", false)
	case conf.ForLocal, conf.ForAny:
	}
}

// badKind fails after from or for. A value there misses the word that says what
// it is.
func (p *parser) badKind(word, kinds, usual, address string) {
	if strings.Contains(p.Tok.Text, "@") {
		usual = address
	}
	if p.IsRef() {
		p.Fail(p.Tok.Pos, "write "+word+" "+usual+" before it if that is what it is",
			"expected %s after %s, got %s", kinds, strconv.Quote(word), p.Describe(p.Tok))
		return
	}
	p.Unexpected(kinds)
}
