package syntax

import (
	"fmt"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// Table reads TABLE NAME type:config or TABLE NAME { … }.
func (p *Reader) Table(n conf.Node) *conf.Node {
	t := &conf.Table{Node: n, Backend: "static"}
	t.Name = p.Name(&t.Node, "the name of a table")
	if p.Bad {
		return nil
	}
	p.Cfg.Tables = append(p.Cfg.Tables, t)
	if p.IsPunct("{") {
		p.Entries(t)
		return &t.Node
	}
	pos := p.Tok.Pos
	config := p.Str("type:path or {")
	if p.Bad {
		t.Bad = true
		return &t.Node
	}
	Mark(&t.Node, "config", pos)
	if strings.HasPrefix(config, "/") {
		t.Backend, t.Config = "file", config
		return &t.Node
	}
	backend, path, colon := strings.Cut(config, ":")
	t.Backend, t.Config = backend, path
	if backend == "static" {
		t.Backend = "file"
	}
	switch {
	case !colon && p.More():
		p.Fail(p.Tok.Pos, "type and path are one word, as in file:/path",
			"expected the end of the statement, got %s", p.Describe(p.Tok))
	case colon && !strings.HasPrefix(path, "/"):
		p.Fail(pos, "", "invalid backend parameter for table %s: %q is not an absolute path", t.Name, path)
	}
	return &t.Node
}

// Entries reads { a, b } or { k = v, k => v } into t.
func (p *Reader) Entries(t *conf.Table) {
	p.WantPunct("{")
	p.Newlines()
	for first := true; !p.Bad && (first || !p.IsPunct("}")); first = false {
		e := conf.Entry{Pos: p.Tok.Pos}
		e.Key = p.Text("a value of the table")
		if p.Bad {
			return
		}
		mapped := p.IsPunct("=") || p.Tok.Kind == lex.Arrow
		switch {
		case first && mapped:
			t.Kind = conf.Map
		case !first && mapped != (t.Kind == conf.Map):
			p.Fail(e.Pos, "", "a table is either a list of values or a mapping of key = value, not both")
			return
		}
		if mapped {
			p.Advance()
			e.Value = p.Text("the value of the key")
		} else if strings.HasSuffix(e.Key, ":") {
			p.Diags.Warnf(e.Pos, "%q is a value that ends in a colon: a mapping is written key = value", e.Key)
		}
		t.Entries = append(t.Entries, e)
		p.Comma()
	}
	p.WantPunct("}")
}

// Comma reads what separates two elements inside braces: at most one comma, and
// line ends. After a comma something must follow.
func (p *Reader) Comma() {
	p.Newlines()
	if p.SkipPunct(",") {
		p.Newlines()
		if p.IsPunct("}") {
			p.Unexpected("a value after the comma")
		}
	}
}

// Ref reads T: a string, a list or map in braces, or the name of a table in
// angle brackets. word is the option of n that it belongs to.
func (p *Reader) Ref(n *conf.Node, word string) conf.TableRef {
	Mark(n, conf.TablePart(word), p.Tok.Pos)
	switch {
	case p.Bad:
		return ""
	case p.SkipPunct("<"):
		name := p.Plain("the name of a table")
		p.WantPunct(">")
		return conf.TableRef(name)
	case p.IsPunct("{"):
		t := p.Inline()
		p.Entries(t)
		return conf.TableRef(t.Name)
	}
	pos := p.Tok.Pos
	s := p.Text("a value, { values } or <table>")
	if p.Bad {
		return ""
	}
	t := p.Inline()
	t.Entries = []conf.Entry{{Pos: pos, Key: s}}
	return conf.TableRef(t.Name)
}

// IsRef tells whether T is at hand.
func (p *Reader) IsRef() bool {
	return !p.Bad && (p.IsString() || p.IsPunct("<") || p.IsPunct("{"))
}

// Inline makes a table without a name of its own. conf.NameInline numbers them
// again at the end.
func (p *Reader) Inline() *conf.Table {
	t := &conf.Table{Node: conf.Node{Pos: p.Tok.Pos}, Inline: true, Backend: "static",
		Name: fmt.Sprintf("<table:%d>", len(p.Cfg.Tables))}
	p.Cfg.Tables = append(p.Cfg.Tables, t)
	return t
}
