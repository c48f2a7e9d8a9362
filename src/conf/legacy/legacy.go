// Package legacy reads the two grammars that smtpd.conf had before OpenSMTPD 6.4
// into the model of today's:
//
//	maps    4.6 to 5.2.1: map NAME { source db "…" }, accept for all relay via H tls
//	tables  5.3 to 6.3: table NAME db:…, accept from source <T> for any relay via URL
//
// Every statement means what it meant. What today's grammar says in another way
// becomes that: a rule is a match and an action with a generated name; a user who
// authenticated is local to every rule, so that such rules get a twin for
// authenticated senders; certificates by name become pki statements. What cannot
// be kept is told at its line.
//
// Files from the years between two releases mix words of both: each grammar takes
// what any release of its time took, and options in any order.
package legacy

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// Options is what Parse needs beside the file.
type Options struct {
	// Host returns the name of this host, for `as USER` without a domain.
	Host func() string
}

// Parse reads the named file, and what it includes, in the grammar of d, which
// must be Maps or Tables. The configuration is returned even when diags has
// errors.
func Parse(d Dialect, open lex.Opener, name string, macros map[string]string, o Options) (*conf.Config, *diag.List) {
	p := &parser{Reader: syntax.New(open, name, macros), dialect: d, opt: o}
	g := syntax.Grammar{Statement: p.statement, Unknown: p.unknown}
	if d == Maps {
		g.Statements, g.Reserved = mapStatements, func(w string) bool { return mapReserved[w] }
		g.ReservedMacros = true // files of 2008 have a macro named local, from before it was a keyword
	} else {
		g.Statements, g.Reserved = tableStatements, func(w string) bool { return tableReserved[w] }
	}
	p.Grammar = g
	p.Run()
	p.finish()
	conf.NameInline(p.Cfg)
	return p.Cfg, p.Diags
}

// parser is a reader of one of the grammars. Rules are gathered, and turned into
// matches and actions at the end, when maps and listeners are known.
type parser struct {
	*syntax.Reader
	dialect  Dialect
	opt      Options
	rules    []*rule
	hostname conf.Text // of the map grammar's hostname statement
	secrets  []secretUse
	listens  []*listening // of the table grammar
}

func (p *parser) statement(word string, n conf.Node) (*conf.Node, bool) {
	parse := tableStatement(word)
	if p.dialect == Maps {
		parse = mapStatement(word)
	}
	if parse == nil {
		return nil, false
	}
	p.Advance()
	return parse(p, n), true
}

// parseFunc reads what follows the first word of a statement.
type parseFunc func(*parser, conf.Node) *conf.Node

// unknown fails at the first word of a line that is no statement.
func (p *parser) unknown(first lex.Token) {
	hint := ""
	if near := diag.Near(first.Text, p.Statements); near != "" {
		hint = "did you mean \"" + near + "\"?"
	}
	if first.Kind == lex.Word && p.Reserved(first.Text) {
		p.Fail(first.Pos, hint, "the reserved word %q begins no statement", first.Text)
		return
	}
	p.Fail(first.Pos, hint, "unknown statement %q", first.Text)
}

// warn tells what cannot be kept as it was.
func (p *parser) warn(pos conf.Pos, hint, message string) {
	p.Diags.Add(diag.Diag{Severity: diag.Warning, Pos: pos, Message: message, Hint: hint})
}

// word tells whether the bare word w is at hand.
func (p *parser) word(w string) bool {
	return !p.Bad && p.Tok.Kind == lex.Word && p.Tok.Text == w
}

// optional reads a string unless one of the words stands there, which go on with
// the statement.
func (p *parser) optional(what string, words ...string) (string, bool) {
	if p.Bad || !p.IsString() {
		return "", false
	}
	for _, w := range words {
		if p.word(w) {
			return "", false
		}
	}
	return p.Str(what), true
}

// address reads the sender that a relay writes: user@domain, @domain, or a user
// of this host.
func (p *parser) address() string {
	pos := p.Tok.Pos
	s := p.Str("an address")
	if p.Bad {
		return ""
	}
	switch user, domain, found := strings.Cut(s, "@"); {
	case found && domain != "":
		return s
	case user == "":
		p.Complain(pos, "invalid parameter to AS: %s", s)
		return ""
	default:
		host := p.opt.Host()
		p.warn(pos, "", "the sender's domain is this host: "+user+"@"+host)
		return user + "@" + host
	}
}

// containsScheme tells whether a host is a url.
func containsScheme(s string) bool { return strings.Contains(s, "://") }

// secretUse is a relay that finds its password in a map by its name.
type secretUse struct {
	action *conf.Action
	pos    conf.Pos
}

// checkSecrets tells which map is missing, and finds the place of the others.
func (p *parser) checkSecrets() {
	for _, u := range p.secrets {
		name := string(u.action.AuthTable)
		t := p.table(name)
		if t == nil && name == "secrets" {
			p.Diags.Add(diag.Diag{Severity: diag.Error, Pos: u.pos,
				Message: "authentication needs the map secrets, whose keys are host names and whose values user:password",
				Hint:    `map secrets { source db "/etc/mail/secrets.db" }`})
			u.action.Bad = true
		} else if t != nil {
			u.action.At[conf.TablePart("auth")] = t.Pos
		}
	}
}
