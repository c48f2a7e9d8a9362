package format

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Script is a program for sh -c, and the variables that it needs beside the
// environment of every delivery, as NAME=value.
type Script struct {
	Text string
	Vars []string
}

// place is where in a shell program a specifier stands.
type place uint8

const (
	bare place = iota
	inSingle
	inDouble
	// deep is where a value would be taken apart again, or where we do not try to
	// follow: in a substitution, a here-document, a comment.
	deep
)

// Command expands the template of a command for sh -c. wrapped is what %{mda}
// stands for, nil when it is not allowed.
//
// A value that is not inert (see sanitise) never becomes part of the program: it
// goes into an environment variable, SMTPD_1 and so on, and the program refers
// to that, quoted as the place asks. So the shell does not evaluate it. Nor does
// a second one: inside a word that holds blanks, `sh -c "prog %{sender:raw}"`,
// and in substitutions, raw is not obeyed and the sanitised value stands there,
// which is inert however often it is evaluated. An empty value where no quotes
// are makes an empty word, it does not vanish.
func Command(template string, v *Values, wrapped *Script) (Script, error) {
	parts, err := parse(template)
	if err != nil {
		return Script{}, err
	}
	var s Script
	if wrapped != nil {
		s.Vars = append(s.Vars, wrapped.Vars...)
	}
	places := locate(parts)
	var b strings.Builder
	for i, p := range parts {
		if p.tok == nil {
			b.WriteString(p.text)
			continue
		}
		text, err := s.expand(p.tok, v, places[i], wrapped)
		if err != nil {
			return Script{}, err
		}
		b.WriteString(text)
	}
	s.Text = b.String()
	if strings.IndexByte(s.Text, 0) >= 0 {
		return Script{}, errors.New("command holds a NUL")
	}
	return s, nil
}

// expand returns what stands for the token in the program.
func (s *Script) expand(t *token, v *Values, at spot, wrapped *Script) (string, error) {
	if t.name == "mda" {
		if wrapped == nil {
			return "", errors.New("%{mda} is only for wrappers")
		}
		if at.place == bare || at.place == deep {
			return wrapped.Text, nil
		}
		s.Vars = append(s.Vars, "SMTPD_MDA="+wrapped.Text)
		return refer("SMTPD_MDA", at.place), nil
	}
	val, raw, err := t.value(v)
	if err != nil {
		return "", err
	}
	if names[t.name] && (!raw || at.blanks || at.place == deep) {
		val = sanitise(val)
	}
	if strings.IndexByte(val, 0) >= 0 {
		return "", fmt.Errorf("%q holds a NUL", val)
	}
	switch {
	case inert(val):
		return val, nil
	case val == "" && at.place == bare:
		return `""`, nil
	case val == "":
		return "", nil
	}
	name := fmt.Sprintf("SMTPD_%d", len(s.Vars)+1)
	s.Vars = append(s.Vars, name+"="+val)
	return refer(name, at.place), nil
}

// refer returns a reference to a variable that is one word, or part of one.
func refer(name string, p place) string {
	switch p {
	case bare:
		return `"${` + name + `}"`
	case inSingle:
		return `'"${` + name + `}"'`
	}
	return "${" + name + "}"
}

// spot is the place of a token; blanks tells that its word, taken whole, holds
// blanks, and so is likely a program for somebody else.
type spot struct {
	place  place
	blanks bool
}

// plain is a parameter expansion that takes nothing apart.
var plain = regexp.MustCompile(`^\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// evals is a command that evaluates its words once more.
var evals = regexp.MustCompile(`(^|[^A-Za-z0-9_./-])(eval|alias|trap)([^A-Za-z0-9_./-]|$)`)

// locate follows the shell's quoting through a template (POSIX, Shell Command
// Language, section 2.2) and returns the spot of each token. Where it is wrong,
// a value is quoted badly, never evaluated.
func locate(parts []part) []spot {
	w := walk{spots: make([]spot, len(parts))}
	for i, p := range parts {
		if p.tok != nil {
			w.spots[i].place = w.place
			if w.escape {
				w.spots[i].place, w.escape = deep, false
			}
			w.word = append(w.word, i)
			w.inWord = true
			continue
		}
		if evals.MatchString(p.text) {
			w.place = deep
		}
		w.text(p.text)
	}
	w.endWord()
	return w.spots
}

type walk struct {
	spots  []spot
	place  place
	word   []int // tokens of the word so far
	blanks bool  // in the word so far, quoted
	inWord bool
	escape bool
}

func (w *walk) endWord() {
	for _, i := range w.word {
		w.spots[i].blanks = w.blanks
	}
	w.word, w.blanks, w.inWord = w.word[:0], false, false
}

func (w *walk) text(s string) {
	for i := 0; i < len(s) && w.place != deep; i++ {
		c := s[i]
		blank := c == ' ' || c == '\t' || c == '\n'
		switch {
		case w.escape:
			w.escape = false
			w.blanks = w.blanks || blank
			w.inWord = true
		case w.place == inSingle:
			w.single(c, blank)
		case c == '\\':
			w.escape = true
		case c == '`':
			w.place = deep
		case c == '$':
			if n := len(plain.FindString(s[i:])); n > 0 {
				i += n - 1
				w.inWord = true
			} else if i+1 < len(s) && (s[i+1] == '(' || s[i+1] == '{' || s[i+1] == '\'') {
				w.place = deep
			}
		case w.place == inDouble:
			w.double(c, blank)
		default:
			w.bare(s, i, blank)
		}
	}
}

func (w *walk) single(c byte, blank bool) {
	if c == '\'' {
		w.place = bare
	}
	w.blanks = w.blanks || blank
}

func (w *walk) double(c byte, blank bool) {
	if c == '"' {
		w.place = bare
	}
	w.blanks = w.blanks || blank
}

func (w *walk) bare(s string, i int, blank bool) {
	switch c := s[i]; {
	case c == '\'':
		w.place, w.inWord = inSingle, true
	case c == '"':
		w.place, w.inWord = inDouble, true
	case c == '#' && !w.inWord, c == '<' && i+1 < len(s) && s[i+1] == '<':
		w.place = deep
	case blank || strings.IndexByte(";&|()<>", c) >= 0:
		w.endWord()
	default:
		w.inWord = true
	}
}
