package native

import (
	"strconv"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

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
