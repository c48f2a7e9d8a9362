package table

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"opensmtpd/src/conf"
)

// The text form, table(5):
//
//	file = *( blank | comment | "# @list" | entry )
//	list entry = key
//	map entry  = key ( blanks | [ blanks ] ":" [ blanks ] ) value
//
// A key that begins with '[' goes on to the ']', and to the blank or colon behind
// it. The first entry decides, unless
// "# @list" came before it: with a value the file is a map, else a list. A '#'
// at the start of a line or behind blanks, where a value would begin, starts a
// comment. A backslash at the end of an entry's line joins the next one to it.

// LineError is what is wrong with a line of a table file.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

var (
	errEntry   = errors.New("invalid map entry")
	errBlank   = fmt.Errorf("%w: a line that goes on ends in a backslash", errEntry)
	errBracket = errors.New("'[' without ']'")
	errNUL     = errors.New("NUL byte")
	errSize    = errors.New("table too large")
)

// readFile reads all of f into memory in one piece.
func readFile(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if st.Size() >= maxText {
		return nil, errSize
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	// One byte more than the size finds the end without growing the buffer.
	b := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead))
	_, err = b.ReadFrom(io.LimitReader(f, maxText))
	return b.Bytes(), err
}

// mark is what some editors put before a text in UTF-8; it is none of it.
var mark = []byte("\uFEFF")

// parser goes through a text and fills a set whose entries refer to it. It
// writes into the text where lines are joined.
type parser struct {
	set     *set
	decided bool
	pos     int
	line    uint32
}

// parseText makes a set of the text form; it keeps text, and changes it.
func parseText(text []byte) (*set, error) {
	if len(text) >= maxText {
		return nil, errSize
	}
	p := parser{set: &set{kind: conf.Map, text: bytes.TrimPrefix(text, mark)}}
	p.set.ents = make([]entry, 0, bytes.Count(text, []byte("\n"))+1)
	for p.pos < len(p.set.text) {
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	p.set.build()
	return p.set, nil
}

// next reads one line, with those that continue it.
func (p *parser) next() error {
	start, end := p.readLine()
	first := p.line
	line := bytes.TrimSpace(p.set.text[start:end])
	if len(line) == 0 {
		return nil
	}
	if line[0] == '#' {
		if !p.decided && string(bytes.TrimSpace(line[1:])) == "@list" {
			p.set.kind, p.decided = conf.List, true
		}
		return nil
	}
	if line = bytes.TrimSpace(p.join(line)); len(line) == 0 {
		return nil
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return &LineError{int(first), errNUL}
	}
	err := p.entry(line, first)
	if errors.Is(err, errEntry) && (p.set.text[start] == ' ' || p.set.text[start] == '\t') {
		return &LineError{int(first), errBlank}
	}
	return err
}

func (p *parser) readLine() (start, end int) {
	start = p.pos
	p.line++
	n := bytes.IndexByte(p.set.text[start:], '\n')
	if n < 0 {
		p.pos = len(p.set.text)
		return start, p.pos
	}
	p.pos = start + n + 1
	return start, start + n
}

// join appends the lines that continue line to it, in place: the text only gets
// shorter.
func (p *parser) join(line []byte) []byte {
	for len(line) > 0 && line[len(line)-1] == '\\' && p.pos < len(p.set.text) {
		start, end := p.readLine()
		line = append(line[:len(line)-1], bytes.TrimSpace(p.set.text[start:end])...)
	}
	return line
}

func (p *parser) entry(line []byte, number uint32) error {
	n, err := keyLength(line)
	if err != nil {
		return &LineError{int(number), err}
	}
	val := mapValue(line[n:])
	if !p.decided {
		p.decided = true
		if len(val) == 0 && onlyComment(line[n:]) {
			p.set.kind = conf.List
		}
	}
	if p.set.kind == conf.List {
		p.add(cutComment(line), nil, number)
		return nil
	}
	if len(val) == 0 {
		return &LineError{int(number), errEntry}
	}
	p.add(line[:n], val, number)
	return nil
}

// add remembers where key and value stand; both are parts of the text.
func (p *parser) add(key, val []byte, line uint32) {
	e := entry{line: line, key: p.offset(key), keyLen: uint32(len(key))}
	if len(val) > 0 {
		e.val, e.valLen = p.offset(val), uint32(len(val))
	}
	p.set.ents = append(p.set.ents, e)
}

// offset tells where a slice of the text begins, by what is left behind it.
func (p *parser) offset(part []byte) uint32 {
	return uint32(cap(p.set.text) - cap(part))
}

func keyLength(line []byte) (int, error) {
	from := 0
	if line[0] == '[' {
		n := bytes.IndexByte(line, ']')
		if n < 0 {
			return 0, errBracket
		}
		from = n + 1
	}
	if n := bytes.IndexAny(line[from:], " \t:"); n >= 0 {
		return from + n, nil
	}
	return len(line), nil
}

// mapValue returns the value in what follows the key, empty when there is none.
func mapValue(rest []byte) []byte {
	if len(rest) == 0 {
		return nil
	}
	if rest[0] == ':' {
		return bytes.TrimLeft(rest[1:], " \t")
	}
	v := bytes.TrimLeft(rest, " \t")
	switch {
	case len(v) == 0 || v[0] == '#':
		return nil
	case v[0] == ':' && (len(v) == 1 || v[1] == ' ' || v[1] == '\t'):
		return bytes.TrimLeft(v[1:], " \t") // "key : value", but not "key :include:…"
	}
	return v
}

// onlyComment tells whether nothing that counts follows a key.
func onlyComment(rest []byte) bool {
	rest = bytes.TrimLeft(rest, " \t")
	return len(rest) == 0 || rest[0] == '#'
}

// cutComment removes what follows a '#' that has blanks before it.
func cutComment(line []byte) []byte {
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return bytes.TrimSpace(line[:i])
		}
	}
	return line
}
