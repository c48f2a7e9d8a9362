package native

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// fail reports an error of the syntax; the rest of the statement is skipped.
func (p *parser) fail(pos conf.Pos, hint, format string, args ...any) {
	if !p.bad {
		p.diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
	p.bad = true
}

// complain reports an error of the meaning; reading goes on.
func (p *parser) complain(pos conf.Pos, format string, args ...any) {
	if !p.bad {
		p.diags.Errorf(pos, format, args...)
	}
}

// unexpected fails at the token at hand.
func (p *parser) unexpected(want string) {
	if p.tok.Kind == lex.Invalid {
		p.bad = true // the lexer has said it
		return
	}
	msg := "expected " + want + ", got " + describe(p.tok)
	if p.tok.Macro != "" {
		msg += " (from $" + p.tok.Macro + ")"
	}
	p.fail(p.tok.Pos, "", "%s", msg)
}

func describe(t lex.Token) string {
	switch t.Kind {
	case lex.EOF, lex.Newline:
		return "the end of the line"
	case lex.Number:
		return "the number " + t.Text
	case lex.Quoted:
		return "the string " + strconv.Quote(t.Text)
	case lex.Word:
		if conf.Reserved(t.Text) {
			return "the reserved word " + strconv.Quote(t.Text)
		}
	}
	return strconv.Quote(t.Text)
}

// isString tells whether the token at hand is a STRING of the grammar.
func (p *parser) isString() bool {
	return p.tok.Kind == lex.Quoted || p.tok.Kind == lex.Word && !conf.Reserved(p.tok.Text)
}

// str reads a STRING that is not empty; what tells what it is for.
func (p *parser) str(what string) string {
	pos := p.tok.Pos
	s := p.text(what)
	if s == "" {
		p.complain(pos, "expected %s, got an empty string", what)
	}
	return s
}

// text reads a STRING.
func (p *parser) text(what string) string {
	if p.bad {
		return ""
	}
	if p.isString() {
		s := p.tok.Text
		p.advance()
		return s
	}
	p.needsQuotes(what)
	return ""
}

// needsQuotes reports that a string was expected, and how to write what stands
// there instead if it was meant as one.
func (p *parser) needsQuotes(what string) {
	t := p.tok
	switch {
	case p.runaway():
		p.fail(p.brace, "", "the brace is not closed: line %d begins another statement", t.Pos.Line)
	case t.Kind == lex.Punct && t.Text == "$":
		p.fail(t.Pos, "", "a macro is not replaced inside the value of another, here $%s", t.Macro)
	case t.Kind == lex.Word:
		p.fail(t.Pos, "if it is meant as a value, quote it: \""+t.Text+"\"",
			"expected %s, got the reserved word %q", what, t.Text)
	case t.Kind == lex.Number:
		p.fail(t.Pos, "in quotes it is a string: \""+t.Text+"\"",
			"expected %s, got the number %s", what, t.Text)
	case t.Kind == lex.Punct && !strings.Contains("{}<>()!=,", t.Text):
		p.fail(t.Pos, "what does not begin with a letter, a digit, \":\" or \"_\" must be quoted: \""+t.Text+p.lex.Ahead()+"\"",
			"expected %s, got %q", what, t.Text)
	default:
		p.unexpected(what)
	}
}

// skip tells whether the reserved or plain word is at hand, and reads over it.
func (p *parser) skip(word string) bool {
	if p.bad || p.tok.Kind != lex.Word || p.tok.Text != word {
		return false
	}
	p.advance()
	return true
}

// want reads the word or fails.
func (p *parser) want(word string) {
	if !p.bad && !p.skip(word) {
		p.unexpected(strconv.Quote(word))
	}
}

func (p *parser) isPunct(c string) bool {
	return !p.bad && p.tok.Kind == lex.Punct && p.tok.Text == c
}

func (p *parser) skipPunct(c string) bool {
	if !p.isPunct(c) {
		return false
	}
	p.advance()
	return true
}

func (p *parser) wantPunct(c string) {
	if !p.bad && !p.skipPunct(c) {
		p.unexpected(strconv.Quote(c))
	}
}

// more tells whether the statement goes on.
func (p *parser) more() bool {
	return !p.bad && p.tok.Kind != lex.Newline && p.tok.Kind != lex.EOF
}

// newlines reads over line ends inside braces, keeping their comments.
func (p *parser) newlines() {
	for !p.bad && p.tok.Kind == lex.Newline {
		p.takeComment()
		p.advance()
	}
}

// name reads the name of what a statement declares.
func (p *parser) name(n *conf.Node, what string) string {
	mark(n, "name", p.tok.Pos)
	return p.plain(what)
}

// plain reads a name, and refuses one that looks like those of inline tables and
// chains.
func (p *parser) plain(what string) string {
	pos := p.tok.Pos
	name := p.str(what)
	if strings.HasPrefix(name, "<") {
		p.fail(pos, "", "the name %q begins with <", name)
	}
	return name
}

// mark notes the place of a part; it tells whether it is the first such part.
func mark(n *conf.Node, word string, pos conf.Pos) bool {
	if n.At == nil {
		n.At = make(map[string]conf.Pos)
	}
	if _, twice := n.At[word]; twice {
		return false
	}
	n.At[word] = pos
	return true
}

// once notes the place of an option and reports one that was given before.
// Options that exclude each other have a group in common.
func (p *parser) once(n *conf.Node, group string, pos conf.Pos) {
	if !mark(n, group, pos) {
		p.complain(pos, "%s already specified", group)
	}
}

// number reads a NUMBER that is not negative.
func (p *parser) number(what string) int64 {
	if p.bad {
		return 0
	}
	if p.tok.Kind != lex.Number {
		p.unexpected("a number for " + what)
		return 0
	}
	n := p.tok.Num
	if n < 0 || n > math.MaxInt32 {
		p.complain(p.tok.Pos, "invalid %s: %d is not between 0 and %d", what, n, math.MaxInt32)
	}
	p.advance()
	return n
}

// delay reads digits and a unit.
func (p *parser) delay(what string) time.Duration {
	pos := p.tok.Pos
	hint := "a number and a unit: s, m, h or d, like 4h"
	if !p.bad && p.tok.Kind == lex.Number {
		p.fail(pos, hint, "invalid %s: %s has no unit", what, p.tok.Text)
		return 0
	}
	s := p.str(what)
	d, ok := conf.ParseDelay(s)
	if !p.bad && !ok {
		p.diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf("invalid %s: %s", what, s), Hint: hint})
	}
	return d
}

// size reads a number of bytes, maybe scaled.
func (p *parser) size(what string) int64 {
	pos := p.tok.Pos
	if !p.bad && p.tok.Kind == lex.Number {
		n := p.tok.Num
		p.advance()
		if n < 0 {
			p.complain(pos, "invalid %s: %d", what, n)
		}
		return n
	}
	s := p.str(what)
	n, ok := conf.ParseSize(s)
	if !p.bad && !ok {
		p.diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf("invalid %s: %s", what, s),
			Hint: "a number of bytes, or one with K, M or G, like 35M"})
	}
	return n
}
