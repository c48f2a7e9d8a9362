// Package syntax has what the grammars of smtpd.conf share, whatever their
// words are: a statement ends with its line, comments stay with statements, an
// error skips the rest of its statement alone, strings, numbers, delays and
// sizes, macros and includes, tables and their mentions, limits.
package syntax

import (
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// Grammar is what a front end gives to a Reader.
type Grammar struct {
	// Statements are the words that begin a statement, for hints and to find
	// a brace that was not closed.
	Statements []string
	// Statement reads the statement that begins with word, which was read
	// over, up to its newline. It returns the node that keeps its comments, or
	// nil when there is none; false when no statement begins with that word.
	Statement func(word string, n conf.Node) (*conf.Node, bool)
	// Unknown reports a first word that is no statement.
	Unknown func(first lex.Token)
	// Reserved tells whether a bare word is a keyword, and no string.
	Reserved func(word string) bool
	// ReservedMacros tells that a keyword may name a macro all the same.
	ReservedMacros bool
	// Renamed maps words of before 6.4 to what is written since; nil in older
	// grammars.
	Renamed map[string]string
}

// Reader holds one token ahead. After an error Bad is set and everything but
// the recovery does nothing.
type Reader struct {
	Grammar
	Lex   *lex.Lexer
	Diags *diag.List
	Cfg   *conf.Config
	Tok   lex.Token
	Bad   bool

	braces int      // that are open
	brace  conf.Pos // of the last that opened
	fresh  bool     // the token at hand is the first of its line
	long   int      // the line where a string begins that goes over its end, or 0
	doc    []string // comments for the next statement
}

// New returns a reader of the named file, and of what it includes, through open.
// macros are those of the command line. The caller sets Grammar before Run.
func New(open lex.Opener, name string, macros map[string]string) *Reader {
	diags := new(diag.List)
	return &Reader{Lex: lex.New(open, name, macros, diags), Diags: diags, Cfg: new(conf.Config)}
}

// Run reads everything. Comments after the last statement become the trailer;
// macros that were not used are noted.
func (p *Reader) Run() {
	p.Advance()
	for p.Tok.Kind != lex.EOF {
		p.next()
	}
	p.Cfg.Trailer = p.doc
	p.Lex.Unused(func(name string, pos conf.Pos) {
		p.Diags.Add(diag.Diag{Severity: diag.Note, Pos: pos, Message: "macro '" + name + "' not used"})
	})
}
