package hcl

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"opensmtpd/src/conf"
)

// bare returns an expression without the parentheses around it.
func bare(x hclsyntax.Expression) hclsyntax.Expression {
	for {
		in, ok := x.(*hclsyntax.ParenthesesExpr)
		if !ok {
			return x
		}
		x = in.Expression
	}
}

// text returns the string in v, which may be one of bytes().
func (p *parser) text(v cty.Value) (string, bool) {
	switch {
	case v.IsNull():
	case v.Type() == cty.String:
		return v.AsString(), true
	case v.Type() == p.rawType:
		if s, ok := v.EncapsulatedValue().(*string); ok {
			return *s, true
		}
	}
	return "", false
}

// describe tells what a value is, for messages.
func (p *parser) describe(v cty.Value) string {
	t := v.Type()
	switch {
	case v.IsNull():
		return "null"
	case t == cty.Bool && v.True():
		return "true"
	case t == cty.Bool:
		return "false"
	case t == cty.Number:
		return "the number " + v.AsBigFloat().Text('f', -1)
	case t == p.refType:
		if r, ok := v.EncapsulatedValue().(*ref); ok {
			return article(kinds[r.kind])
		}
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "a list"
	case t.IsObjectType() || t.IsMapType():
		return "a mapping"
	}
	if s, ok := p.text(v); ok {
		return fmt.Sprintf("the string %q", s)
	}
	return "a " + t.FriendlyName()
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// wrong reports that v is not what was wanted.
func (p *parser) wrong(r hcl2.Range, want string, v cty.Value) {
	hint := ""
	if !v.IsNull() && v.Type() == cty.Number && !strings.Contains(want, "number") && want != "true or false" {
		hint = fmt.Sprintf("in quotes it is a string: %q", v.AsBigFloat().Text('f', -1))
	}
	p.fail(r, hint, "expected %s, got %s", want, p.describe(v))
}

// str returns a string, which may be empty; want tells what it is.
func (p *parser) str(x hclsyntax.Expression, want string) (string, bool) {
	v, ok := p.eval(x)
	if !ok {
		return "", false
	}
	return p.asText(x.Range(), v, want)
}

func (p *parser) asText(r hcl2.Range, v cty.Value, want string) (string, bool) {
	s, ok := p.text(v)
	if !ok {
		p.wrong(r, want, v)
		return "", false
	}
	if strings.ContainsAny(s, "\n\x00") {
		p.fail(r, "a <<EOT text ends in a line end: chomp() takes it away", "expected %s, got a string with a line end or a NUL in it", want)
		return "", false
	}
	return s, true
}

// word returns a string that is not empty.
func (p *parser) word(x hclsyntax.Expression, want string) string {
	s, ok := p.str(x, want)
	if ok && s == "" {
		p.fail(x.Range(), "", "expected %s, got an empty string", want)
	}
	return s
}

// oneOf returns one of the words.
func (p *parser) oneOf(x hclsyntax.Expression, words ...string) string {
	list := `"` + strings.Join(words[:len(words)-1], `", "`) + `" or "` + words[len(words)-1] + `"`
	s, ok := p.str(x, list)
	if !ok {
		return ""
	}
	for _, w := range words {
		if s == w {
			return s
		}
	}
	p.fail(x.Range(), near(s, words), "expected %s, got %q", list, s)
	return ""
}

// flag returns true or false.
func (p *parser) flag(x hclsyntax.Expression) bool {
	v, ok := p.eval(x)
	if !ok {
		return false
	}
	if v.IsNull() || v.Type() != cty.Bool {
		p.wrong(x.Range(), "true or false", v)
		return false
	}
	return v.True()
}

// number returns a number from 0 to the largest that the daemon keeps.
func (p *parser) number(x hclsyntax.Expression) int64 {
	v, ok := p.eval(x)
	if !ok {
		return 0
	}
	if v.IsNull() || v.Type() != cty.Number {
		p.wrong(x.Range(), "a number", v)
		return 0
	}
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != big.Exact || n < 0 || n > math.MaxInt32 {
		p.fail(x.Range(), "", "%s is not a whole number between 0 and %d", v.AsBigFloat().Text('f', -1), math.MaxInt32)
		return 0
	}
	return n
}

// delay returns a length of time.
func (p *parser) delay(x hclsyntax.Expression) time.Duration {
	v, ok := p.eval(x)
	if !ok {
		return 0
	}
	return p.asDelay(x.Range(), v)
}

func (p *parser) asDelay(r hcl2.Range, v cty.Value) time.Duration {
	const hint = `a number and a unit: s, m, h or d, like "4h"`
	s, ok := p.text(v)
	if !ok {
		p.fail(r, hint, "expected a delay, got %s", p.describe(v))
		return 0
	}
	d, ok := conf.ParseDelay(s)
	if !ok {
		p.fail(r, hint, "invalid delay: %q", s)
	}
	return d
}

// size returns a number of bytes.
func (p *parser) size(x hclsyntax.Expression) int64 {
	const hint = `a number of bytes, or a string with K, M or G, like "35M"`
	v, ok := p.eval(x)
	if !ok {
		return 0
	}
	s, ok := p.text(v)
	if !ok {
		if v.IsNull() || v.Type() != cty.Number {
			p.fail(x.Range(), hint, "expected a size, got %s", p.describe(v))
			return 0
		}
		s = v.AsBigFloat().Text('f', -1)
	}
	n, ok := conf.ParseSize(s)
	if !ok {
		p.fail(x.Range(), hint, "invalid size: %s", s)
	}
	return n
}

// port returns a number or the name of a service.
func (p *parser) port(x hclsyntax.Expression) string {
	v, ok := p.eval(x)
	if !ok {
		return ""
	}
	if !v.IsNull() && v.Type() == cty.Number {
		n, accuracy := v.AsBigFloat().Int64()
		if accuracy != big.Exact || n < 1 || n > math.MaxUint16 {
			p.fail(x.Range(), "", "%s is not a port", v.AsBigFloat().Text('f', -1))
			return ""
		}
		return fmt.Sprint(n)
	}
	s, ok := p.asText(x.Range(), v, "a port number or a service")
	if ok && s == "" {
		p.fail(x.Range(), "", "the port is empty")
	}
	return s
}

// refTo returns the name of the thing that x refers to.
func (p *parser) refTo(x hclsyntax.Expression, kind string) string {
	v, ok := p.eval(x)
	if !ok {
		return ""
	}
	if r, ok := p.asRef(v); ok && r.kind == kind {
		return r.name
	}
	hint := ""
	if s, ok := p.text(v); ok {
		hint = "a reference has no quotes: " + reference(kind, s)
	}
	p.fail(x.Range(), hint, "expected %s, got %s", article(kinds[kind]), p.describe(v))
	return ""
}

func (p *parser) asRef(v cty.Value) (*ref, bool) {
	if v.IsNull() || v.Type() != p.refType {
		return nil, false
	}
	r, ok := v.EncapsulatedValue().(*ref)
	return r, ok
}

// refsTo returns the names of one thing or of a list of them. each is called
// with the place of each. list tells that it was a list.
func (p *parser) refsTo(x hclsyntax.Expression, kind string, each func(name string, r hcl2.Range)) (list bool) {
	tuple, list := bare(x).(*hclsyntax.TupleConsExpr)
	if !list {
		v, ok := p.eval(x)
		if ok && !v.IsNull() && (v.Type().IsTupleType() || v.Type().IsListType()) {
			for it := v.ElementIterator(); it.Next(); {
				_, el := it.Element()
				if r, ok := p.asRef(el); ok && r.kind == kind {
					each(r.name, x.Range())
					continue
				}
				p.fail(x.Range(), "", "expected %s, got %s in a list", article(kinds[kind]), p.describe(el))
			}
			return true
		}
		if !ok {
			return false
		}
		if name := p.refTo(x, kind); name != "" {
			each(name, x.Range())
		}
		return false
	}
	if len(tuple.Exprs) == 0 {
		p.fail(x.Range(), "", "the list is empty")
	}
	for _, el := range tuple.Exprs {
		if name := p.refTo(el, kind); name != "" {
			each(name, el.Range())
		}
	}
	return true
}
