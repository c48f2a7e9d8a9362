// Package native reads the grammar of smtpd.conf that OpenSMTPD has since 6.4.
// It is the syntax pass: a statement becomes a node of the model with the place
// of each of its parts, an error is reported and the rest of its statement
// skipped. What names mean is looked at afterwards, by package check.
//
// The grammar, one statement a line; STRING is a bare word that is not reserved
// or a quoted string, T is STRING | "<" STRING ">" | "{" list "}":
//
//	include STRING
//	STRING = STRING                                        macro
//	action STRING mbox | expand-only | forward-only | maildir [STRING] [junk]
//	    | mda STRING | lmtp STRING [rcpt-to]
//	        { alias T | virtual T | userbase T | user STRING | wrapper STRING | ttl DELAY }
//	action STRING relay { helo STRING | helo-src T | src T | mail-from STRING
//	    | host T | domain T | backup [mx STRING] | auth T | tls [no-verify]
//	    | pki STRING | ca STRING | ciphers STRING | protocols STRING
//	    | filter F | srs | ttl DELAY }
//	admd STRING
//	bounce warn-interval DELAY { , DELAY }
//	ca STRING cert STRING
//	filter STRING chain F | proc STRING | proc-exec STRING PROCOPT | phase PHASE match [!] COND DECISION
//	listen on STRING { option } | socket { option }
//	match { [!] option } action STRING | reject
//	mda wrapper STRING STRING | limit { STRING NUMBER }
//	mta max-deferred NUMBER | limit [for domain STRING] { STRING NUMBER | inet4 | inet6 }
//	pki STRING { cert STRING | key STRING | dhe STRING }
//	proc STRING STRING { user STRING | group STRING | chroot STRING }
//	queue compression | encryption [STRING] | ttl DELAY
//	scheduler limit { STRING NUMBER }
//	smtp ciphers STRING | limit { STRING NUMBER } | max-message-size SIZE | sub-addr-delim STRING
//	srs key [backup] STRING | ttl DELAY
//	table STRING STRING | { STRING … } | { STRING = STRING … }
package native

