// Package lex splits smtpd.conf into tokens. The rules are the same for every
// grammar that OpenSMTPD ever had:
//
//	blank    space or tab; a newline is a token, it ends a statement
//	comment  "#" up to the end of the line, or of the continued line
//	\newline joins two lines; \c outside quotes is c
//	string   "…" or '…'; in it \ before the quote, a blank or a newline
//	         escapes, any other \ stands for itself; a newline vanishes
//	word     begins with a letter, a digit, ":" or "_" and goes on with these
//	         and all punctuation but ( ) { } < > ! = # ,
//	number   digits, maybe after "-", when a blank ) , / } = or the end follows
//	arrow    =>
//	macro    $name, replaced by its value, which is read again as if it stood
//	         there; no macro inside a value, none inside quotes
//
// Which words are reserved is for the parser to say.
package lex

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// Kind is the kind of a token.
type Kind uint8

const (
	EOF     Kind = iota
	Newline      // Comment holds the comment that it ends
	Word         // bare: may be reserved
	Quoted       // never reserved
	Number
	Punct   // one byte, in Text
	Arrow   // =>
	Invalid // reported already
)

// Token is one token.
type Token struct {
	Kind    Kind
	Text    string // without quotes and escapes
	Num     int64
	Pos     conf.Pos
	Macro   string // the macro whose value it begins in, or ""
	Comment string // of Newline: with its '#', or ""
}

// Opener returns the contents of a file named in smtpd.conf.
type Opener func(name string) ([]byte, error)

// MaxDepth bounds nested includes: more is a mistake.
const MaxDepth = 16

// char is one byte of input with its place.
type char struct {
	c         int // a byte, or eof
	line, col int
	macro     string
}

const eof = -1

// source is one open file.
type source struct {
	name      string
	text      string
	off       int
	line, col int
	ended     bool // the newline at its end was given
}

// Lexer reads a file and what it includes.
type Lexer struct {
	open   Opener
	diags  *diag.List
	files  []*source
	pushed []char // characters to read before the file's, last first
	macros map[string]*macro
	unread []Token
}

type macro struct {
	value string
	pos   conf.Pos
	fixed bool // from the command line: the file cannot change it
	used  bool
}

// New returns a lexer for the named file; macros are those of the command line,
// which win over the file's. A file that cannot be opened is reported to diags
// and reads as empty.
func New(open Opener, name string, macros map[string]string, diags *diag.List) *Lexer {
	l := &Lexer{open: open, diags: diags, macros: make(map[string]*macro)}
	for k, v := range macros {
		l.macros[k] = &macro{value: v, fixed: true}
	}
	l.files = []*source{{name: name, line: 1, col: 1}}
	text, err := l.read(name)
	if err != nil {
		diags.Errorf(conf.Pos{}, "%s: %s", name, reason(err))
	}
	l.files[0].text = text
	return l
}

// read returns the text of a file with its line ends made plain.
func (l *Lexer) read(name string) (string, error) {
	b, err := l.open(name)
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	l.diags.Source(name, text)
	return text, nil
}

// reason returns what the system says, without the path that we print ourselves.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Include makes the named file the next input. The caller has read the whole
// statement and peeked no further than the newline that ends it.
func (l *Lexer) Include(name string, at conf.Pos) bool {
	for _, f := range l.files {
		if f.name == name {
			l.diags.Errorf(at, "failed to include file %s: it includes itself", name)
			return false
		}
	}
	if len(l.files) >= MaxDepth {
		l.diags.Errorf(at, "failed to include file %s: more than %d files deep", name, MaxDepth)
		return false
	}
	text, err := l.read(name)
	if err != nil {
		l.diags.Errorf(at, "failed to include file %s: %s", name, reason(err))
		return false
	}
	l.files = append(l.files, &source{name: name, text: text, line: 1, col: 1})
	return true
}

// Define sets a macro from the file, unless the command line has set it.
func (l *Lexer) Define(name, value string, pos conf.Pos) {
	if m := l.macros[name]; m != nil && m.fixed {
		m.used = true
		return
	}
	l.macros[name] = &macro{value: value, pos: pos}
}

// Unused calls f for every macro of the file that was never used.
func (l *Lexer) Unused(f func(name string, pos conf.Pos)) {
	for name, m := range l.macros {
		if !m.used && !m.fixed {
			f(name, m.pos)
		}
	}
}

func (l *Lexer) file() *source { return l.files[len(l.files)-1] }

