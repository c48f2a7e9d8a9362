package legacy

import (
	"fmt"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// mapRule reads [on TAG] [from M] for dests action [tag T] [expire D].
func (p *parser) mapRule(n conf.Node, reject bool) *conf.Node {
	r := &rule{Node: n, reject: reject}
	p.rules = append(p.rules, r)
	for p.word("on") || p.word("from") {
		if pos := p.Tok.Pos; p.Skip("on") {
			p.Once(&r.Node, "tag", pos)
			p.ruleTag(r, pos)
		} else {
			p.mapFrom(r)
		}
	}
	pos := p.Tok.Pos
	p.Want("for")
	syntax.Mark(&r.Node, "for", pos)
	p.mapDests(r)
	if reject && !p.More() {
		return &r.Node
	}
	a := &conf.Action{Node: conf.Node{Pos: n.Pos}}
	p.mapAction(r, a)
	r.action = a
	for p.More() {
		pos := p.Tok.Pos
		switch {
		case p.Skip("tag"):
			if !syntax.Mark(&r.Node, "tag", pos) {
				p.warn(pos, "", "the rule has a tag already: this one holds")
			}
			p.ruleTag(r, pos)
		case p.Skip("expire"):
			p.Once(&a.Node, "ttl", pos)
			a.TTL = p.Delay("expire delay")
		default:
			p.UnknownOption("a rule", []string{"tag", "expire"})
		}
	}
	if reject && !p.Bad {
		r.action = nil
		p.warn(n.Pos, "", "OpenSMTPD 4.6 to 5.2 did not honour reject, and did what stands here: this rejects")
	}
	return &r.Node
}

// ruleTag makes a tag the condition of a rule.
func (p *parser) ruleTag(r *rule, pos conf.Pos) {
	at := p.Tok.Pos
	r.match.Tag = conf.Cond{Pos: pos, Table: p.single(p.tag(), at)}
	syntax.Mark(&r.Node, conf.TablePart("tag"), at)
}

// single makes a list of one.
func (p *parser) single(s string, pos conf.Pos) conf.TableRef {
	t := p.Inline()
	t.Entries = []conf.Entry{{Pos: pos, Key: s}}
	return conf.TableRef(t.Name)
}

func (p *parser) mapFrom(r *rule) {
	pos := p.Tok.Pos
	p.Want("from")
	p.Once(&r.Node, "from", pos)
	r.cond.Pos = pos
	switch {
	case p.Skip("all"), p.Skip("any"):
		r.from = conf.FromAny
	case p.Skip("local"):
		r.from = conf.FromLocal
	default:
		r.from = conf.FromSrc
		r.cond.Table = p.mapRef(&r.Node, "from", "an address, a network, ( … ), map NAME, local or all")
	}
}

// mapRef reads STRING | ( list ) | { k => v } | map NAME.
func (p *parser) mapRef(n *conf.Node, word, want string) conf.TableRef {
	pos := p.Tok.Pos
	syntax.Mark(n, conf.TablePart(word), pos)
	switch {
	case p.Skip("map"):
		n.At[conf.TablePart(word)] = p.Tok.Pos
		return conf.TableRef(p.mapName())
	case p.IsPunct("("):
		t := p.Inline()
		p.list(t, "(", ")")
		return conf.TableRef(t.Name)
	case p.IsPunct("{"):
		t := p.Inline()
		p.list(t, "{", "}")
		return conf.TableRef(t.Name)
	}
	return p.single(p.Str(want), pos)
}

// mapName reads the name of a map that must be declared.
func (p *parser) mapName() string { return p.Plain("the name of a map") }

// list reads values, commas and line ends between them optional. Of k => v the
// keys count.
func (p *parser) list(t *conf.Table, open, end string) {
	p.WantPunct(open)
	p.Newlines()
	for first := true; !p.Bad && (first || !p.IsPunct(end)); first = false {
		e := conf.Entry{Pos: p.Tok.Pos}
		e.Key = p.Text("a value")
		if p.Tok.Kind == lex.Arrow {
			p.Advance()
			p.Text("the value of the key")
			p.warn(e.Pos, "", fmt.Sprintf("only the keys count here, not what %q maps to", e.Key))
		}
		t.Entries = append(t.Entries, e)
		p.Newlines()
		p.SkipPunct(",")
		p.Newlines()
	}
	p.WantPunct(end)
}

// mapDests reads a destination, or several in braces.
func (p *parser) mapDests(r *rule) {
	if !p.IsPunct("{") {
		p.mapDest(r)
		return
	}
	p.WantPunct("{")
	p.Newlines()
	for first := true; !p.Bad && (first || !p.IsPunct("}")); first = false {
		p.mapDest(r)
		p.Newlines()
		p.SkipPunct(",")
		p.Newlines()
	}
	p.WantPunct("}")
}

func (p *parser) mapDest(r *rule) {
	pos := p.Tok.Pos
	d := dest{pos: pos, cond: conf.Cond{Pos: pos}}
	n := &r.Node
	switch {
	case p.Skip("all"), p.Skip("any"):
		d.kind = conf.ForAny
	case p.Skip("local"):
		d.kind = conf.ForLocal
	case p.Skip("virtual"):
		p.mapVirtual(n, &d)
		r.dests = append(r.dests, d)
		return
	case p.Skip("network"):
		p.mapRef(n, "for", "a network")
		p.warn(pos, "", "for network never matched any mail: it is left out")
		d.never = true
	case p.Skip("domain"):
		d.kind = conf.ForDomain
		d.cond.Table = p.mapRef(n, "for", "a domain, ( … ) or map NAME")
	case p.word("deliver"), p.word("relay"):
		p.Unexpected("a destination: local, all, or domain")
	default: // a domain without the word
		d.kind = conf.ForDomain
		d.cond.Table = p.mapRef(n, "for", "a destination: local, all, or domain")
	}
	if p.Skip("alias") {
		syntax.Mark(n, conf.TablePart("alias"), p.Tok.Pos)
		d.alias = conf.TableRef(p.mapName())
	}
	r.dests = append(r.dests, d)
}

// mapVirtual reads the map whose keys are domains and the users in them.
func (p *parser) mapVirtual(n *conf.Node, d *dest) {
	p.Skip("map")
	at := p.Tok.Pos
	if p.IsPunct("{") || p.IsPunct("(") {
		p.Fail(at, "", "virtual parameter MUST be a map")
		return
	}
	name := conf.TableRef(p.mapName())
	syntax.Mark(n, conf.TablePart("for"), at)
	syntax.Mark(n, conf.TablePart("virtual"), at)
	d.kind, d.virtual = conf.ForDomain, name
	d.cond.Table = name
	// Only the keys of a db are looked up without regard to what it holds.
	if t := p.table(string(name)); t != nil && t.Backend == "file" {
		d.kind = conf.ForRcptTo
		p.warn(at, "a list of the domains for `for domain`, and virtual with this file in the action, do what this did",
			"a text file cannot be both: users that it does not have go on to the next rules")
	}
}

func (p *parser) mapAction(r *rule, a *conf.Action) {
	syntax.Mark(&a.Node, "method", p.Tok.Pos)
	switch {
	case p.Skip("deliver"):
		p.Want("to")
		p.mapDeliver(a)
	case p.Skip("relay"):
		a.Method = conf.Relay
		p.mapRelay(r, a)
	default:
		p.Unexpected("deliver to, or relay")
	}
}

func (p *parser) mapDeliver(a *conf.Action) {
	pos := p.Tok.Pos
	switch {
	case p.Skip("maildir"):
		a.Method = conf.Maildir
		at := p.Tok.Pos
		if s, ok := p.optional("a path", "user", "as", "tag", "expire"); ok {
			syntax.Mark(&a.Node, "path", at)
			a.Path = p.format(s)
		}
	case p.Skip("mbox"):
		a.Method = conf.MBOX
		at := p.Tok.Pos
		if p.Tok.Kind == lex.Quoted { // 4.5 took a path
			p.Advance()
			p.warn(at, "deliver to mda writes elsewhere", "mbox is the box of the user in the mail spool, no other path")
		}
	case p.Skip("mda"):
		a.Method = conf.MDA
		syntax.Mark(&a.Node, "command", p.Tok.Pos)
		a.Command = p.format(p.Str("a command"))
	default:
		p.Fail(pos, "", "expected maildir, mbox or mda, got %s", p.Describe(p.Tok))
	}
	p.deliverAs(a)
}

// deliverAs reads as USER, user USER before 5.0.
func (p *parser) deliverAs(a *conf.Action) {
	pos := p.Tok.Pos
	if p.Skip("user") || p.Skip("as") {
		p.Once(&a.Node, "user", pos)
		a.User = p.Str("the name of a user")
	}
}
