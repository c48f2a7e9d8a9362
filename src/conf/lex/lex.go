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
	Punct   // one character, in Text
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
	Long    bool   // of Quoted: it goes over the end of a line
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
	escaped   bool // a backslash stood before it: put back, it escapes nothing
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

// mark is what some editors put before a text in UTF-8; it is none of it.
const mark = "\uFEFF"

// read returns the text of a file with its line ends made plain.
func (l *Lexer) read(name string) (string, error) {
	b, err := l.open(name)
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(b), mark), "\r\n", "\n")
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
		return char{c: eof, line: f.line, col: f.col}
	}
	c := char{c: int(f.text[f.off]), line: f.line, col: f.col}
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
	for c.c == '\\' && !c.escaped {
		next := l.get()
		if next.c != '\n' {
			l.blankAfter(c, next)
			return char{next.c, c.line, c.col, c.macro, true}
		}
		c = l.get()
	}
	return c
}

// blankAfter warns of a backslash that is to continue its line and does not,
// because blanks follow it.
func (l *Lexer) blankAfter(c, next char) {
	if next.c != ' ' && next.c != '\t' || len(l.pushed) > 0 {
		return
	}
	f := l.file()
	if rest := strings.TrimLeft(f.text[f.off:], " \t"); strings.HasPrefix(rest, "\n") {
		l.diags.Add(diag.Diag{Severity: diag.Warning, Pos: l.pos(c),
			Message: "this backslash continues nothing", Hint: "it must be the last of its line: a blank follows it"})
	}
}

// Defined tells whether there is a macro of that name.
func (l *Lexer) Defined(name string) bool { return l.macros[name] != nil }

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
		l.unget(char{c: int(m.value[i]), line: at.line, col: at.col, macro: string(name)})
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
