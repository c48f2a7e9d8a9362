package hcl

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"sort"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

// Limits of what is read. The parser of HCL recurses, and a stack that
// overflows cannot be caught.
const (
	maxDepth  = 16       // of includes
	maxFile   = 64 << 20 // bytes of one file
	maxNested = 200      // brackets, templates and operators inside one another
)

// source is one file that was read.
type source struct {
	name     string
	text     string
	lines    []int // offsets of the lines' first bytes
	comments []comment
	leaves   []leaf
	includes []inclusion
	parent   *source
}

// inclusion is the place where another file is read.
type inclusion struct {
	at  int
	src *source
}

// item is one top-level attribute or block.
type item struct {
	src    *source
	at     int
	attr   *hclsyntax.Attribute
	block  *hclsyntax.Block
	broken bool // has an error of the syntax, which was reported
}

// read reads a file, puts its statements behind the others, and those of the
// files that it includes where they are included. It returns nil when the file
// cannot be read, which the caller's place at is about.
func (p *parser) read(name string, at *hcl2.Range) *source {
	var pos conf.Pos
	if at != nil {
		pos = p.pos(*at)
	}
	what := name
	if at != nil {
		what = "failed to include file " + name
	}
	parent := p.src
	depth := 0
	for s := parent; s != nil; s = s.parent {
		if depth++; s.name == name {
			p.diags.Errorf(pos, "%s: it includes itself", what)
			return nil
		}
	}
	if depth >= maxDepth {
		p.diags.Errorf(pos, "%s: more than %d files deep", what, maxDepth)
		return nil
	}
	b, err := p.open(name)
	if err != nil {
		p.diags.Errorf(pos, "%s: %s", what, reason(err))
		return nil
	}
	if len(b) > maxFile {
		p.diags.Errorf(pos, "%s: larger than %d MiB", what, maxFile>>20)
		return nil
	}
	s := &source{name: name, text: strings.ReplaceAll(string(b), "\r\n", "\n"), lines: []int{0}, parent: parent}
	for i := range len(s.text) {
		if s.text[i] == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	p.sources[name] = s
	p.diags.Source(name, s.text)
	p.src = s
	defer func() { p.src = parent }()
	for _, it := range p.itemsIn(s) {
		p.items = append(p.items, it)
		if b := it.block; b != nil && b.Type == "include" && len(b.Labels) == 1 {
			if in := p.read(b.Labels[0], &b.LabelRanges[0]); in != nil {
				s.includes = append(s.includes, inclusion{it.at, in})
			}
		}
	}
	return s
}

// reason returns what the system says, without the path that we print ourselves.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// itemsIn parses one file. A file with an error is parsed again piece by piece:
// the parser of HCL keeps quiet about what comes after the first one.
func (p *parser) itemsIn(s *source) []item {
	tokens, _ := hclsyntax.LexConfig([]byte(s.text), s.name, hcl2.InitialPos)
	if !p.bounded(tokens) {
		return nil
	}
	s.takeComments(tokens)
	file, diags := hclsyntax.ParseConfig([]byte(s.text), s.name, hcl2.InitialPos)
	if !diags.HasErrors() {
		return itemsOf(s, file, false)
	}
	var items []item
	said := p.diags.Len()
	for _, c := range s.chunks() {
		start := hcl2.Pos{Line: c.line, Column: 1, Byte: c.from}
		file, diags := hclsyntax.ParseConfig([]byte(s.text[c.from:c.to]), s.name, start)
		p.syntax(cascade(diags))
		items = append(items, itemsOf(s, file, diags.HasErrors())...)
	}
	if p.diags.Len() == said { // the pieces alone are right
		p.syntax(cascade(diags))
	}
	return items
}

// cascade leaves out what follows from a string that is not closed.
func cascade(diags hcl2.Diagnostics) hcl2.Diagnostics {
	for i, d := range diags {
		if d.Summary == openString {
			return diags[:i+1]
		}
	}
	return diags
}

// itemsOf returns the top-level statements of a file in their order.
func itemsOf(s *source, file *hcl2.File, broken bool) []item {
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	var items []item
	for _, a := range body.Attributes {
		items = append(items, item{src: s, at: a.SrcRange.Start.Byte, attr: a, broken: broken})
	}
	for _, b := range body.Blocks {
		items = append(items, item{src: s, at: b.TypeRange.Start.Byte, block: b, broken: broken})
	}
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.at, b.at) })
	return items
}

// chunk is a part of a file that begins with a line of a statement.
type chunk struct{ from, to, line int }

// chunks splits the text before each line that begins with the word of a
// statement.
func (s *source) chunks() []chunk {
	words := statementWords()
	var out []chunk
	from, line := 0, 1
	for i, at := range s.lines {
		word, rest := firstWord(s.text[at:])
		if at > from && slices.Contains(words, word) && rest != "" && strings.ContainsAny(rest[:1], " \t\"{=") {
			out = append(out, chunk{from, at, line})
			from, line = at, i+1
		}
	}
	return append(out, chunk{from, len(s.text), line})
}

func firstWord(s string) (word, rest string) {
	i := 0
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z') {
		i++
	}
	return s[:i], s[i:]
}

// bounded tells whether nothing is nested too deep, and says so.
func (p *parser) bounded(tokens hclsyntax.Tokens) bool {
	depth, run, asks := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth = max(0, depth-1)
		case hclsyntax.TokenBang, hclsyntax.TokenMinus:
			run++
			if run <= maxNested {
				continue
			}
		case hclsyntax.TokenQuestion:
			asks++
		case hclsyntax.TokenEqual:
			asks = 0
		}
		if depth > maxNested || run > maxNested || asks > maxNested {
			p.fail(t.Range, "", "more than %d levels inside one another", maxNested)
			return false
		}
		run = 0
	}
	return true
}

// pos returns the place where a range begins; columns of HCL are characters,
// ours are bytes.
func (p *parser) pos(r hcl2.Range) conf.Pos {
	s := p.sources[r.Filename]
	if s == nil {
		return conf.Pos{}
	}
	at := min(r.Start.Byte, len(s.text))
	line := s.line(at)
	return conf.Pos{File: s.name, Line: line, Col: at - s.lines[line-1] + 1}
}

// line returns the line of an offset, counted from 1.
func (s *source) line(at int) int {
	return sort.Search(len(s.lines), func(i int) bool { return s.lines[i] > at })
}
