// Package diag holds what is wrong with a configuration, with the place of each
// finding, and writes it for the administrator:
//
//	/etc/mail/smtpd.conf:12:24: "local" is a reserved word
//	    match for local action local
//	                           ^
//	    hint: write it as "local"
package diag

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"opensmtpd/src/conf"
)

// Severity ranks findings.
type Severity uint8

const (
	Note    Severity = iota // shown when the administrator asked for more
	Warning                 // loads all the same
	Error                   // nothing is loaded
)

// Diag is one finding.
type Diag struct {
	Severity Severity
	Pos      conf.Pos
	Message  string
	Hint     string // how to mend it; may be empty
}

// List gathers the findings of one load together with the sources that they
// point into. The zero List is ready for use.
type List struct {
	diags   []Diag
	sources map[string]string
}

// Source remembers the text of a file, so that lines of it can be shown.
func (l *List) Source(name, text string) {
	if l.sources == nil {
		l.sources = make(map[string]string)
	}
	l.sources[name] = text
}

// Add appends a finding, unless the same was said of the same place.
func (l *List) Add(d Diag) {
	if !slices.Contains(l.diags, d) {
		l.diags = append(l.diags, d)
	}
}

// Errorf adds an error without a hint.
func (l *List) Errorf(pos conf.Pos, format string, args ...any) {
	l.Add(Diag{Severity: Error, Pos: pos, Message: fmt.Sprintf(format, args...)})
}

// Warnf adds a warning without a hint.
func (l *List) Warnf(pos conf.Pos, format string, args ...any) {
	l.Add(Diag{Severity: Warning, Pos: pos, Message: fmt.Sprintf(format, args...)})
}

// EditHints puts edit(hint) in the place of every hint.
func (l *List) EditHints(edit func(hint string) string) {
	for i := range l.diags {
		l.diags[i].Hint = edit(l.diags[i].Hint)
	}
}

// HasErrors tells whether anything forbids the load.
func (l *List) HasErrors() bool { return len(l.Of(Error)) > 0 }

// Len returns the number of findings of any severity.
func (l *List) Len() int { return len(l.diags) }

// Of returns the findings of exactly that severity in the order of their
// places.
func (l *List) Of(s Severity) []Diag {
	var out []Diag
	for _, d := range l.All() {
		if d.Severity == s {
			out = append(out, d)
		}
	}
	return out
}

// All returns every finding in the order of their places.
func (l *List) All() []Diag {
	out := slices.Clone(l.diags)
	slices.SortStableFunc(out, func(a, b Diag) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return out
}

// Format returns a finding with its line and a caret, ending in a newline.
func (l *List) Format(d Diag) string {
	var b strings.Builder
	if !d.Pos.IsZero() {
		fmt.Fprintf(&b, "%s:%d:%d: ", d.Pos.File, d.Pos.Line, d.Pos.Col)
	}
	switch d.Severity {
	case Warning:
		b.WriteString("warning: ")
	case Note:
		b.WriteString("note: ")
	case Error:
	}
	b.WriteString(d.Message)
	b.WriteByte('\n')
	if line, ok := l.line(d.Pos); ok {
		fmt.Fprintf(&b, "    %s\n    %s^\n", line, indent(line, d.Pos.Col))
	}
	if d.Hint != "" {
		fmt.Fprintf(&b, "    hint: %s\n", d.Hint)
	}
	return b.String()
}

// Write writes all findings of at least that severity.
func (l *List) Write(w io.Writer, least Severity) error {
	for _, d := range l.All() {
		if d.Severity < least {
			continue
		}
		if _, err := io.WriteString(w, l.Format(d)); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) line(p conf.Pos) (string, bool) {
	text, ok := l.sources[p.File]
	if !ok {
		return "", false
	}
	for n := 1; ; n++ {
		line, rest, more := strings.Cut(text, "\n")
		if n == p.Line {
			return printable(line), strings.TrimSpace(line) != ""
		}
		if !more {
			return "", false
		}
		text = rest
	}
}

// printable keeps control characters and broken UTF-8 of a file away from the
// terminal, byte by byte.
func printable(line string) string {
	var b strings.Builder
	for i, r := range line {
		switch {
		case r != '\t' && (r < ' ' || r == 0x7f), r == utf8.RuneError && line[i] != 0xef:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// indent returns blanks as wide as the line before column col; tabs stay tabs.
func indent(line string, col int) string {
	var b strings.Builder
	for i, r := range line {
		if i >= col-1 {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