func (l *Lexer) pos(c char) conf.Pos {
	return conf.Pos{File: l.file().name, Line: c.line, Col: c.col}
}

// get returns the next byte as it stands in the input.
func (l *Lexer) get() char {
	if n := len(l.pushed); n > 0 {
		c := l.pushed[n-1]
		l.pushed = l.pushed[:n-1]
		return c
	}
	f := l.file()
	if f.off == len(f.text) {
		return char{eof, f.line, f.col, ""}
	}
	c := char{int(f.text[f.off]), f.line, f.col, ""}
	f.off++
	f.col++
	if c.c == '\n' {
		f.line, f.col = f.line+1, 1
	}
	return c
}

func (l *Lexer) unget(c char) { l.pushed = append(l.pushed, c) }

// joined returns the next byte outside quotes: continued lines are joined, a
// backslash before anything else is dropped.
func (l *Lexer) joined() char {
	c := l.get()
	for c.c == '\\' {
		next := l.get()
		if next.c != '\n' {
			return char{next.c, c.line, c.col, c.macro}
		}
		c = l.get()
	}
	return c
}

// Unread makes t the next token.
func (l *Lexer) Unread(t Token) { l.unread = append(l.unread, t) }

// Next returns the next token. At the end of an included file it goes on with
// the one that included it; at the end of all it returns EOF for ever.
func (l *Lexer) Next() Token {
	if n := len(l.unread); n > 0 {
		t := l.unread[n-1]
		l.unread = l.unread[:n-1]
		return t
	}
	for {
		c := l.joined()
		for c.c == ' ' || c.c == '\t' {
			c = l.joined()
		}
		comment := ""
		if c.c == '#' {
			comment, c = l.comment()
		}
		switch {
		case c.c == eof && l.leave():
			continue
		case c.c == '$' && c.macro == "":
			if l.expand(c) {
				continue
			}
			return Token{Kind: Invalid, Pos: l.pos(c)}
		}
		t := l.token(c)
		t.Comment = comment
		return t
	}
}

// leave pops an included file whose end was told already. The first time that
// the end of a file is met a newline is told instead, so that a last line
// without one is a line.
func (l *Lexer) leave() bool {
	f := l.file()
	if !f.ended || len(l.files) == 1 {
		return false
	}
	l.files = l.files[:len(l.files)-1]
	return true
}

// comment reads up to the end of the line and returns the text, and what ended
// it.
func (l *Lexer) comment() (string, char) {
	b := []byte{'#'}
	for {
		c := l.get()
		if c.c == '\\' {
			next := l.get()
			switch next.c {
			case '\n':
				b = append(b, '\n')
				continue
			case eof:
				return string(b), next
			}
			b = append(b, '\\')
			c = next
		}
		if c.c == '\n' || c.c == eof {
			return string(b), c
		}
		b = append(b, byte(c.c))
	}
}

// expand puts the value of the macro named after the '$' at c before the input.
func (l *Lexer) expand(at char) bool {
	var name []byte
	c := l.joined()
	for ; isAlnum(c.c) || c.c == '_'; c = l.joined() {
		name = append(name, byte(c.c))
	}
	l.unget(c)
	m := l.macros[string(name)]
	if m == nil {
		d := diag.Diag{Severity: diag.Error, Pos: l.pos(at), Message: fmt.Sprintf("macro '%s' not defined", name)}
		if near := diag.Near(string(name), l.names()); near != "" {
			d.Hint = "did you mean $" + near + "?"
		}
		l.diags.Add(d)
		return false
	}
	m.used = true
	for i := len(m.value) - 1; i >= 0; i-- {
		l.unget(char{int(m.value[i]), at.line, at.col, string(name)})
	}
	return true
}

func (l *Lexer) names() []string {
	var out []string
	for n := range l.macros {
		out = append(out, n)
	}
	return out
}

// token returns the token that begins with c.
func (l *Lexer) token(c char) Token {
	t := Token{Pos: l.pos(c), Macro: c.macro}
	switch {
	case c.c == eof:
		if f := l.file(); !f.ended {
			f.ended = true
			t.Kind = Newline
		}
	case c.c == '\n':
		t.Kind = Newline
	case c.c == '"' || c.c == '\'':
		l.quoted(&t, c)
	case (c.c == '-' || isDigit(c.c)) && l.number(&t, c):
	case startsWord(c.c):
		l.word(&t, c)
	case c.c == '=':
		l.equal(&t)
	case c.c == 0:
		l.diags.Errorf(t.Pos, "NUL byte")
		t.Kind = Invalid
	default:
		t.Kind, t.Text = Punct, string([]byte{byte(c.c)})
	}
	return t
}

