package native

import (
	"strconv"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// An oldWord is how a statement began before OpenSMTPD 6.4.
type oldWord struct{ era, now string }

// oldStatements is never written.
var oldStatements = map[string]oldWord{
	"accept":                  {"4.6 to 6.3", "since 6.4: action NAME METHOD …, and match … action NAME"},
	"reject":                  {"4.6 to 6.3", "since 6.4: match … reject"},
	"map":                     {"4.6 to 5.2", "since 5.3: table NAME type:path, or table NAME { … }"},
	"hostname":                {"4.6", "today: the file mailname, or listen on … hostname NAME"},
	"expire":                  {"4.8 to 6.3", "since 6.4: queue ttl DELAY"},
	"size":                    {"4.8 to 5.2", "since 6.4: smtp max-message-size SIZE"},
	"max-message-size":        {"5.3 to 6.3", "since 6.4: smtp max-message-size SIZE"},
	"bounce-warn":             {"5.3 to 6.3", "since 6.4: bounce warn-interval DELAY, …"},
	"limit":                   {"5.4 to 6.3", "since 6.4: mta limit, mda limit, scheduler limit or smtp limit"},
	"enqueuer":                {"5.7 to 5.8", "since 6.4: listen on socket filter NAME"},
	"subaddressing-delimiter": {"6.0 to 6.3", "since 6.4: smtp sub-addr-delim CHARACTER"},
	"ssmtp":                   {"4.5", "since 6.4: listen on … smtps pki NAME"},
	"smtps":                   {"4.5", "since 6.4: listen on … smtps pki NAME"},
	"max-mta-deferred":        {"5.4 to 6.3", "since 6.4: mta max-deferred NUMBER"},
}

// renamed are words of older grammars inside statements, and what to write now.
// It is never written.
var renamed = map[string]string{
	"as":            "mail-from ADDRESS, or user NAME",
	"authenticated": "auth",
	"certificate":   "pki NAME, with the files in pki statements",
	"deliver":       "an action, which match names",
	"enable":        "auth",
	"mask-source":   "mask-src",
	"recipient":     "rcpt-to",
	"secure":        "tls-require",
	"sender":        "mail-from",
	"source":        "src",
	"ssl":           "tls or smtps",
	"starttls":      "tls",
	"tagged":        "tag",
	"via":           "host URL",
}

// unknownStatement fails at the first word of a line that is no statement.
func (p *parser) unknownStatement(first lex.Token) {
	if old, ok := oldStatements[first.Text]; ok && first.Kind == lex.Word {
		p.Fail(first.Pos, old.now,
			"%q begins a statement in the grammar of OpenSMTPD %s, which is not supported here", first.Text, old.era)
		return
	}
	hint := ""
	if near := diag.Near(first.Text, statementWords); near != "" {
		hint = "did you mean " + strconv.Quote(near) + "?"
	}
	switch {
	case first.Kind == lex.Word && conf.Reserved(first.Text):
		p.Fail(first.Pos, hint, "the reserved word %q begins no statement", first.Text)
	default:
		p.Fail(first.Pos, hint, "unknown statement %q", first.Text)
	}
}
