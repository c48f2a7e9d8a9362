package lex

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"opensmtpd/src/conf/diag"
)

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
		t.Kind, t.Text = Punct, string(l.character(c))
	}
	return t
}

// character returns the bytes of the character that begins with c, all of them
// when it is of several.
func (l *Lexer) character(c char) []byte {
	b := []byte{byte(c.c)}
	for c.c >= utf8.RuneSelf && len(b) < utf8.UTFMax && !utf8.Valid(b) {
		next := l.get()
		if next.c == eof || utf8.RuneStart(byte(next.c)) {
			l.unget(next)
			break
		}
		b = append(b, byte(next.c))
	}
	return b
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
			t.Long = true
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
