package legacy

import (
	"fmt"
	"slices"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// Dialect is a grammar of smtpd.conf.
type Dialect uint8

const (
	Modern Dialect = iota // since 6.4
	Tables                // 5.3 to 6.3
	Maps                  // 4.6 to 5.2.1
)

// releases is a set of dialects.
type releases uint8

const (
	inMaps releases = 1 << iota
	inTables
	inModern
	inOld = inMaps | inTables
	inNew = inTables | inModern
	inAll = inOld | inModern
)

func (r releases) String() string {
	return [...]string{"no release", "OpenSMTPD 4.6 to 5.2", "OpenSMTPD 5.3 to 6.3", "OpenSMTPD 4.6 to 6.3",
		"OpenSMTPD 6.4 and later", "OpenSMTPD 4.6 to 5.2 and 6.4", "OpenSMTPD 5.3 and later", "every release"}[r]
}

// A clue is a word that not every dialect has.
type clue struct {
	in   releases
	pos  conf.Pos
	word string
}

// Finding is what Recognise found.
type Finding struct {
	Dialect  Dialect
	Pos      conf.Pos // of the first word that tells
	Releases string   // that read the file, for messages
}

// Recognise tells by its words in which grammar a file is written. The words that
// begin statements decide, then those inside of statements. A file whose words
// fit all of them is Modern, one that fits both of the old ones is Tables. When no
// grammar has all the words, it is an error in diags that names two that do not
// go together; otherwise diags is nil. A word inside a statement that the others
// leave no grammar for is for the parser to report.
func Recognise(open lex.Opener, name string, macros map[string]string) (Finding, *diag.List) {
	s := &scanner{diags: new(diag.List)}
	s.lex = lex.New(open, name, macros, s.diags)
	for s.next() {
	}
	f := Finding{Dialect: Modern}
	all, used, odd := narrow(inAll, nil, s.begins, false)
	if odd == nil {
		all, used, odd = narrow(all, used, s.inside, true)
	}
	if odd != nil {
		s.mixed(*odd, used)
		return f, s.diags
	}
	switch {
	case all&inModern != 0:
	case all&inTables != 0:
		f.Dialect = Tables
	default:
		f.Dialect = Maps
	}
	f.Releases = all.String()
	i := slices.IndexFunc(used, func(c clue) bool { return c.in&inModern == 0 })
	if i >= 0 {
		f.Pos = used[i].pos
	}
	return f, nil
}

// narrow leaves of all what clues leave, and adds those to used. It stops at one
// that nothing fits, unless lax holds and nothing did before the first of them.
func narrow(all releases, used, clues []clue, lax bool) (releases, []clue, *clue) {
	base := all
	for i, c := range clues {
		switch {
		case lax && base&c.in == 0:
			continue
		case all&c.in == 0:
			return all, used, &clues[i]
		}
		all &= c.in
		used = append(used, c)
	}
	return all, used, nil
}

// mixed reports the clue c, which has no grammar in common with all of those
// before; or the one before that it disagrees with, when more of the file agrees
// with c: one line was forgotten when the others were rewritten.
func (s *scanner) mixed(c clue, before []clue) {
	j := slices.IndexFunc(before, func(b clue) bool { return b.in&c.in == 0 })
	b := before[max(j, 0)]
	if s.agree(c) > s.agree(b) {
		b, c = c, b
	}
	where := fmt.Sprintf("line %d", b.pos.Line)
	if b.pos.File != c.pos.File {
		where = fmt.Sprintf("%s:%d", b.pos.File, b.pos.Line)
	}
	s.diags.Add(diag.Diag{Severity: diag.Error, Pos: c.pos,
		Message: fmt.Sprintf("%q is of %v, but %q in %s is of %v: a file is written in one grammar", c.word, c.in, b.word, where, b.in),
		Hint:    today[c.word]})
}

// agree counts the statements that a grammar of c has.
func (s *scanner) agree(c clue) int {
	n := 0
	for _, b := range s.begins {
		if b.in&c.in != 0 {
			n++
		}
	}
	return n
}

// today maps words of old grammars to what is written now. It is never written.
var today = map[string]string{
	"accept":                  "since 6.4: action NAME METHOD …, and match … action NAME",
	"reject":                  "since 6.4: match … reject",
	"map":                     "since 5.3: table NAME type:path, or table NAME { … }",
	"hostname":                "today: the file mailname, or listen on … hostname NAME",
	"expire":                  "since 6.4: queue ttl DELAY",
	"size":                    "since 6.4: smtp max-message-size SIZE",
	"max-message-size":        "since 6.4: smtp max-message-size SIZE",
	"bounce-warn":             "since 6.4: bounce warn-interval DELAY, …",
	"limit":                   "since 6.4: mta limit, mda limit, scheduler limit or smtp limit",
	"enqueuer":                "since 6.4: listen on socket filter NAME",
	"subaddressing-delimiter": "since 6.4: smtp sub-addr-delim CHARACTER",
	"ssmtp":                   "since 6.4: listen on … smtps pki NAME",
	"max-mta-deferred":        "since 6.4: mta max-deferred NUMBER",
	"certificate":             "since 6.4: pki NAME, with the files in pki NAME cert FILE key FILE",
	"enable":                  "since 5.2.1: auth or auth-optional",
	"all":                     "since 5.2.1: any",
	"mask-source":             "since 6.4: mask-src",
	"secure":                  "since 6.4: two listeners, one with tls and one with smtps",
	"tagged":                  "since 6.4: tag",
	"sender":                  "since 6.4: mail-from",
	"recipient":               "since 6.4: rcpt-to",
}

// scanner looks at the statements of a file.
type scanner struct {
	lex    *lex.Lexer
	diags  *diag.List
	begins []clue // words that begin statements
	inside []clue
}

// next looks at one statement, and tells whether there was one.
func (s *scanner) next() bool {
	t := s.lex.Next()
	for t.Kind == lex.Newline {
		t = s.lex.Next()
	}
	if t.Kind == lex.EOF {
		return false
	}
	toks := []lex.Token{t}
	for depth := 0; ; {
		t = s.lex.Next()
		switch {
		case t.Kind == lex.EOF, t.Kind == lex.Newline && depth <= 0:
			s.statement(toks)
			return t.Kind != lex.EOF
		case t.Kind == lex.Newline:
			continue
		case t.Kind == lex.Punct && (t.Text == "{" || t.Text == "("):
			depth++
		case t.Kind == lex.Punct && (t.Text == "}" || t.Text == ")"):
			depth--
		}
		toks = append(toks, t)
	}
}

// add notes that the statement that t belongs to, or t itself, fits in.
func (s *scanner) add(in releases, t lex.Token) {
	if in != inAll {
		s.inside = append(s.inside, clue{in, t.Pos, t.Text})
	}
}

func (s *scanner) statement(toks []lex.Token) {
	isString := func(i int) bool {
		return i < len(toks) && (toks[i].Kind == lex.Word || toks[i].Kind == lex.Quoted)
	}
	first := toks[0]
	switch {
	case len(toks) == 3 && toks[1].Kind == lex.Punct && toks[1].Text == "=" && isString(0) && isString(2):
		s.lex.Define(first.Text, toks[2].Text, first.Pos)
	case first.Kind != lex.Word:
	case first.Text == "include" && len(toks) == 2 && isString(1):
		s.lex.Include(toks[1].Text, toks[1].Pos)
	default:
		s.words(first, toks[1:])
	}
}