import (
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// Parse reads the named file, and what it includes, through open. macros are
// those of the command line. The configuration is returned even when diags has
// errors, so that one run can find the rest of them.
func Parse(open lex.Opener, name string, macros map[string]string) (*conf.Config, *diag.List) {
	diags := new(diag.List)
	p := &parser{lex: lex.New(open, name, macros, diags), diags: diags, cfg: new(conf.Config)}
	p.advance()
	for p.tok.Kind != lex.EOF {
		p.statement()
	}
	p.cfg.Trailer = p.doc
	p.lex.Unused(func(name string, pos conf.Pos) {
		diags.Add(diag.Diag{Severity: diag.Note, Pos: pos, Message: "macro '" + name + "' not used"})
	})
	conf.NameInline(p.cfg)
	return p.cfg, diags
}

// parser holds one token ahead. After an error bad is set and everything but
// the recovery does nothing.
type parser struct {
	lex    *lex.Lexer
	diags  *diag.List
	cfg    *conf.Config
	tok    lex.Token
	bad    bool
	braces int      // that are open
	brace  conf.Pos // of the last that opened
	fresh  bool     // the token at hand is the first of its line
	doc    []string // comments for the next statement
}

func (p *parser) advance() {
	if p.tok.Kind == lex.Punct {
		switch p.tok.Text {
		case "{":
			p.braces++
			p.brace = p.tok.Pos
		case "}":
			p.braces = max(0, p.braces-1)
		}
	}
	p.fresh = p.tok.Kind == lex.Newline
	p.tok = p.lex.Next()
	// A path in a macro need not be quoted twice; OpenSMTPD wants that.
	if p.tok.Kind == lex.Punct && p.tok.Macro != "" && !strings.Contains("{}<>()!=,$", p.tok.Text) {
		p.tok = p.lex.Whole(p.tok)
	}
}

// runaway tells whether a brace was forgotten: the line begins like a statement.
func (p *parser) runaway() bool {
	return p.braces > 0 && p.fresh && p.tok.Kind == lex.Word && slices.Contains(statementWords, p.tok.Text)
}

// statement reads one line, be it empty.
func (p *parser) statement() {
	p.bad, p.braces = false, 0
	if p.tok.Kind == lex.Newline {
		p.takeComment()
		p.advance()
		return
	}
	node := conf.Node{Pos: p.tok.Pos, Doc: p.doc}
	p.doc = nil
	n := p.body(&node)
	if !p.bad && p.tok.Kind != lex.Newline && p.tok.Kind != lex.EOF {
		p.unexpected("the end of the statement")
	}
	if p.bad {
		p.recover()
	}
	// Comments inside the statement come before it, the one that ends it stays.
	if n == nil {
		p.doc = slices.Concat(node.Doc, p.doc)
		p.takeComment()
	} else {
		n.Doc = slices.Concat(n.Doc, p.doc)
		p.doc = nil
		p.endComment(n)
		n.Bad = n.Bad || p.bad
	}
	if p.tok.Kind == lex.Newline {
		p.advance()
	}
}

// takeComment keeps the comment of the newline at hand for the next statement.
func (p *parser) takeComment() {
	if p.tok.Comment != "" {
		p.doc = append(p.doc, commentLines(p.tok.Comment)...)
	}
	p.tok.Comment = ""
}

// endComment gives the comment of the newline at hand to the statement that it
// ends; a second one, of a statement joined to the first, goes above it.
func (p *parser) endComment(n *conf.Node) {
	lines := commentLines(p.tok.Comment)
	p.tok.Comment = ""
	switch {
	case len(lines) == 1 && n.Comment == "":
		n.Comment = lines[0]
	default:
		n.Doc = append(n.Doc, lines...)
	}
}

// commentLines splits a comment that was continued over lines, so that each line
// can be printed as one.
func commentLines(c string) []string {
	if c == "" {
		return nil
	}
	lines := strings.Split(c, "\n")
	for i, line := range lines {
		if i > 0 {
			line = strings.TrimLeft(line, " \t")
			if !strings.HasPrefix(line, "#") {
				line = "# " + line
			}
		}
		line = strings.TrimRight(line, " \t\r\v\f")
		// A backslash at the end would take the next line in.
		if bare := strings.TrimRight(line, "\\"); (len(line)-len(bare))%2 == 1 {
			line = strings.TrimRight(line[:len(line)-1], " \t\r\v\f")
		}
		lines[i] = line
	}
	return lines
}

// recover skips the rest of a statement. Inside braces that is up to the closing
// one, unless a line begins like a statement before that.
func (p *parser) recover() {
	for p.tok.Kind != lex.EOF {
		switch {
		case p.runaway():
			// The statement at hand has no newline before it any more.
			p.pushNewline()
			return
		case p.tok.Kind == lex.Newline && p.braces == 0:
			return
		case p.tok.Kind == lex.Newline:
			p.takeComment()
		}
		p.advance()
	}
}

// pushNewline ends the statement before the token at hand.
func (p *parser) pushNewline() {
	p.braces = 0
	p.lex.Unread(p.tok)
	p.tok = lex.Token{Kind: lex.Newline, Pos: p.tok.Pos}
}

// body reads a statement up to its newline and returns the node that keeps its
// comments, or nil when there is none.
func (p *parser) body(n *conf.Node) *conf.Node {
	switch {
	case p.tok.Kind == lex.Invalid:
		p.bad = true
		return nil
	case p.tok.Kind == lex.Word && statement(p.tok.Text) != nil:
		parse := statement(p.tok.Text)
		p.advance()
		return parse(p, *n)
	case p.tok.Kind == lex.Quoted, p.tok.Kind == lex.Word:
		return p.macro(*n)
	}
	p.unexpected("a statement")
	return nil
}

// parseFunc reads what follows the first word of a statement. It returns the
// node of what it put into the configuration, or nil.
type parseFunc func(*parser, conf.Node) *conf.Node

// statement returns the function for the statement that begins with word, or nil.
func statement(word string) parseFunc {
	switch word {
	case "action":
		return (*parser).action
	case "admd":
		return (*parser).admd
	case "bounce":
		return (*parser).bounce
	case "ca":
		return (*parser).ca
	case "filter":
		return (*parser).filter
	case "include":
		return (*parser).include
	case "listen":
		return (*parser).listen
	case "match":
		return (*parser).match
	case "mda":
		return (*parser).mda
	case "mta":
		return (*parser).mta
	case "pki":
		return (*parser).pki
	case "proc":
		return (*parser).proc
	case "queue":
		return (*parser).queue
	case "scheduler":
		return (*parser).scheduler
	case "smtp":
		return (*parser).smtp
	case "srs":
		return (*parser).srs
	case "table":
		return (*parser).table
	}
	return nil
}

// statementWords are the words that statement knows, for hints.
var statementWords = []string{"action", "admd", "bounce", "ca", "filter",
	"include", "listen", "match", "mda", "mta", "pki", "proc", "queue",
	"scheduler", "smtp", "srs", "table"}

// include reads the file named; its statements stand in place of this one.
func (p *parser) include(n conf.Node) *conf.Node {
	pos := p.tok.Pos
	name := p.str("the path of a file")
	if p.bad || p.tok.Kind != lex.Newline && p.tok.Kind != lex.EOF {
		return nil
	}
	if !p.lex.Include(name, pos) {
		p.bad = true
	}
	return nil
}

// macro reads NAME = "value".
func (p *parser) macro(n conf.Node) *conf.Node {
	name := p.tok
	p.advance()
	if p.tok.Kind != lex.Punct || p.tok.Text != "=" {
		p.unknownStatement(name)
		return nil
	}
	if name.Kind == lex.Word && conf.Reserved(name.Text) {
		p.fail(name.Pos, "", "%q is a reserved word and cannot name a macro", name.Text)
		return nil
	}
	p.advance()
	value := p.text("a string")
	if p.bad {
		return nil
	}
	if i := strings.IndexFunc(name.Text, notMacro); i >= 0 || name.Text == "" {
		p.fail(name.Pos, "a macro's name has letters, digits and underscores", "%q cannot name a macro", name.Text)
		return nil
	}
	m := &conf.Macro{Node: n, Name: name.Text, Value: value}
	p.cfg.Macros = append(p.cfg.Macros, m)
	p.lex.Define(name.Text, value, name.Pos)
	return &m.Node
}

// notMacro tells whether $name would end before r.
func notMacro(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
