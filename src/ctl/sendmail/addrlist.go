package sendmail

import (
	"errors"
	"strings"
)

// errAddress is what a list of addresses can be guilty of.
var errAddress = errors.New("syntax error in address")

// parseList takes the addresses out of a list as people write it in a header or
// on a command line (RFC 5322 sections 3.4 and 4.4): display names, comments,
// groups, quoted strings, source routes, and blanks or empty elements where they
// do no harm. What it returns may stand between '<' and '>'; an empty address in
// brackets counts for nothing.
func parseList(s string) ([]string, error) {
	p := listParser{s: s}
	for p.pos < len(p.s) {
		if err := p.step(); err != nil {
			return nil, err
		}
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	return p.list, nil
}

type listParser struct {
	s    string
	pos  int
	list []string

	// Of the element being read.
	bare   []byte // what stands outside of brackets: the address, or a name
	gap    bool   // blanks or a comment since the last byte of bare
	phrase bool   // bare is more than one word: a name, not an address
	angle  string
	seen   bool // there was something in brackets
}

// step reads one token outside of brackets.
func (p *listParser) step() error {
	switch c := p.s[p.pos]; c {
	case ' ', '\t', '\r', '\n':
		p.gap = true
		p.pos++
	case '(':
		p.gap = true
		return p.comment()
	case ',', ';':
		p.pos++
		return p.end()
	case ':': // what came before is the name of a group
		p.pos++
		p.bare, p.gap, p.phrase = nil, false, false
	case '<':
		return p.brackets()
	default:
		word, err := p.word()
		if err != nil {
			return err
		}
		if p.gap && len(p.bare) > 0 && !joins(p.bare[len(p.bare)-1]) && !joins(word[0]) {
			p.phrase = true
		}
		p.gap = false
		p.bare = append(p.bare, word...)
	}
	return nil
}

// joins tells whether blanks beside c belong to the address (RFC 5322 section
// 4.4).
func joins(c byte) bool { return c == '.' || c == '@' }

// end closes an element.
func (p *listParser) end() error {
	switch {
	case p.seen && p.angle != "":
		p.list = append(p.list, p.angle)
	case !p.seen && p.phrase:
		return errAddress
	case !p.seen && len(p.bare) > 0:
		p.list = append(p.list, string(p.bare))
	}
	p.bare, p.gap, p.phrase, p.angle, p.seen = nil, false, false, "", false
	return nil
}

// word reads one byte of an atom, or a whole quoted string or domain literal.
func (p *listParser) word() (string, error) {
	start := p.pos
	switch c := p.s[p.pos]; {
	case c == '"':
		return p.until('"')
	case c == '[':
		return p.until(']')
	case c <= ' ' || c == 0x7f || strings.IndexByte(`)>]\`, c) >= 0:
		return "", errAddress
	}
	p.pos++
	return p.s[start:p.pos], nil
}

// until reads what an opening byte begins, to its closing byte. Nothing in it
// may be a control character: it would reach an SMTP command.
func (p *listParser) until(closing byte) (string, error) {
	start := p.pos
	for p.pos++; p.pos < len(p.s); p.pos++ {
		switch c := p.s[p.pos]; {
		case c == closing:
			p.pos++
			return p.s[start:p.pos], nil
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", errAddress
		case c == '\\':
			if p.pos++; p.pos < len(p.s) && (p.s[p.pos] < ' ' || p.s[p.pos] == 0x7f) {
				return "", errAddress
			}
		}
	}
	return "", errAddress
}

// comment skips one, with those inside it.
func (p *listParser) comment() error {
	depth := 0
	for ; p.pos < len(p.s); p.pos++ {
		switch p.s[p.pos] {
		case '\\':
			p.pos++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				p.pos++
				return nil
			}
		}
	}
	return errAddress
}

// brackets reads "<…>".
func (p *listParser) brackets() error {
	if p.seen {
		return errAddress
	}
	p.seen = true
	var b []byte
	for p.pos++; p.pos < len(p.s); {
		switch c := p.s[p.pos]; c {
		case '>':
			if len(b) > 0 && b[0] == '@' {
				return errAddress // a route to nobody
			}
			p.pos++
			p.angle = string(b)
			return nil
		case ' ', '\t', '\r', '\n':
			p.pos++
		case '(':
			if err := p.comment(); err != nil {
				return err
			}
		case ':': // ends a route, "<@relay,@relay:user@host>"
			if len(b) == 0 || b[0] != '@' {
				return errAddress
			}
			p.pos++
			b = nil
		case ',': // between the stations of a route
			if len(b) == 0 || b[0] != '@' {
				return errAddress
			}
			p.pos++
		case '<', ';':
			return errAddress
		default:
			word, err := p.word()
			if err != nil {
				return err
			}
			b = append(b, word...)
		}
	}
	return errAddress
}

// qualify completes an address that has no domain.
func qualify(a, host string) string {
	if a == "" || lastAt(a) >= 0 {
		return a
	}
	return a + "@" + host
}

// lastAt returns where the '@' before the domain stands, -1 without one: an '@'
// inside quotes is none.
func lastAt(a string) int {
	if i := strings.LastIndexByte(a, '@'); i > strings.LastIndexByte(a, '"') {
		return i
	}
	return -1
}
