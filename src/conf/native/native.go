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
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// Parse reads the named file, and what it includes, through open. macros are
// those of the command line. The configuration is returned even when diags has
// errors, so that one run can find the rest of them.
func Parse(open lex.Opener, name string, macros map[string]string) (*conf.Config, *diag.List) {
	p := &parser{syntax.New(open, name, macros)}
	p.Grammar = syntax.Grammar{
		Statements: statementWords, Statement: p.statement, Unknown: p.unknownStatement,
		Reserved: conf.Reserved, Renamed: renamed,
	}
	p.Run()
	conf.NameInline(p.Cfg)
	return p.Cfg, p.Diags
}

// parser is a reader of this grammar.
type parser struct{ *syntax.Reader }

func (p *parser) statement(word string, n conf.Node) (*conf.Node, bool) {
	parse := statement(word)
	if parse == nil {
		return nil, false
	}
	p.Advance()
	return parse(p, n), true
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
		return func(p *parser, n conf.Node) *conf.Node { return p.Include(n) }
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
		return func(p *parser, n conf.Node) *conf.Node { return p.Table(n) }
	}
	return nil
}

// statementWords are the words that statement knows, for hints.
var statementWords = []string{"action", "admd", "bounce", "ca", "filter",
	"include", "listen", "match", "mda", "mta", "pki", "proc", "queue",
	"scheduler", "smtp", "srs", "table"}
