package syntax

import (
	"slices"
	"strconv"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// Replace gives a setting the node of its newest statement. When it was set
// before that is said, and the older comments stay.
func (p *Reader) Replace(old *conf.Node, n conf.Node, what string) {
	if !old.Pos.IsZero() {
		p.Diags.Warnf(n.Pos, "%s was set before, in line %d: this one holds", what, old.Pos.Line)
		if old.Comment != "" {
			old.Doc = append(old.Doc, old.Comment)
		}
		n.Doc = slices.Concat(old.Doc, n.Doc)
	}
	*old = n
}

// Join adds another statement about the same thing to old.
func Join(old *conf.Node, n conf.Node) {
	if old.Comment != "" {
		old.Doc = append(old.Doc, old.Comment)
		old.Comment = ""
	}
	old.Doc = append(old.Doc, n.Doc...)
}

// Limits reads KEY NUMBER pairs; the comments stay with the first.
func (p *Reader) Limits(n conf.Node, what string, list *[]*conf.Limit, keys []string) *conf.Node {
	var first *conf.Node
	for p.More() {
		pos, key := p.Tok.Pos, p.Tok.Text
		if !p.limitKey(what, keys) {
			break
		}
		v := p.Number(what)
		if p.Bad {
			break
		}
		node := conf.Node{Pos: pos}
		if first == nil {
			node = n
		}
		i := slices.IndexFunc(*list, func(l *conf.Limit) bool { return l.Key == key })
		if i < 0 {
			i = len(*list)
			*list = append(*list, &conf.Limit{Key: key})
		}
		l := (*list)[i]
		p.Replace(&l.Node, node, what+" "+key)
		l.Value = v
		if first == nil {
			first = &l.Node
		}
	}
	if first == nil && !p.Bad {
		p.Diags.Warnf(n.Pos, "%s sets nothing", what)
	}
	return first
}

// limitKey reads the name of a limit.
func (p *Reader) limitKey(what string, keys []string) bool {
	pos, key := p.Tok.Pos, p.Tok.Text
	if !p.IsString() {
		p.Unexpected("the name of a limit")
		return false
	}
	if !slices.Contains(keys, key) {
		hint := "limits: " + strings.Join(keys, ", ")
		if near := diag.Near(key, keys); near != "" {
			hint = "did you mean " + strconv.Quote(near) + "?"
		}
		p.Fail(pos, hint, "invalid %s keyword: %s", what, key)
		return false
	}
	p.Advance()
	return true
}

// MTALimits reads KEY NUMBER pairs and families for a domain, "" for all.
func (p *Reader) MTALimits(n conf.Node, domain string) *conf.Node {
	list := &p.Cfg.Server.MTALimits
	var first *conf.Node
	for p.More() {
		node := conf.Node{Pos: p.Tok.Pos}
		if first == nil {
			node = n
		}
		key, value := p.Tok.Text, int64(0)
		family := p.Tok.Kind == lex.Word && (key == "inet4" || key == "inet6")
		if family {
			p.Advance()
		} else if p.limitKey("mta limit", conf.Keys(conf.MTALimits())) {
			value = p.Number("mta limit")
		}
		if p.Bad {
			break
		}
		i := slices.IndexFunc(*list, func(l *conf.MTALimit) bool {
			return l.Domain == domain && (l.Key == key || family && (l.Key == "inet4" || l.Key == "inet6"))
		})
		if i < 0 {
			i = len(*list)
			*list = append(*list, &conf.MTALimit{Domain: domain})
		}
		l := (*list)[i]
		p.Replace(&l.Node, node, "mta limit "+key)
		l.Key, l.Value = key, value
		if first == nil {
			first = &l.Node
		}
	}
	if first == nil && !p.Bad {
		p.Diags.Warnf(n.Pos, "mta limit sets nothing")
	}
	return first
}

// Setting reads the STRING of a setting.
func (p *Reader) Setting(n conf.Node, s *conf.Text, what, want string) *conf.Node {
	v := p.Str(want)
	if p.Bad {
		return nil
	}
	p.Replace(&s.Node, n, what)
	s.Value = v
	return &s.Node
}

// Port reads a number or the name of a service, two of which are reserved words.
func (p *Reader) Port() string {
	if !p.Bad && p.Tok.Kind == lex.Number {
		s := p.Tok.Text
		p.Advance()
		return s
	}
	for _, word := range [...]string{"smtp", "smtps"} {
		if p.Skip(word) {
			return word
		}
	}
	return p.Str("a port")
}

// UnknownOption fails at the token at hand, which should be an option of what.
func (p *Reader) UnknownOption(what string, words []string) {
	if p.Bad {
		return
	}
	if p.Tok.Kind != lex.Word {
		p.needsQuotes("an option of " + what)
		return
	}
	hint := ""
	if now, ok := p.Renamed[p.Tok.Text]; ok {
		hint = "since 6.4 it is written: " + now
	} else if near := diag.Near(p.Tok.Text, words); near != "" && near != p.Tok.Text {
		hint = "did you mean " + strconv.Quote(near) + "?"
	}
	p.Fail(p.Tok.Pos, hint, "%q is no option of %s", p.Tok.Text, what)
}
