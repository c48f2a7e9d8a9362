package native

import (
	"fmt"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// table reads TABLE NAME type:config or TABLE NAME { … }.
func (p *parser) table(n conf.Node) *conf.Node {
	t := &conf.Table{Node: n, Backend: "static"}
	t.Name = p.name(&t.Node, "the name of a table")
	if p.bad {
		return nil
	}
	p.cfg.Tables = append(p.cfg.Tables, t)
	if p.isPunct("{") {
		p.entries(t)
		return &t.Node
	}
	pos := p.tok.Pos
	config := p.str("type:path or {")
	if p.bad {
		t.Bad = true
		return &t.Node
	}
	mark(&t.Node, "config", pos)
	if strings.HasPrefix(config, "/") {
		t.Backend, t.Config = "file", config
		return &t.Node
	}
	backend, path, colon := strings.Cut(config, ":")
	t.Backend, t.Config = backend, path
	if backend == "static" {
		t.Backend = "file"
	}
	if colon && !strings.HasPrefix(path, "/") {
		p.fail(pos, "", "invalid backend parameter for table %s: %q is not an absolute path", t.Name, path)
	}
	return &t.Node
}

// entries reads { a, b } or { k = v, k => v } into t.
func (p *parser) entries(t *conf.Table) {
	p.wantPunct("{")
	p.newlines()
	for first := true; !p.bad && (first || !p.isPunct("}")); first = false {
		e := conf.Entry{Pos: p.tok.Pos}
		e.Key = p.text("a value of the table")
		if p.bad {
			return
		}
		mapped := p.isPunct("=") || p.tok.Kind == lex.Arrow
		switch {
		case first && mapped:
			t.Kind = conf.Map
		case !first && mapped != (t.Kind == conf.Map):
			p.fail(e.Pos, "", "a table is either a list of values or a mapping of key = value, not both")
			return
		}
		if mapped {
			p.advance()
			e.Value = p.text("the value of the key")
		}
		t.Entries = append(t.Entries, e)
		p.comma()
	}
	p.wantPunct("}")
}

// comma reads what separates two elements inside braces: at most one comma, and
// line ends. After a comma something must follow.
func (p *parser) comma() {
	p.newlines()
	if p.skipPunct(",") {
		p.newlines()
		if p.isPunct("}") {
			p.unexpected("a value after the comma")
		}
	}
}

// ref reads T: a string, a list or map in braces, or the name of a table in
// angle brackets. word is the option of n that it belongs to.
func (p *parser) ref(n *conf.Node, word string) conf.TableRef {
	mark(n, conf.TablePart(word), p.tok.Pos)
	switch {
	case p.bad:
		return ""
	case p.skipPunct("<"):
		name := p.plain("the name of a table")
		p.wantPunct(">")
		return conf.TableRef(name)
	case p.isPunct("{"):
		t := p.inline()
		p.entries(t)
		return conf.TableRef(t.Name)
	}
	pos := p.tok.Pos
	s := p.text("a value, { values } or <table>")
	if p.bad {
		return ""
	}
	t := p.inline()
	t.Entries = []conf.Entry{{Pos: pos, Key: s}}
	return conf.TableRef(t.Name)
}

// isRef tells whether T is at hand.
func (p *parser) isRef() bool {
	return !p.bad && (p.isString() || p.isPunct("<") || p.isPunct("{"))
}

// inline makes a table without a name of its own. conf.NameInline numbers them
// again at the end.
func (p *parser) inline() *conf.Table {
	t := &conf.Table{Node: conf.Node{Pos: p.tok.Pos}, Inline: true, Backend: "static",
		Name: fmt.Sprintf("<table:%d>", len(p.cfg.Tables))}
	p.cfg.Tables = append(p.cfg.Tables, t)
	return t
}
