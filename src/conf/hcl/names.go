package hcl

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// parser reads statements one after the other; all names are known before.
type parser struct {
	open    Opener
	diags   *diag.List
	cfg     *conf.Config
	sources map[string]*source
	items   []item
	src     *source  // of the statement at hand
	bad     bool     // the statement at hand has an error
	broken  bool     // it has one of the syntax, so parts of it may be missing
	pending []string // comments for the next statement

	names     map[string]map[string]bool // by kind: what is declared
	locals    map[string]*local
	functions map[string]function.Function
	refType   cty.Type // of *ref
	rawType   cty.Type // of *string: a string that is not UTF-8
}

// ref is the value of table.NAME and its like.
type ref struct{ kind, name string }

// local is one value of locals.
type local struct {
	attr  *hclsyntax.Attribute
	src   *source
	value cty.Value
	state uint8 // of evaluation
	fixed bool  // by -D
	used  bool
}

const (
	waiting = iota
	running
	done
	failed
)

// maxLocal bounds a value, so that locals made of locals cannot explode.
const maxLocal = 1 << 20

// kinds are what can be referred to, with how messages call it.
var kinds = map[string]string{
	"table": "table", "action": "action", "filter": "filter", "pki": "pki", "ca": "ca",
	"proc": "proc", "wrapper": "wrapper",
}

// declaredName returns the name that the label of a block declares: in composed
// form, as the library makes all strings.
func declaredName(kind, label string) string {
	if kind == "pki" || kind == "ca" {
		label = strings.ToLower(label) // as host names are
	}
	return cty.NormalizeString(label)
}

// declare notes all names, and evaluates the locals.
func (p *parser) declare(defines map[string]string) {
	for k := range kinds {
		p.names[k] = make(map[string]bool)
	}
	for k, v := range defines {
		p.locals[k] = &local{value: cty.StringVal(v), state: done, fixed: true}
	}
	var blocks []item
	for _, it := range p.items {
		b := it.block
		switch {
		case b == nil:
		case b.Type == "locals":
			blocks = append(blocks, it)
		case p.names[b.Type] != nil && len(b.Labels) == 1:
			p.names[b.Type][declaredName(b.Type, b.Labels[0])] = true
		}
	}
	for _, it := range blocks {
		for _, a := range attributes(it.block.Body) {
			p.local(it.src, a)
		}
		for _, b := range it.block.Body.Blocks {
			p.fail(b.TypeRange, "write it as "+b.Type+" = { … }", "locals holds no blocks")
		}
	}
	for _, it := range blocks {
		p.src = it.src
		for _, a := range attributes(it.block.Body) {
			p.macro(a, it.broken)
		}
	}
}

// local notes one value of locals.
func (p *parser) local(s *source, a *hclsyntax.Attribute) {
	if old := p.locals[a.Name]; old != nil {
		if old.attr != nil {
			p.fail(a.NameRange, fmt.Sprintf("the first is in line %d", p.pos(old.attr.NameRange).Line),
				"local %q is declared twice", a.Name)
			return
		}
		old.attr, old.src, old.used = a, s, true
		old.state = waiting // for the kind of value that the file has
		return
	}
	p.locals[a.Name] = &local{attr: a, src: s}
}

// macro evaluates a local; one that is a string is a macro of the model, for
// the printers.
func (p *parser) macro(a *hclsyntax.Attribute, broken bool) {
	l := p.locals[a.Name]
	if l == nil || l.attr != a {
		return
	}
	get := func() (cty.Value, bool) { return p.localValue(a.Name) }
	if l.fixed { // the printers show what the file says
		get = func() (cty.Value, bool) { return p.eval(a.Expr) }
	}
	value, ok := get()
	if !ok || value.IsNull() {
		return
	}
	s, isText := p.text(value)
	switch {
	case isText:
	case value.Type() == cty.Number:
		s = value.AsBigFloat().Text('f', -1)
	default:
		return
	}
	if strings.ContainsAny(s, "\n\x00") || strings.Contains(a.Name, "-") {
		return // no macro can be that
	}
	m := &conf.Macro{Node: p.node(a.NameRange), Name: macroName(a.Name), Value: s}
	m.Bad = broken
	p.cfg.Macros = append(p.cfg.Macros, m)
	p.keep(&m.Node, a.SrcRange)
}

// localValue returns the value of a local, which is evaluated when it is first
// asked for.
func (p *parser) localValue(name string) (cty.Value, bool) {
	l := p.locals[name]
	switch l.state {
	case done:
		return l.value, true
	case failed:
		return cty.NilVal, false
	case running:
		p.fail(l.attr.NameRange, "", "local %q is made of itself", name)
		return cty.NilVal, false
	}
	l.state = running
	v, ok := p.eval(l.attr.Expr)
	if ok && l.fixed {
		v, ok = p.defined(name, l, v)
	}
	if ok && size(v) > maxLocal {
		p.fail(l.attr.Expr.Range(), "", "the value is larger than %d bytes", maxLocal)
		ok = false
	}
	if !ok {
		l.state = failed
		return cty.NilVal, false
	}
	l.value, l.state = v, done
	return v, true
}

