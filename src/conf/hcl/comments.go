package hcl

import (
	"cmp"
	"slices"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

// comment is a comment of a source.
type comment struct {
	at   int
	text []string // its lines, each with a '#'
}

// leaf is a statement that keeps comments.
type leaf struct {
	from, to int // the last byte is at to-1
	node     *conf.Node
}

func (s *source) takeComments(tokens hclsyntax.Tokens) {
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenComment {
			s.comments = append(s.comments, comment{t.Range.Start.Byte, commentLines(string(t.Bytes))})
		}
	}
}

// commentLines returns the lines of a comment as smtpd.conf has them: with a
// hash mark, and without a backslash that would join it with the next.
func commentLines(text string) []string {
	text = strings.TrimSuffix(text, "\n")
	switch {
	case strings.HasPrefix(text, "//"):
		text = "#" + text[2:]
	case strings.HasPrefix(text, "/*"):
		text = strings.TrimSuffix(text[2:], "*/")
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.Map(func(r rune) rune {
			if r != '\t' && r < ' ' {
				return ' '
			}
			return r
		}, line)
		if line = strings.TrimLeft(line, " \t*"); !strings.HasPrefix(line, "#") {
			line = "# " + line
		}
		line = strings.TrimRight(line, " \t")
		for bare := strings.TrimRight(line, `\`); (len(line)-len(bare))%2 == 1; bare = strings.TrimRight(line, `\`) {
			line = strings.TrimRight(line[:len(line)-1], " \t")
		}
		lines[i] = line
	}
	return slices.DeleteFunc(lines, func(line string) bool { return line == "#" && len(lines) > 1 })
}

// keep notes a statement that keeps comments.
func (p *parser) keep(n *conf.Node, r hcl2.Range) {
	p.src.leaves = append(p.src.leaves, leaf{r.Start.Byte, r.End.Byte, n})
}

// comments gives each comment of a file to a statement: one behind the first or
// the last line of a statement is its end comment, one inside goes above it, any
// other goes above the next statement.
func (p *parser) comments(s *source) {
	if s == nil {
		return
	}
	slices.SortStableFunc(s.leaves, func(a, b leaf) int { return cmp.Compare(a.from, b.from) })
	leaves, includes := s.leaves, s.includes
	var cur *leaf
	// upTo enters what begins before at.
	upTo := func(at int) {
		for {
			switch {
			case len(includes) > 0 && includes[0].at < at && (len(leaves) == 0 || includes[0].at < leaves[0].from):
				p.comments(includes[0].src)
				includes, cur = includes[1:], nil
			case len(leaves) > 0 && leaves[0].from < at:
				cur = &leaves[0]
				leaves = leaves[1:]
				cur.node.Doc = append(cur.node.Doc, p.pending...)
				p.pending = nil
			default:
				return
			}
		}
	}
	for _, c := range s.comments {
		upTo(c.at)
		line := s.line(c.at)
		switch {
		case cur != nil && (line == s.line(cur.from) || line == s.line(cur.to)) && len(c.text) == 1 && cur.node.Comment == "":
			cur.node.Comment = c.text[0]
		case cur != nil && (c.at < cur.to || line == s.line(cur.to)):
			cur.node.Doc = append(cur.node.Doc, c.text...)
		default:
			p.pending = append(p.pending, c.text...)
		}
	}
	upTo(len(s.text) + 1)
}
