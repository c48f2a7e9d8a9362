package legacy

import (
	"strings"

	"opensmtpd/src/conf/lex"
)

// begins tells which grammars have a statement that begins with a word; words
// that are not in it tell nothing. It is never written.
var begins = map[string]releases{
	"map": inMaps, "hostname": inMaps, "size": inMaps, "ssmtp": inMaps, "smtps": inMaps,
	"accept": inOld, "reject": inOld, "expire": inOld,
	"table": inNew, "pki": inNew, "ca": inNew, "filter": inNew,
	"bounce-warn": inTables, "max-message-size": inTables, "limit": inTables, "enqueuer": inTables,
	"max-mta-deferred": inTables, "subaddressing-delimiter": inTables, "ciphers": inTables,
	"curve": inTables, "filterchain": inTables,
	"action": inModern, "match": inModern, "admd": inModern, "bounce": inModern, "mda": inModern,
	"mta": inModern, "proc": inModern, "scheduler": inModern, "smtp": inModern, "srs": inModern,
}

// options tells which grammars have a word inside a statement, by the
// statement's first word. It is never written.
var options = map[string]map[string]releases{
	"listen": {
		"enable": inMaps, "use": inMaps, "certificate": inOld,
		"ssl": inTables, "secure": inTables, "mask-source": inTables, "dsn-notify": inTables, "dsn-ret": inTables,
		"pki": inNew, "ca": inNew, "hostname": inNew, "hostnames": inNew, "inet4": inNew, "inet6": inNew,
		"filter": inNew, "no-dsn": inNew, "received-auth": inNew, "senders": inNew, "socket": inNew, "verify": inNew,
		"mask-src": inModern, "proxy-v2": inModern, "ciphers": inModern, "protocols": inModern,
	},
	"accept": {
		"all": inMaps, "map": inMaps, "network": inMaps, "enable": inMaps, "on": inMaps, "tag": inMaps,
		"use": inMaps, "ssmtp": inMaps, "port": inMaps, "ssl": inMaps,
		"tagged": inTables, "sender": inTables, "recipient": inTables, "userbase": inTables, "source": inTables,
		"forward-only": inTables, "verify": inTables, "pki": inTables, "hostname": inTables, "hostnames": inTables,
		"helo": inTables, "authenticated": inTables, "lmtp": inTables, "rcpt-to": inTables,
	},
	"pki": {"certificate": inTables, "dhparams": inTables, "ca": inTables, "cert": inModern},
	"ca":  {"certificate": inTables, "cert": inModern},
	"queue": {
		"interval": inMaps, "key": inTables, "ttl": inModern,
	},
}

// words looks at a statement that begins with the word first.
func (s *scanner) words(first lex.Token, rest []lex.Token) {
	if in, ok := begins[first.Text]; ok {
		s.begins = append(s.begins, clue{in, first.Pos, first.Text})
	}
	kind := first.Text
	switch kind {
	case "reject":
		kind = "accept"
	case "filter":
		s.filter(rest)
		return
	case "queue":
		if len(rest) == 2 && rest[0].Text == "compression" {
			s.add(inMaps, rest[1])
		}
	case "pki", "ca":
		rest = rest[min(1, len(rest)):] // the name
	}
	for i, t := range rest {
		prev := first
		if i > 0 {
			prev = rest[i-1]
		}
		s.option(kind, prev, t, rest[i+1:])
	}
}

// filter tells the programs of 5.4 to 5.9 from today's filters.
func (s *scanner) filter(rest []lex.Token) {
	if len(rest) < 2 {
		return
	}
	brace := len(rest) > 2 && rest[2].Kind == lex.Punct
	switch how := rest[1]; {
	case how.Kind == lex.Word && (how.Text == "phase" || how.Text == "proc" || how.Text == "proc-exec"):
		s.add(inModern, how)
	case how.Kind == lex.Word && how.Text == "chain" && brace:
		s.add(inModern, how)
	default:
		s.add(inTables, how)
	}
}

// option looks at the token t inside a statement, after prev and before next.
func (s *scanner) option(kind string, prev, t lex.Token, next []lex.Token) {
	if kind == "accept" {
		s.ruleToken(prev, t, next)
	}
	// What follows these words is a name, even if it looks like an option.
	if t.Kind != lex.Word || prev.Kind == lex.Word && named[prev.Text] {
		return
	}
	if in, ok := options[kind][t.Text]; ok {
		s.add(in, t)
	}
}

// named are words that a name follows. It is never written.
var named = map[string]bool{
	"as": true, "user": true, "via": true, "tag": true, "tagged": true, "certificate": true,
	"map": true, "alias": true, "cert": true, "key": true, "hostname": true,
}

// ruleToken looks at what only rules have: punctuation, names of maps, urls.
func (s *scanner) ruleToken(prev, t lex.Token, next []lex.Token) {
	if t.Kind == lex.Punct {
		switch t.Text {
		case "(":
			s.add(inMaps, t)
		case "<", "!":
			s.add(inTables, t)
		}
		return
	}
	if prev.Kind != lex.Word || t.Kind != lex.Word && t.Kind != lex.Quoted {
		return
	}
	keyword := t.Kind == lex.Word
	switch prev.Text {
	case "alias", "auth":
		s.add(inMaps, t) // a name; later <t> or { … }
	case "for":
		switch {
		case !keyword:
			s.add(inMaps, t)
		case t.Text == "virtual":
			s.add(inMaps, t)
		}
	case "via":
		s.via(t, next)
	}
}

// via looks at what follows relay via: later urls of other schemes have a label.
func (s *scanner) via(t lex.Token, next []lex.Token) {
	scheme, rest, url := strings.Cut(t.Text, "://")
	switch {
	case t.Kind == lex.Word && (t.Text == "tls" || t.Text == "smtps"):
		s.add(inMaps, t)
	case url && strings.HasSuffix(scheme, "+auth") && strings.Contains(rest, "@"):
		s.add(inTables, t)
	case url && strings.HasSuffix(scheme, "+auth"), url && scheme == "ssl" && strings.Contains(rest, "@"):
		s.add(inMaps, t)
	case !url && len(next) > 0 && next[0].Kind == lex.Word && (next[0].Text == "tls" || next[0].Text == "smtps"):
		s.add(inMaps, next[0])
	}
}
