package legacy

import (
	"fmt"
	"slices"
	"strings"

	"opensmtpd/src/conf"
)

// rule is one accept or reject as it was written.
type rule struct {
	conf.Node
	reject bool
	from   conf.FromKind
	cond   conf.Cond // of from
	dests  []dest
	match  conf.Match   // the conditions beside from and for
	action *conf.Action // nil with reject
}

// dest is one destination of a rule.
type dest struct {
	pos     conf.Pos
	kind    conf.ForKind
	cond    conf.Cond
	alias   conf.TableRef // for … alias
	virtual conf.TableRef // for virtual, and the virtual users of a rule
	never   bool          // network: no mail ever matched it
}

// finish makes matches and actions of the rules.
func (p *parser) finish() {
	p.tagInterfaces()
	p.hostNames()
	p.checkSecrets()
	p.listenPKIs()
	auth := slices.ContainsFunc(p.Cfg.Listens, func(l *conf.Listen) bool { return l.Auth != conf.NoAuth })
	byName := p.byName()
	seen := make(map[string]bool)
	for _, r := range p.rules {
		first := len(p.Cfg.Matches)
		for i := range r.dests {
			if r.Bad {
				break // which was said
			}
			if d := &r.dests[i]; !d.never {
				p.dest(r, d, byName, auth, seen)
			}
		}
		p.giveComments(r, first)
	}
	if p.dialect == Maps {
		p.forwarded()
	}
	p.ownTables()
}

// ownTables gives each mention of an inline table one of its own: a rule that
// became two mentions the same one twice.
func (p *parser) ownTables() {
	seen := make(map[conf.TableRef]bool)
	for _, u := range conf.Uses(p.Cfg) {
		t := p.Cfg.Table(*u.Ref)
		if t == nil || !t.Inline {
			continue
		}
		if seen[*u.Ref] {
			own := p.Inline()
			own.Node, own.Kind, own.Entries = t.Node, t.Kind, slices.Clone(t.Entries)
			*u.Ref = conf.TableRef(own.Name)
		}
		seen[*u.Ref] = true
	}
}

// giveComments puts the comments of a rule on the first match that it became, or
// keeps them for the end when it became none.
func (p *parser) giveComments(r *rule, first int) {
	if first < len(p.Cfg.Matches) {
		m := p.Cfg.Matches[first]
		m.Doc, m.Comment = slices.Concat(m.Doc, r.Doc), r.Comment
		return
	}
	p.Cfg.Trailer = append(p.Cfg.Trailer, r.Doc...)
	if r.Comment != "" {
		p.Cfg.Trailer = append(p.Cfg.Trailer, r.Comment)
	}
}

// table finds a map by its name.
func (p *parser) table(name string) *conf.Table {
	i := slices.IndexFunc(p.Cfg.Tables, func(t *conf.Table) bool { return !t.Inline && t.Name == name })
	if i < 0 {
		return nil
	}
	return p.Cfg.Tables[i]
}

// found are the maps that rules of 4.6 use without a word.
type found struct{ aliases, virtual *conf.Table }

// byName returns them, unless the file says itself where maps are used: then it
// is of 4.7 or later, where nothing is found by its name.
func (p *parser) byName() found {
	if p.dialect != Maps {
		return found{}
	}
	for _, r := range p.rules {
		if slices.ContainsFunc(r.dests, func(d dest) bool { return d.alias != "" || d.virtual != "" }) {
			return found{}
		}
	}
	f := found{p.table("aliases"), p.table("virtual")}
	if f.aliases == nil {
		f.aliases = p.table("alias") // the manual of 4.6 had it so
	}
	return f
}

// dest makes the matches of one destination of a rule.
func (p *parser) dest(r *rule, d *dest, by found, auth bool, seen map[string]bool) {
	m := r.match
	m.Node = conf.Node{Pos: r.Pos, At: r.At, Bad: r.Bad}
	m.FromKind, m.From, m.ForKind, m.For = r.from, r.cond, d.kind, d.cond
	if r.reject {
		m.Reject = true
		p.add(m, auth, seen)
		return
	}
	a := *r.action
	a.Node = conf.Node{Pos: r.Pos, At: r.action.At, Bad: r.Bad || r.action.Bad}
	if d.alias != "" {
		a.Alias = d.alias
	}
	a.Virtual = d.virtual
	for _, word := range []string{"alias", "virtual"} {
		if pos, ok := r.At[conf.TablePart(word)]; ok {
			a.At = cloneAt(a.At)
			a.At[conf.TablePart(word)] = pos
		}
	}
	local := a.Method.Local() && a.Method != conf.ForwardOnly
	if local && by.virtual != nil {
		v := a
		v.Virtual = p.mention(&v.Node, "virtual", by.virtual)
		mv := m
		mv.At = cloneAt(m.At)
		mv.RcptTo = conf.Cond{Pos: r.Pos, Table: p.mention(&mv.Node, "rcpt-to", by.virtual)}
		mv.Action = p.name(v)
		p.add(mv, auth, seen)
	}
	if local && by.aliases != nil && a.Virtual == "" {
		a.Alias = p.mention(&a.Node, "alias", by.aliases)
	}
	if !a.Method.Local() && a.Virtual != "" {
		p.backup(m, a, auth, seen)
		return
	}
	m.Action = p.name(a)
	p.add(m, auth, seen)
}

// backup makes the matches of `virtual <T> relay`: the table lists who may be
// relayed to, and nobody else is looked for further down.
func (p *parser) backup(m conf.Match, a conf.Action, auth bool, seen map[string]bool) {
	list := a.Virtual
	a.Virtual = ""
	m.Action = p.name(a)
	only := m
	only.RcptTo = conf.Cond{Pos: m.Pos, Table: list}
	p.add(only, auth, seen)
	m.Reject, m.Action = true, ""
	p.add(m, auth, seen)
}

