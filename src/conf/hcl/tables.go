package hcl

import (
	"fmt"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"opensmtpd/src/conf"
)

// operand is what stands for T or for a truth value.
type operand struct {
	ref     string // of table.NAME
	entries []conf.Entry
	kind    conf.Kind
	isBool  bool
	truth   bool
	single  bool // a string, not a list
}

// operand reads T, and true and false.
func (p *parser) operand(x hclsyntax.Expression) (o operand, ok bool) {
	switch e := bare(x).(type) {
	case *hclsyntax.TupleConsExpr:
		return p.list(e)
	case *hclsyntax.ObjectConsExpr:
		return p.mapping(e)
	}
	v, ok := p.eval(x)
	if !ok {
		return o, false
	}
	const want = "a string, a list, a mapping or table.NAME"
	at := p.pos(x.Range())
	if r, isRef := p.asRef(v); isRef && r.kind == "table" {
		o.ref = r.name
		return o, true
	}
	switch t := v.Type(); {
	case v.IsNull():
		p.wrong(x.Range(), want, v)
		return o, false
	case t == cty.Bool:
		o.isBool, o.truth = true, v.True()
		return o, true
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		for it := v.ElementIterator(); it.Next(); {
			_, el := it.Element()
			s, ok := p.asText(x.Range(), el, "a list of strings")
			if !ok {
				return o, false
			}
			o.entries = append(o.entries, conf.Entry{Pos: at, Key: s})
		}
	case t.IsObjectType() || t.IsMapType():
		o.kind = conf.Map
		for it := v.ElementIterator(); it.Next(); {
			key, el := it.Element()
			s, ok := p.asText(x.Range(), el, "a mapping to strings")
			if !ok {
				return o, false
			}
			if _, ok = p.asText(x.Range(), key, "a key"); !ok {
				return o, false
			}
			o.entries = append(o.entries, conf.Entry{Pos: at, Key: key.AsString(), Value: s})
		}
	default:
		s, ok := p.asText(x.Range(), v, want)
		if !ok {
			return o, false
		}
		o.single = true
		o.entries = []conf.Entry{{Pos: at, Key: s}}
	}
	return o, p.notEmpty(x.Range(), o)
}

func (p *parser) notEmpty(r hcl2.Range, o operand) bool {
	if len(o.entries) > 0 {
		return true
	}
	p.fail(r, "", "a table has at least one value")
	return false
}

// list reads […], each element with its place.
func (p *parser) list(e *hclsyntax.TupleConsExpr) (o operand, ok bool) {
	ok = true
	for _, el := range e.Exprs {
		s, good := p.str(el, "a string in the list")
		ok = ok && good
		o.entries = append(o.entries, conf.Entry{Pos: p.pos(el.Range()), Key: s})
	}
	return o, ok && p.notEmpty(e.Range(), o)
}

// mapping reads {…}, each pair with its place, in the order that is written.
func (p *parser) mapping(e *hclsyntax.ObjectConsExpr) (o operand, ok bool) {
	o.kind, ok = conf.Map, true
	for _, it := range e.Items {
		key, goodKey := p.str(it.KeyExpr, "a string as the key")
		value, goodValue := p.str(it.ValueExpr, "a string as the value of the key")
		ok = ok && goodKey && goodValue
		o.entries = append(o.entries, conf.Entry{Pos: p.pos(it.KeyExpr.Range()), Key: key, Value: value})
	}
	return o, ok && p.notEmpty(e.Range(), o)
}

// tableOf returns the table for an operand, which becomes an inline one when it
// is not a reference.
func (p *parser) tableOf(r hcl2.Range, o operand) conf.TableRef {
	if o.ref != "" {
		return conf.TableRef(o.ref)
	}
	t := &conf.Table{Node: p.node(r), Inline: true, Backend: "static", Kind: o.kind, Entries: o.entries,
		Name: fmt.Sprintf("<table:%d>", len(p.cfg.Tables))}
	p.cfg.Tables = append(p.cfg.Tables, t)
	return conf.TableRef(t.Name)
}

// ref reads T of the option word of n.
func (p *parser) ref(n *conf.Node, word string, x hclsyntax.Expression) conf.TableRef {
	p.mark(n, conf.TablePart(word), x.Range())
	o, ok := p.operand(x)
	switch {
	case !ok:
		return ""
	case o.isBool:
		p.fail(x.Range(), "", "expected a string, a list, a mapping or table.NAME, got %v", o.truth)
		return ""
	}
	return p.tableOf(x.Range(), o)
}

// call returns the call of that function, or nil.
func call(x hclsyntax.Expression, name string) *hclsyntax.FunctionCallExpr {
	c, ok := bare(x).(*hclsyntax.FunctionCallExpr)
	if !ok || c.Name != name {
		return nil
	}
	return c
}

// argument returns the only argument of a call.
func (p *parser) argument(c *hclsyntax.FunctionCallExpr) (hclsyntax.Expression, bool) {
	if len(c.Args) != 1 || c.ExpandFinal {
		p.fail(c.NameRange, "", "%s() takes one argument", c.Name)
		return nil, false
	}
	return c.Args[0], true
}