// Whole makes a word of t, which began in a macro with a byte that no word begins
// with, and what follows it there: a path in a macro need not be quoted twice.
func (l *Lexer) Whole(t Token) Token {
	b := []byte(t.Text)
	c := l.joined()
	for ; inWord(c.c) && c.macro == t.Macro; c = l.joined() {
		b = append(b, byte(c.c))
	}
	l.unget(c)
	t.Kind, t.Text = Quoted, string(b)
	return t
}

func (l *Lexer) equal(t *Token) {
	t.Kind, t.Text = Punct, "="
	if c := l.joined(); c.c == '>' {
		t.Kind, t.Text = Arrow, "=>"
	} else {
		l.unget(c)
	}
}

// number reads a number that begins with first, or leaves the input as it was.
func (l *Lexer) number(t *Token, first char) bool {
	chars := []char{first}
	c := l.joined()
	for ; isDigit(c.c); c = l.joined() {
		chars = append(chars, c)
	}
	l.unget(c)
	if (len(chars) == 1 && first.c == '-') || !endsNumber(c.c) {
		for i := len(chars) - 1; i > 0; i-- {
			l.unget(chars[i])
		}
		return false
	}
	text := make([]byte, len(chars))
	for i, d := range chars {
		text[i] = byte(d.c)
	}
	t.Kind, t.Text = Number, string(text)
	n, err := strconv.ParseInt(t.Text, 10, 64)
	if err != nil {
		l.diags.Errorf(t.Pos, "%q invalid number: not between %d and %d", t.Text, math.MinInt64, math.MaxInt64)
		t.Kind = Invalid
	}
	t.Num = n
	return true
}

func (l *Lexer) word(t *Token, first char) {
	b := []byte{byte(first.c)}
	c := l.joined()
	for ; inWord(c.c); c = l.joined() {
		b = append(b, byte(c.c))
	}
	l.unget(c)
	t.Kind, t.Text = Word, string(b)
}

// quoted reads up to the closing quote.
func (l *Lexer) quoted(t *Token, open char) {
	var b []byte
	t.Kind = Quoted
	for {
		c := l.get()
		if c.c == '\\' {
			switch next := l.get(); next.c {
			case open.c, ' ', '\t':
				b = append(b, byte(next.c))
				continue
			case '\n':
				continue
			default:
				l.unget(next)
			}
		}
		switch c.c {
		case open.c:
			t.Text = string(b)
			return
		case '\n':
		case eof:
			l.unclosed(t, open)
			return
		case 0:
			l.diags.Errorf(l.pos(c), "NUL byte in a quoted string")
			t.Kind = Invalid
		default:
			b = append(b, byte(c.c))
		}
	}
}

// unclosed reports a string without an end, and goes on with the line after the
// one where it began, so that later errors are found as well.
func (l *Lexer) unclosed(t *Token, open char) {
	l.diags.Add(diag.Diag{Severity: diag.Error, Pos: t.Pos,
		Message: "reached end of file while parsing quoted string",
		Hint:    fmt.Sprintf("the %c that opens the string here has no fellow", open.c)})
	t.Kind = Invalid
	f := l.file()
	f.off, f.line, f.col = 0, 1, 1
	for {
		i := strings.IndexByte(f.text[f.off:], '\n')
		if i < 0 {
			f.off = len(f.text)
			return
		}
		if f.line == t.Pos.Line {
			f.off, f.col = f.off+i, i+1
			return
		}
		f.off += i + 1
		f.line++
	}
}

// Ahead returns what stands between the last token and the next blank, comma or
// brace of the file, for hints.
func (l *Lexer) Ahead() string {
	if len(l.pushed) > 0 {
		return ""
	}
	rest := l.file().text[l.file().off:]
	if i := strings.IndexAny(rest, " \t\n,{}#\"'"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

func isDigit(c int) bool { return '0' <= c && c <= '9' }

func isAlnum(c int) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func startsWord(c int) bool { return isAlnum(c) || c == ':' || c == '_' }

// inWord tells whether c may stand in a word after its first byte.
func inWord(c int) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune("(){}<>!=#,", rune(c))
}

// endsNumber tells whether digits before c are a number and not a word.
func endsNumber(c int) bool {
	switch c {
	case eof, ' ', '\t', '\n', '\v', '\f', '\r', ')', ',', '/', '}', '=':
		return true
	}
	return false
}
