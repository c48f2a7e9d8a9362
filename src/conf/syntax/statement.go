package syntax

import (
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// Advance reads over the token at hand.
func (p *Reader) Advance() {
	if p.Tok.Kind == lex.Punct {
		switch p.Tok.Text {
		case "{":
			p.braces++
			p.brace = p.Tok.Pos
		case "}":
			p.braces = max(0, p.braces-1)
		}
	}
	p.fresh = p.Tok.Kind == lex.Newline
	p.Tok = p.Lex.Next()
	if p.Tok.Long && p.long == 0 {
		p.long = p.Tok.Pos.Line
	}
	// A path in a macro need not be quoted twice; OpenSMTPD wants that.
	if p.Tok.Kind == lex.Punct && p.Tok.Macro != "" && !strings.Contains("{}<>()!=,$", p.Tok.Text) {
		p.Tok = p.Lex.Whole(p.Tok)
	}
}

// runaway tells whether a brace was forgotten: the line begins like a statement.
func (p *Reader) runaway() bool {
	return p.braces > 0 && p.fresh && p.Tok.Kind == lex.Word && slices.Contains(p.Statements, p.Tok.Text)
}

// next reads one line, be it empty.
func (p *Reader) next() {
	p.Bad, p.braces, p.long = false, 0, 0
	if p.Tok.Kind == lex.Newline {
		p.takeComment()
		p.Advance()
		return
	}
	node := conf.Node{Pos: p.Tok.Pos, Doc: p.doc}
	p.doc = nil
	n := p.body(&node)
	if !p.Bad && p.Tok.Kind != lex.Newline && p.Tok.Kind != lex.EOF {
		p.Unexpected("the end of the statement")
	}
	if p.Bad {
		p.recover()
	}
	// Comments inside the statement come before it, the one that ends it stays.
	if n == nil {
		p.doc = slices.Concat(node.Doc, p.doc)
		p.takeComment()
	} else {
		n.Doc = slices.Concat(n.Doc, p.doc)
		p.doc = nil
		p.endComment(n)
		n.Bad = n.Bad || p.Bad
	}
	if p.Tok.Kind == lex.Newline {
		p.Advance()
	}
}

// takeComment keeps the comment of the newline at hand for the next statement.
func (p *Reader) takeComment() {
	if p.Tok.Comment != "" {
		p.doc = append(p.doc, commentLines(p.Tok.Comment)...)
	}
	p.Tok.Comment = ""
}

// endComment gives the comment of the newline at hand to the statement that it
// ends; a second one, of a statement joined to the first, goes above it.
func (p *Reader) endComment(n *conf.Node) {
	lines := commentLines(p.Tok.Comment)
	p.Tok.Comment = ""
	switch {
	case len(lines) == 1 && n.Comment == "":
		n.Comment = lines[0]
	default:
		n.Doc = append(n.Doc, lines...)
	}
}

// commentLines splits a comment that was continued over lines, so that each line
// can be printed as one.
func commentLines(c string) []string {
	if c == "" {
		return nil
	}
	lines := strings.Split(c, "\n")
	for i, line := range lines {
		if i > 0 {
			line = strings.TrimLeft(line, " \t")
			if !strings.HasPrefix(line, "#") {
				line = "# " + line
			}
		}
		line = strings.TrimRight(line, " \t\r\v\f")
		// A backslash at the end would take the next line in.
		if bare := strings.TrimRight(line, "\\"); (len(line)-len(bare))%2 == 1 {
			line = strings.TrimRight(line[:len(line)-1], " \t\r\v\f")
		}
		lines[i] = line
	}
	return lines
}

// recover skips the rest of a statement. Inside braces that is up to the closing
// one, unless a line begins like a statement before that.
func (p *Reader) recover() {
	for p.Tok.Kind != lex.EOF {
		switch {
		case p.runaway():
			// The statement at hand has no newline before it any more.
			p.pushNewline()
			return
		case p.Tok.Kind == lex.Newline && p.braces == 0:
			return
		case p.Tok.Kind == lex.Newline:
			p.takeComment()
		}
		p.Advance()
	}
}

// pushNewline ends the statement before the token at hand.
func (p *Reader) pushNewline() {
	p.braces = 0
	p.Lex.Unread(p.Tok)
	p.Tok = lex.Token{Kind: lex.Newline, Pos: p.Tok.Pos}
}

// body reads a statement up to its newline and returns the node that keeps its
// comments, or nil when there is none.
func (p *Reader) body(n *conf.Node) *conf.Node {
	switch p.Tok.Kind {
	case lex.Invalid:
		p.Bad = true
		return nil
	case lex.Quoted:
		return p.macro(*n)
	case lex.Word:
		if node, ok := p.Grammar.Statement(p.Tok.Text, *n); ok {
			return node
		}
		return p.macro(*n)
	case lex.EOF, lex.Newline, lex.Number, lex.Punct, lex.Arrow:
	}
	p.Unexpected("a statement")
	return nil
}