// defined returns what -D says for a local, as a value like that of the file.
func (p *parser) defined(name string, l *local, v cty.Value) (cty.Value, bool) {
	given := l.value.AsString()
	switch t := v.Type(); {
	case t == cty.String || v.IsNull():
		return l.value, true
	case t == cty.Number:
		if n, err := cty.ParseNumberVal(given); err == nil {
			return n, true
		}
	case t == cty.Bool && (given == "true" || given == "false"):
		return cty.BoolVal(given == "true"), true
	}
	p.fail(l.attr.Expr.Range(), "", "-D %s=%s is not like the value of the file, which is %s", name, given, p.describe(v))
	return cty.NilVal, false
}

// size returns about how many bytes a value takes.
func size(v cty.Value) int {
	n := 0
	_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		n += 8
		if v.IsKnown() && !v.IsNull() && v.Type() == cty.String {
			n += len(v.AsString())
		}
		return n <= maxLocal, nil
	})
	return n
}

// unused notes the locals that nothing uses.
func (p *parser) unused() {
	for name, l := range p.locals {
		if l.attr != nil && !l.used {
			p.diags.Add(diag.Diag{Severity: diag.Note, Pos: p.pos(l.attr.NameRange), Message: "local '" + name + "' not used"})
		}
	}
}

// eval returns the value of an expression. All its names are looked up first.
func (p *parser) eval(x hclsyntax.Expression) (cty.Value, bool) {
	ctx := &hcl2.EvalContext{Functions: p.functions}
	vars := make(map[string]map[string]cty.Value)
	good := true
	for _, t := range x.Variables() {
		root, name, ok := p.lookup(t)
		if !ok {
			good = false
			continue
		}
		if vars[root] == nil {
			vars[root] = make(map[string]cty.Value)
		}
		if root != "local" {
			vars[root][name] = cty.CapsuleVal(p.refType, &ref{root, declaredName(root, name)})
			continue
		}
		v, ok := p.localValue(name)
		vars[root][name] = v
		p.bad, good = p.bad || !ok, good && ok
	}
	if !good {
		return cty.NilVal, false
	}
	ctx.Variables = make(map[string]cty.Value, len(vars))
	for root, v := range vars {
		ctx.Variables[root] = cty.ObjectVal(v)
	}
	v, diags := x.Value(ctx)
	if diags.HasErrors() {
		p.syntax(diags)
		return cty.NilVal, false
	}
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		p.fail(x.Range(), "", "the value is not known")
		return cty.NilVal, false
	}
	return v, true
}

// lookup checks that the thing that t refers to is declared.
func (p *parser) lookup(t hcl2.Traversal) (root, name string, ok bool) {
	root = t.RootName()
	what, isKind := kinds[root]
	if !isKind && root != "local" {
		p.unknownRoot(t, root)
		return "", "", false
	}
	if len(t) < 2 {
		hint := "write " + root + `.NAME, or ` + root + `["NAME"]`
		if root == "local" {
			hint = `write local.NAME, or "local" where it is the word`
		}
		p.fail(t.SourceRange(), hint, "%s alone is no value", root)
		return "", "", false
	}
	switch step := t[1].(type) {
	case hcl2.TraverseAttr:
		name = step.Name
	case hcl2.TraverseIndex:
		if step.Key.Type() == cty.String {
			name = step.Key.AsString()
		} else if step.Key.Type() == cty.Number {
			name = step.Key.AsBigFloat().Text('f', -1)
		}
	}
	if root == "local" {
		if l := p.locals[name]; l != nil {
			l.used = true
			return root, name, true
		}
		hint := ""
		if near := diag.Near(name, slices.Collect(maps.Keys(p.locals))); near != "" {
			hint = "did you mean local." + near + "?"
		} else if len(p.locals) == 0 {
			hint = "add locals { " + name + " = … }"
		}
		p.fail(t[1].SourceRange(), hint, "no local with that name: %s", name)
		return "", "", false
	}
	if !p.names[root][declaredName(root, name)] {
		hint := ""
		if near := diag.Near(name, slices.Collect(maps.Keys(p.names[root]))); near != "" {
			hint = "did you mean " + reference(root, near) + "?"
		} else if len(t) > 2 {
			hint = "a name with dots is written in brackets, like " + reference(root, "mail.example.org")
		}
		p.fail(t.SourceRange(), hint, "no %s with that name: %s", what, name)
		return "", "", false
	}
	if len(t) > 2 {
		p.fail(t[2].SourceRange(), "", "a %s has no parts", what)
		return "", "", false
	}
	return root, name, true
}

// unknownRoot says what a bare word could be.
func (p *parser) unknownRoot(t hcl2.Traversal, root string) {
	hint := "strings stand in quotes: " + strconv.Quote(root)
	roots := append(slices.Collect(maps.Keys(kinds)), "local")
	if near := diag.Near(root, roots); near != "" && len(t) > 1 {
		hint = "did you mean " + near + "?"
	} else if l := p.locals[root]; l != nil {
		hint = "did you mean local." + root + "?"
	} else if len(t) == 1 {
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			if p.names[kind][root] {
				hint = "did you mean " + reference(kind, root) + "?"
			}
		}
	}
	p.fail(t.SourceRange(), hint, "%q refers to nothing", root)
}

// reference writes the reference to a thing.
func reference(kind, name string) string {
	if identifier(name) {
		return kind + "." + name
	}
	return kind + "[" + quote(name) + "]"
}

// identifier tells whether a name can follow a dot.
func identifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
