package syntax

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

// Fail reports an error of the syntax; the rest of the statement is skipped.
func (p *Reader) Fail(pos conf.Pos, hint, format string, args ...any) {
	switch {
	case p.long != 0:
		hint = fmt.Sprintf("a string that begins in line %d goes over the end of the line: is its quote missing?", p.long)
	case hint == "" && strings.HasSuffix(p.Tok.Text, ";"):
		hint = "a statement ends with its line, without a semicolon"
	}
	if !p.Bad {
		p.Diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
	p.Bad = true
}

// Complain reports an error of the meaning; reading goes on.
func (p *Reader) Complain(pos conf.Pos, format string, args ...any) {
	if !p.Bad {
		p.Diags.Errorf(pos, format, args...)
	}
}

// Unexpected fails at the token at hand.
func (p *Reader) Unexpected(want string) {
	if p.Tok.Kind == lex.Invalid {
		p.Bad = true // the lexer has said it
		return
	}
	msg := "expected " + want + ", got " + p.Describe(p.Tok)
	if p.Tok.Macro != "" {
		msg += " (from $" + p.Tok.Macro + ")"
	}
	p.Fail(p.Tok.Pos, "", "%s", msg)
}

// Describe says what a token is, for messages.
func (p *Reader) Describe(t lex.Token) string {
	switch t.Kind {
	case lex.EOF, lex.Newline:
		return "the end of the line"
	case lex.Number:
		return "the number " + t.Text
	case lex.Quoted:
		return "the string " + strconv.Quote(t.Text)
	case lex.Word:
		if p.Reserved(t.Text) {
			return "the reserved word " + strconv.Quote(t.Text)
		}
	}
	return strconv.Quote(t.Text)
}

// IsString tells whether the token at hand is a STRING of the grammar.
func (p *Reader) IsString() bool {
	return p.Tok.Kind == lex.Quoted || p.Tok.Kind == lex.Word && !p.Reserved(p.Tok.Text)
}

// Str reads a STRING that is not empty; what tells what it is for.
func (p *Reader) Str(what string) string {
	pos := p.Tok.Pos
	s := p.Text(what)
	if s == "" {
		p.Complain(pos, "expected %s, got an empty string", what)
	}
	return s
}

// Text reads a STRING.
func (p *Reader) Text(what string) string {
	if p.Bad {
		return ""
	}
	if p.IsString() {
		s := p.Tok.Text
		p.quotedMacro()
		p.Advance()
		return s
	}
	p.needsQuotes(what)
	return ""
}

// quotedMacro warns of a macro in quotes, where none is replaced.
func (p *Reader) quotedMacro() {
	if p.Tok.Kind != lex.Quoted {
		return
	}
	for rest := p.Tok.Text; ; {
		_, after, found := strings.Cut(rest, "$")
		if !found {
			return
		}
		end := strings.IndexFunc(after, notMacro)
		if end < 0 {
			end = len(after)
		}
		if name := after[:end]; p.Lex.Defined(name) {
			p.Diags.Warnf(p.Tok.Pos, "no macro is replaced in quotes, here $%s", name)
		}
		rest = after[end:]
	}
}

// needsQuotes reports that a string was expected, and how to write what stands
// there instead if it was meant as one.
func (p *Reader) needsQuotes(what string) {
	t := p.Tok
	switch {
	case p.runaway():
		p.Fail(p.brace, "", "the brace is not closed: line %d begins another statement", t.Pos.Line)
	case t.Kind == lex.Punct && t.Text == "$":
		p.Fail(t.Pos, "", "a macro is not replaced inside the value of another, here $%s", t.Macro)
	case t.Kind == lex.Word:
		p.Fail(t.Pos, "if it is meant as a value, quote it: \""+t.Text+"\"",
			"expected %s, got the reserved word %q", what, t.Text)
	case t.Kind == lex.Number:
		p.Fail(t.Pos, "in quotes it is a string: \""+t.Text+"\"",
			"expected %s, got the number %s", what, t.Text)
	case t.Kind == lex.Punct && !strings.Contains("{}<>()!=,", t.Text):
		whole := t.Text + p.Lex.Ahead()
		hint := "what does not begin with a letter, a digit, \":\" or \"_\" must be quoted: \"" + whole + "\""
		if bare := strings.Trim(whole, curly); bare != whole {
			hint = "quotes are straight: \"" + bare + "\""
		}
		p.Fail(t.Pos, hint, "expected %s, got %q", what, t.Text)
	default:
		p.Unexpected(what)
	}
}

// curly are quotes that word processors make, and that are none here.
const curly = "“”„‘’‚«»"

// Skip tells whether the reserved or plain word is at hand, and reads over it.
func (p *Reader) Skip(word string) bool {
	if p.Bad || p.Tok.Kind != lex.Word || p.Tok.Text != word {
		return false
	}
	p.Advance()
	return true
}

// Want reads the word or fails.
func (p *Reader) Want(word string) {
	if !p.Bad && !p.Skip(word) {
		p.Unexpected(strconv.Quote(word))
	}
}

// IsPunct tells whether the byte c is at hand.
func (p *Reader) IsPunct(c string) bool {
	return !p.Bad && p.Tok.Kind == lex.Punct && p.Tok.Text == c
}

// SkipPunct reads over c when it is at hand.
func (p *Reader) SkipPunct(c string) bool {
	if !p.IsPunct(c) {
		return false
	}
	p.Advance()
	return true
}

// WantPunct reads c or fails.
func (p *Reader) WantPunct(c string) {
	if !p.Bad && !p.SkipPunct(c) {
		p.Unexpected(strconv.Quote(c))
	}
}

// More tells whether the statement goes on.
func (p *Reader) More() bool {
	return !p.Bad && p.Tok.Kind != lex.Newline && p.Tok.Kind != lex.EOF
}

// Newlines reads over line ends inside braces, keeping their comments.
func (p *Reader) Newlines() {
	for !p.Bad && p.Tok.Kind == lex.Newline {
		p.takeComment()
		p.Advance()
	}
}

// Name reads the name of what a statement declares.
func (p *Reader) Name(n *conf.Node, what string) string {
	Mark(n, "name", p.Tok.Pos)
	return p.Plain(what)
}

// Plain reads a name, and refuses one that looks like those of inline tables and
// chains.
func (p *Reader) Plain(what string) string {
	pos := p.Tok.Pos
	name := p.Str(what)
	if strings.HasPrefix(name, "<") {
		p.Fail(pos, "", "the name %q begins with <", name)
	}
	return name
}

// Mark notes the place of a part; it tells whether it is the first such part.
func Mark(n *conf.Node, word string, pos conf.Pos) bool {
	if n.At == nil {
		n.At = make(map[string]conf.Pos)
	}
	if _, twice := n.At[word]; twice {
		return false
	}
	n.At[word] = pos
	return true
}

// Once notes the place of an option and reports one that was given before.
// Options that exclude each other have a group in common.
func (p *Reader) Once(n *conf.Node, group string, pos conf.Pos) {
	if !Mark(n, group, pos) {
		p.Complain(pos, "%s already specified", group)
	}
}

// Number reads a NUMBER that is not negative.
func (p *Reader) Number(what string) int64 {
	if p.Bad {
		return 0
	}
	if p.Tok.Kind != lex.Number {
		p.Unexpected("a number for " + what)
		return 0
	}
	n := p.Tok.Num
	if n < 0 || n > math.MaxInt32 {
		p.Complain(p.Tok.Pos, "invalid %s: %d is not between 0 and %d", what, n, math.MaxInt32)
	}
	p.Advance()
	return n
}

// Delay reads digits and a unit.
func (p *Reader) Delay(what string) time.Duration {
	pos := p.Tok.Pos
	hint := "a number and a unit: s, m, h or d, like 4h"
	if !p.Bad && p.Tok.Kind == lex.Number {
		p.Fail(pos, hint, "invalid %s: %s has no unit", what, p.Tok.Text)
		return 0
	}
	s := p.Str(what)
	d, ok := conf.ParseDelay(s)
	if !p.Bad && !ok {
		p.Diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf("invalid %s: %s", what, s), Hint: hint})
	}
	return d
}

// Size reads a number of bytes, maybe scaled.
func (p *Reader) Size(what string) int64 {
	pos := p.Tok.Pos
	if !p.Bad && p.Tok.Kind == lex.Number {
		n := p.Tok.Num
		p.Advance()
		if n < 0 {
			p.Complain(pos, "invalid %s: %d", what, n)
		}
		return n
	}
	s := p.Str(what)
	n, ok := conf.ParseSize(s)
	if !p.Bad && !ok {
		p.Diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf("invalid %s: %s", what, s),
			Hint: "a number of bytes, or one with K, M or G, like 35M"})
	}
	return n
}
