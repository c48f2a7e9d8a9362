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
// behind eval and in substitutions, raw is not obeyed and the sanitised value
// stands there, which is inert however often it is evaluated; in the first two so
// it does for $SENDER and the other variables that a stranger chose. An empty
// value where no quotes are makes an empty word, it does not vanish. At the
// beginning of a word a value is no option: its dash becomes a colon, unless raw.
func Command(template string, v *Values, wrapped *Script) (Script, error) {
	parts, err := parse(template)
	if err != nil {
		return Script{}, err
	}
	parts = variables(parts)
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
		if at.place == deep || at.evals && at.place == inSingle || !at.evals && at.place == bare {
			return wrapped.Text, nil
		}
		s.Vars = append(s.Vars, "SMTPD_MDA="+wrapped.Text)
		return refer("SMTPD_MDA", at.place), nil
	}
	if t.variable != "" && !at.again() {
		return t.variable, nil
	}
	val, raw, err := t.value(v)
	if err != nil {
		return "", err
	}
	stranger := names[t.name] || t.variable != ""
	if stranger && (!raw || at.blanks || at.evals || at.place == deep) {
		val = sanitise(val)
	}
	if stranger && !raw && at.first && strings.HasPrefix(val, "-") {
		val = ":" + val[1:]
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

// spot is the place of a token.
type spot struct {
	place  place
	blanks bool // its word, taken whole, holds blanks, and so is likely a program for somebody else
	evals  bool // the shell takes what is here for a program once more
	first  bool // it begins its word, or may
}

// again tells whether a variable that stands here is evaluated twice: by the shell
// that replaces it, and by who gets the word. In single quotes it is not replaced.
func (s spot) again() bool {
	return s.evals || s.blanks && (s.place == bare || s.place == inDouble)
}

// chosen is what the variables of an mda's environment hold that a stranger has
// chosen.
var chosen = map[string]string{
	"DOMAIN": "rcpt.domain", "EXTENSION": "extension", "LOCAL": "rcpt.user",
	"ORIGINAL_RECIPIENT": "rcpt", "RECIPIENT": "dest", "SENDER": "sender",
}

// variable finds one of them.
var variable = regexp.MustCompile(`\$(\{(DOMAIN|EXTENSION|LOCAL|ORIGINAL_RECIPIENT|RECIPIENT|SENDER)\}|(DOMAIN|EXTENSION|LOCAL|ORIGINAL_RECIPIENT|RECIPIENT|SENDER)\b)`)

// variables makes tokens of them.
func variables(parts []part) []part {
	var all []part
	for _, p := range parts {
		rest := p.text
		for m := variable.FindStringIndex(rest); p.tok == nil && m != nil; m = variable.FindStringIndex(rest) {
			if m[0] > 0 {
				all = append(all, part{text: rest[:m[0]]})
			}
			text := rest[m[0]:m[1]]
			all = append(all, part{tok: &token{name: chosen[strings.Trim(text, "${}")], variable: text, mods: []string{"raw"}}})
			rest = rest[m[1]:]
		}
		if p.tok != nil || rest != "" {
			all = append(all, part{rest, p.tok})
		}
	}
	return all
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
			w.spots[i] = spot{place: w.place, evals: w.evals, first: !w.begun || w.place == deep}
			if w.escape {
				w.spots[i].place, w.escape = deep, false
			}
			w.word = append(w.word, i)
			w.inWord, w.begun = true, true
			continue
		}
		w.evals = w.evals || evals.MatchString(p.text)
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
	begun  bool // the word has more than opening quotes
	escape bool
	evals  bool // from here on
}

func (w *walk) endWord() {
	for _, i := range w.word {
		w.spots[i].blanks = w.blanks
	}
	w.word, w.blanks, w.inWord, w.begun = w.word[:0], false, false, false
}

func (w *walk) text(s string) {
	for i := 0; i < len(s) && w.place != deep; i++ {
		c := s[i]
		blank := c == ' ' || c == '\t' || c == '\n'
		switch {
		case w.escape:
			w.escape = false
			w.blanks = w.blanks || blank
			w.inWord, w.begun = true, true
		case w.place == inSingle:
			w.single(c, blank)
		case c == '\\':
			w.escape = true
		case c == '`':
			w.place = deep
		case c == '$':
			w.begun = true
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
		return
	}
	w.blanks, w.begun = w.blanks || blank, true
}

func (w *walk) double(c byte, blank bool) {
	if c == '"' {
		w.place = bare
		return
	}
	w.blanks, w.begun = w.blanks || blank, true
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
		w.inWord, w.begun = true, true
	}
}
