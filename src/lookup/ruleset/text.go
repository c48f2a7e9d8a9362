package ruleset

import (
	"strings"

	"opensmtpd/src/conf/project"
)

// text writes a rule as a line of smtpd.conf(5).
func text(m *project.Match) string {
	var b strings.Builder
	b.WriteString("match")
	tag := m.Tag
	tag.Set = tag.Set && tag.Table != ""
	part(&b, "tag", tag)
	m.From.Set, m.For.Set = true, true
	part(&b, fromWords[m.FromKind], m.From)
	part(&b, forWords[m.ForKind], m.For)
	part(&b, "helo", m.Helo)
	part(&b, "auth", m.Auth)
	part(&b, "tls", m.TLS)
	part(&b, "mail-from", m.MailFrom)
	part(&b, "rcpt-to", m.RcptTo)
	if m.Reject {
		b.WriteString(" reject")
	} else {
		b.WriteString(" action " + m.Action)
	}
	return b.String()
}

func part(b *strings.Builder, word string, c project.Cond) {
	if !c.Set {
		return
	}
	b.WriteByte(' ')
	if c.Not {
		b.WriteByte('!')
	}
	b.WriteString(word)
	if c.Regex {
		b.WriteString(" regex")
	}
	if c.Table != "" {
		b.WriteString(" " + tableText(c.Table))
	}
}

// tableText is a table as a rule names it; those written in the rule have a name
// of our own in angle brackets already.
func tableText(name string) string {
	if strings.HasPrefix(name, "<") {
		return name
	}
	return "<" + name + ">"
}
