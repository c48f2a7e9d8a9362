package hcl

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

// field is an attribute that a block of T can have.
type field[T any] struct {
	word string
	read func(*parser, T, *hclsyntax.Attribute)
}

// attributes returns the attributes of a body in the order of the file.
func attributes(body *hclsyntax.Body) []*hclsyntax.Attribute {
	out := make([]*hclsyntax.Attribute, 0, len(body.Attributes))
	for _, a := range body.Attributes {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *hclsyntax.Attribute) int {
		return cmp.Compare(a.SrcRange.Start.Byte, b.SrcRange.Start.Byte)
	})
	return out
}

// fields reads the attributes of a block into t, and reports those that it does
// not have. blocks are the blocks that it may contain; the caller reads them.
func fields[T any](p *parser, what string, body *hclsyntax.Body, t T, table []field[T], blocks ...string) {
	words := make([]string, 0, len(table)+len(blocks))
	for _, f := range table {
		words = append(words, f.word)
	}
	for _, a := range attributes(body) {
		i := slices.IndexFunc(table, func(f field[T]) bool { return f.word == a.Name })
		switch {
		case i >= 0:
			table[i].read(p, t, a)
		case slices.Contains(blocks, a.Name):
			p.fail(a.NameRange, "write it as "+a.Name+" { … }", "%s is a block", a.Name)
		default:
			p.unknownOption(a, what, append(words, blocks...))
		}
	}
	for _, b := range body.Blocks {
		switch {
		case slices.Contains(blocks, b.Type), p.broken: // the latter may be why
		case slices.Contains(words, b.Type):
			p.fail(b.TypeRange, "write it as "+b.Type+" = …", "%s is no block", b.Type)
		default:
			p.fail(b.TypeRange, near(b.Type, append(words, blocks...)), "%q is no part of %s", b.Type, what)
		}
	}
}

// renamed are words that smtpd.conf has and what they are here.
var renamed = map[string]string{
	"on": `the label: listen "em0" { … }`, "inet4": `family = "inet4"`, "inet6": `family = "inet6"`,
	"smtps": `tls = "smtps"`, "tls-require": `tls = "require"`, "auth-optional": `auth = "optional"`,
}

func (p *parser) unknownOption(a *hclsyntax.Attribute, what string, words []string) {
	hint := near(a.Name, words)
	if now := renamed[a.Name]; now != "" && strings.HasPrefix(what, "listen") {
		hint = "here it is written " + now
	}
	if hint == "" && len(words) > 0 {
		slices.Sort(words)
		hint = "known here: " + strings.Join(words, ", ")
	}
	p.fail(a.NameRange, hint, "%q is no option of %s", a.Name, what)
}

// declaration returns the node of a block.
func (p *parser) declaration(b *hclsyntax.Block) conf.Node { return p.node(b.TypeRange) }

// label returns the name of a block.
func (p *parser) label(b *hclsyntax.Block, n *conf.Node) string {
	name, r := declaredName(b.Type, b.Labels[0]), b.LabelRanges[0]
	p.mark(n, "name", r)
	switch {
	case name == "":
		p.fail(r, "", "the name is empty")
	case strings.HasPrefix(name, "<"):
		p.fail(r, "", "the name %q begins with <", name)
	case strings.ContainsAny(name, "\n\x00"):
		p.fail(r, "", "the name has a line end or a NUL in it")
	}
	return name
}

// need reports an attribute that is not there.
func (p *parser) need(b *hclsyntax.Block, word, example string) {
	if p.bad {
		return
	}
	if _, ok := b.Body.Attributes[word]; !ok {
		p.fail(b.TypeRange, fmt.Sprintf("add %s = %s", word, example), "%s has no %s", b.Type, word)
	}
}
