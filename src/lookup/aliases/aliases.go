// Package aliases reads what a name is expanded to: the values of aliases(5) and
// virtual tables, the lines of a .forward file (forward(5)) and those of a file
// named by :include:.
//
//	line    = value *( "," value )
//	value   = user | local@domain | "/" path | "|" command
//	        | [":"] "include:" path | [":"] "error:" code SP text
//
// Quotes keep commas together and a backslash takes the next character as it
// is; a value that is quoted as a whole loses its quotes. Empty values are
// skipped.
package aliases

import (
	"errors"
	"fmt"
	"strings"

	"opensmtpd/src/mail/addr"
)

// Kind tells the values apart.
type Kind uint8

const (
	User    Kind = iota + 1 // Text is the name, in lower case
	Address                 // Addr
	File                    // Text is the path
	Command                 // Text is the command line, without the bar
	Include                 // Text is the path
	Error                   // Text is a reply: code, blank, text
)

func (k Kind) String() string {
	names := [...]string{"invalid", "user", "address", "file", "command", "include", "error"}
	if int(k) >= len(names) {
		k = 0
	}
	return names[k]
}

// Value is one thing that a name is expanded to.
type Value struct {
	Kind Kind
	Text string
	Addr addr.Address
}

func (v Value) String() string {
	switch v.Kind {
	case Address:
		return v.Addr.String()
	case Command:
		return "|" + v.Text
	case Include:
		return ":include:" + v.Text
	case Error:
		return "error:" + v.Text
	}
	return v.Text
}

const (
	// MaxForward is the size from which on a .forward is refused, in bytes: a
	// file of that size is an accident, or an attack.
	MaxForward = 4096
	// MaxForwardValues bounds what one .forward may hold.
	MaxForwardValues = 100
	// maxText bounds a path, a command and a reply, as OpenSMTPD does: they
	// travel in envelopes.
	maxText = 1023
)

var (
	errQuote   = errors.New("quote without its fellow")
	errEscape  = errors.New("nothing behind the backslash")
	errForward = errors.New("forward file exceeds max size")
	errMany    = errors.New("forward file expanded too many nodes")
)

// Parse reads the value of an aliases or virtual table. A comment begins at a
// '#' that is first or has a blank before it.
func Parse(line string) ([]Value, error) {
	return parse(nil, cutComment(line, true))
}

// Check tells what is wrong with the value of an alias.
func Check(value string) error {
	list, err := Parse(value)
	if err == nil && len(list) == 0 {
		err = errors.New("no destination")
	}
	return err
}

// ParseForward reads a .forward file. Includes are not allowed there and are
// left out, as OpenSMTPD does.
func ParseForward(text []byte) ([]Value, error) {
	if len(text) >= MaxForward {
		return nil, errForward
	}
	var list []Value
	for n, line := range logicalLines(text) {
		values, err := parse(nil, line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		list = appendNoIncludes(list, values)
		if len(list) > MaxForwardValues {
			return nil, errMany
		}
	}
	return list, nil
}

// ParseInclude reads a file named by :include:. Lines that make no sense are
// left out and told in bad, so that one of them does not stop a mailing list;
// so are includes, which do not nest.
func ParseInclude(text []byte) (list []Value, bad []error) {
	for n, line := range logicalLines(text) {
		values, err := parse(nil, line)
		if err != nil {
			bad = append(bad, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		list = appendNoIncludes(list, values)
	}
	return list, bad
}

func appendNoIncludes(list, values []Value) []Value {
	for _, v := range values {
		if v.Kind != Include {
			list = append(list, v)
		}
	}
	return list
}

// logicalLines yields the lines of a file with their numbers, comments removed
// and joined where one ends in a backslash.
func logicalLines(text []byte) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		number, first := 0, 0
		joined := ""
		for line := range strings.Lines(string(text)) {
			number++
			if first == 0 {
				first = number
			}
			line = cutComment(strings.TrimRight(line, "\r\n"), false)
			if head, more := continued(line); more {
				joined += head
				continue
			}
			if !yield(first, joined+line) {
				return
			}
			joined, first = "", 0
		}
		if joined != "" {
			yield(first, joined)
		}
	}
}

// continued tells whether line ends in a backslash that is not itself escaped,
// and returns it without.
func continued(line string) (string, bool) {
	head := strings.TrimRight(line, `\`)
	if (len(line)-len(head))%2 == 0 {
		return line, false
	}
	return line[:len(line)-1], true
}

// cutComment removes a '#' outside quotes and what follows it. With blank set
// only one at the start or behind a blank counts.
func cutComment(line string, blank bool) string {
	var q quotes
	for i := 0; i < len(line); i++ {
		if q.escape(line[i]) {
			continue
		}
		if line[i] == '#' && !q.open() && (!blank || i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
		q.toggle(line, i)
	}
	return line
}

// quotes is the state of a scan over a line.
type quotes struct {
	escaped        bool
	double, single bool
}

func (q *quotes) open() bool { return q.double || q.single }

// escape tells whether c is a backslash that is none, or what follows one.
func (q *quotes) escape(c byte) bool {
	if q.escaped {
		q.escaped = false
		return true
	}
	q.escaped = c == '\\'
	return q.escaped
}

// toggle looks at line[i]. An apostrophe within a word, as in o'brien, opens
// nothing.
func (q *quotes) toggle(line string, i int) {
	switch {
	case line[i] == '"' && !q.single:
		q.double = !q.double
	case line[i] == '\'' && !q.double && (q.single || i == 0 || !wordByte(line[i-1])):
		q.single = !q.single
	}
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// parse splits a line at its commas and reads each part.
func parse(list []Value, line string) ([]Value, error) {
	var q quotes
	part := make([]byte, 0, len(line))
	add := func() error {
		text := strings.TrimSpace(string(part))
		part = part[:0]
		if text == "" {
			return nil
		}
		v, err := classify(text)
		if err == nil {
			list = append(list, v)
		}
		return err
	}
	for i := 0; i < len(line); i++ {
		wasEscaped := q.escaped
		if q.escape(line[i]) {
			if wasEscaped {
				part = append(part, line[i])
			}
			continue
		}
		if line[i] == ',' && !q.open() {
			if err := add(); err != nil {
				return nil, err
			}
			continue
		}
		part = append(part, line[i])
		q.toggle(line, i)
	}
	if q.escaped {
		return nil, errEscape
	}
	if q.open() {
		return nil, errQuote
	}
	if err := add(); err != nil {
		return nil, err
	}
	return list, nil
}