// mention refers to a map that was found by its name, which may stand below.
func (p *parser) mention(n *conf.Node, word string, t *conf.Table) conf.TableRef {
	n.At = cloneAt(n.At)
	n.At[conf.TablePart(word)] = t.Pos
	return conf.TableRef(t.Name)
}

func cloneAt(at map[string]conf.Pos) map[string]conf.Pos {
	out := make(map[string]conf.Pos, len(at)+1)
	for k, v := range at {
		out[k] = v
	}
	return out
}

// add appends a match, and its twin for users who authenticated: such a user is
// local to the rules of the table grammar, and passes any source in the map
// grammar.
func (p *parser) add(m conf.Match, auth bool, seen map[string]bool) {
	twin := m
	twin.FromKind, twin.From = conf.FromAuth, conf.Cond{Pos: m.From.Pos}
	wants := m.Auth.Set() && !m.Auth.Not
	want := auth && !m.Auth.Set()
	if p.dialect == Tables && want {
		want = p.authLocal(&m)
	}
	if p.dialect == Tables && wants && m.FromKind == conf.FromLocal && !m.From.Not {
		// local or authenticated, and authenticated
		m.FromKind, m.From, m.Auth = conf.FromAuth, conf.Cond{Pos: m.From.Pos}, conf.Cond{}
	}
	if p.dialect == Tables && wants && m.FromKind == conf.FromSrc && !m.From.Not {
		p.warn(m.Pos, "", "who is authenticated was local, and so this rule matched nobody: here it matches authenticated users from there")
	}
	p.Cfg.Matches = append(p.Cfg.Matches, &m)
	if !want {
		return
	}
	// The first twin for a destination takes all that later ones could.
	key := p.destKey(&twin)
	if seen[key] || seen["any"] {
		return
	}
	seen[key] = true
	if everyDest(&twin) {
		seen["any"] = true
	}
	if m.FromKind == conf.FromAny && !m.From.Not {
		return // is its own twin
	}
	twin.At = cloneAt(m.At)
	p.Cfg.Matches = append(p.Cfg.Matches, &twin)
}

// authLocal tells whether a rule of the table grammar takes users who
// authenticated, whose source is "local". One that goes by address does not; one
// that goes by the lack of it does.
func (p *parser) authLocal(m *conf.Match) bool {
	switch {
	case m.FromKind == conf.FromAny:
		return !m.From.Not
	case m.FromKind == conf.FromLocal && !m.From.Not, m.FromKind == conf.FromSrc && m.From.Not:
		return true
	}
	m.Auth = conf.Cond{Pos: m.Pos, Not: true}
	return false
}

// everyDest tells whether a twin takes all authenticated mail.
func everyDest(m *conf.Match) bool {
	return m.ForKind == conf.ForAny && !m.For.Not && !m.Tag.Set() && !m.Helo.Set() && !m.TLS.Set() && !m.MailFrom.Set() && !m.RcptTo.Set()
}

// destKey is the same for matches that differ in their source alone.
func (p *parser) destKey(m *conf.Match) string {
	var b strings.Builder
	fmt.Fprint(&b, m.ForKind)
	for _, c := range []conf.Cond{m.For, m.Tag, m.Helo, m.TLS, m.MailFrom, m.RcptTo} {
		set := c.Set() && c.Table == ""
		fmt.Fprintf(&b, " %v %v %v %s", set, c.Not, c.Regex, p.tableKey(c.Table))
	}
	return b.String()
}

// tableKey is the name of a table, or what is in an inline one.
func (p *parser) tableKey(ref conf.TableRef) string {
	t := p.Cfg.Table(ref)
	if t == nil || !t.Inline {
		return string(ref)
	}
	var b strings.Builder
	for _, e := range t.Entries {
		fmt.Fprintf(&b, "%q=%q,", strings.ToLower(e.Key), e.Value)
	}
	return b.String()
}

// forwarded tells about mail that aliases and .forward files send on: it passed
// any source, and is local here.
func (p *parser) forwarded() {
	var src *rule
	for _, r := range p.rules {
		for _, d := range r.dests {
			all := d.kind == conf.ForAny && !r.reject && r.action != nil && !r.action.Method.Local()
			switch {
			case !all:
			case r.from == conf.FromSrc:
				if src == nil {
					src = r
				}
			default:
				return
			}
		}
	}
	if src != nil {
		p.warn(src.Place("from"), "add accept for all relay … for them, but mind that programs of this machine may use it too",
			"what aliases and .forward files of users send on to elsewhere passed this rule, whatever its source says: here it counts as local, and no rule for it is left")
	}
}

// tagInterfaces gives listeners the tag that they had without a word, their
// interface, when a rule asks for it.
func (p *parser) tagInterfaces() {
	if p.dialect != Maps {
		return
	}
	asked := make(map[string]bool)
	for _, r := range p.rules {
		if t := p.Cfg.Table(r.match.Tag.Table); t != nil {
			for _, e := range t.Entries {
				asked[e.Key] = true
			}
		}
	}
	for _, l := range p.Cfg.Listens {
		if l.Tag == "" && asked[l.On] {
			l.Tag = l.On
		}
	}
}

// hostNames says the map grammar's hostname wherever it was said.
func (p *parser) hostNames() {
	if p.hostname.Value == "" {
		return
	}
	for _, l := range p.Cfg.Listens {
		if l.Hostname == "" && !l.Socket {
			l.Hostname = p.hostname.Value
		}
	}
	for _, r := range p.rules {
		if r.action != nil && r.action.Method == conf.Relay && r.action.Helo == "" {
			r.action.Helo = p.hostname.Value
		}
	}
}