// not reads over not(…) and tells whether it was there.
func (p *parser) not(x hclsyntax.Expression) (hclsyntax.Expression, bool, bool) {
	c := call(x, "not")
	if c == nil {
		return x, false, true
	}
	in, ok := p.argument(c)
	if ok && call(in, "not") != nil {
		p.fail(in.Range(), "", "not() stands once")
		ok = false
	}
	return in, true, ok
}

// cond reads the condition word of n. alone tells that true and false are
// possible, which do without a table.
func (p *parser) cond(n *conf.Node, word string, a *hclsyntax.Attribute, alone bool) conf.Cond {
	c := conf.Cond{Pos: p.pos(a.NameRange)}
	x, not, ok := p.not(a.Expr)
	if !ok {
		return c
	}
	c.Not = not
	p.pattern(n, word, x, &c, alone)
	return c
}

// pattern reads T, regex(T), true or false.
func (p *parser) pattern(n *conf.Node, word string, x hclsyntax.Expression, c *conf.Cond, alone bool) {
	if call(x, "not") != nil {
		p.fail(x.Range(), "", "not() stands outermost")
		return
	}
	if re := call(x, "regex"); re != nil {
		in, ok := p.argument(re)
		if !ok {
			return
		}
		if call(in, "not") != nil {
			p.fail(in.Range(), "write not(regex(…))", "not() stands outermost")
			return
		}
		c.Regex = true
		x = in
	}
	p.mark(n, conf.TablePart(word), x.Range())
	o, ok := p.operand(x)
	switch {
	case !ok:
	case o.isBool && (!alone || c.Regex):
		p.fail(x.Range(), "", "expected a string, a list, a mapping or table.NAME, got %v", o.truth)
	case o.isBool && c.Not:
		p.fail(x.Range(), fmt.Sprintf("write %v", !o.truth), "not(%v) is %v", o.truth, !o.truth)
	case o.isBool:
		c.Not = !o.truth
	default:
		c.Table = p.tableOf(x.Range(), o)
	}
}

// table reads table "NAME" { … }.
func (p *parser) table(b *hclsyntax.Block) {
	t := &conf.Table{Node: p.declaration(b), Backend: "static"}
	t.Name = p.label(b, &t.Node)
	p.cfg.Tables = append(p.cfg.Tables, t)
	p.keep(&t.Node, b.Range())
	forms := 0
	form := func(read func(*parser, *conf.Table, hclsyntax.Expression)) func(*parser, *conf.Table, *hclsyntax.Attribute) {
		return func(p *parser, t *conf.Table, a *hclsyntax.Attribute) {
			if forms++; forms > 1 {
				p.fail(a.NameRange, "", "a table has one of list, map and source")
				return
			}
			p.mark(&t.Node, "config", a.Expr.Range())
			read(p, t, a.Expr)
		}
	}
	fields(p, "table", b.Body, t, []field[*conf.Table]{
		{"source", form((*parser).tableSource)},
		{"list", form(func(p *parser, t *conf.Table, x hclsyntax.Expression) { p.tableValues(t, x, conf.List) })},
		{"map", form(func(p *parser, t *conf.Table, x hclsyntax.Expression) { p.tableValues(t, x, conf.Map) })},
	})
	if forms == 0 && !p.bad {
		p.fail(b.DefRange(), `table "NAME" { source = "file:/path" }, or list = […], or map = {…}`,
			"table %s has neither list, map nor source", t.Name)
	}
	t.Bad = p.bad
}

// tableSource reads "TYPE:PATH", or "TYPE" for a type that needs no path.
func (p *parser) tableSource(t *conf.Table, x hclsyntax.Expression) {
	s := p.word(x, "type:path")
	if p.bad {
		return
	}
	backend, path, colon := strings.Cut(s, ":")
	t.Backend, t.Config = backend, path
	switch {
	case strings.HasPrefix(s, "/"):
		p.fail(x.Range(), fmt.Sprintf("write %q", "file:"+s), "the type of the table is missing")
	case backend == "static":
		p.fail(x.Range(), fmt.Sprintf("write %q", "file:"+path), `a table of type static is a list or a map, a file is of type "file"`)
	case colon && !strings.HasPrefix(path, "/"):
		p.fail(x.Range(), "", "invalid backend parameter for table %s: %q is not an absolute path", t.Name, path)
	}
}

// tableValues reads the values of a static table.
func (p *parser) tableValues(t *conf.Table, x hclsyntax.Expression, kind conf.Kind) {
	o, ok := p.operand(x)
	switch {
	case !ok:
	case o.ref != "" || o.isBool || o.single || o.kind != kind:
		p.fail(x.Range(), "", "expected %s", [...]string{`a list: ["a", "b"]`, `a mapping: { "key" = "value" }`}[kind])
	default:
		t.Kind, t.Entries = kind, o.entries
	}
}
