package legacy

import (
	"fmt"
	"strings"

	"opensmtpd/src/conf"
)

// A scheme is how a url of an old grammar is written today.
type scheme struct {
	now    string
	auth   bool
	backup bool
	either bool // smtps was tried first, and then STARTTLS
}

// mapSchemes are those of 5.2, tableSchemes those of 5.3 to 6.3, where smtp://
// was never encrypted. They are never written.
var (
	mapSchemes = map[string]scheme{
		"": {now: "smtp"}, "smtp": {now: "smtp"}, "smtps": {now: "smtps"}, "tls": {now: "smtp+tls"},
		"smtps+auth": {now: "smtps", auth: true}, "tls+auth": {now: "smtp+tls", auth: true},
		"ssl": {now: "smtps", either: true}, "ssl+auth": {now: "smtps", auth: true, either: true},
	}
	tableSchemes = map[string]scheme{
		"": {now: "smtp"}, "smtp": {now: "smtp+notls"}, "smtp+tls": {now: "smtp"}, "lmtp": {now: "lmtp"},
		"smtps": {now: "smtps"}, "tls": {now: "smtp+tls"},
		"smtps+auth": {now: "smtps", auth: true}, "tls+auth": {now: "smtp+tls", auth: true},
		"ssl": {now: "smtps", either: true}, "ssl+auth": {now: "smtps", auth: true, either: true},
		"secure": {now: "smtps", either: true}, "secure+auth": {now: "smtps", auth: true, either: true},
		"backup": {now: "smtp", backup: true}, "tls+backup": {now: "smtp+tls", backup: true},
	}
)

// eitherMessage is what is said of ssl and secure.
const eitherMessage = "%s tried SMTPS and then STARTTLS; this is SMTPS alone"

// url turns the url of relay via into today's, in a. A label is the key of the
// credentials: in the map grammar it was the host's name.
func (p *parser) url(a *conf.Action, s string, pos conf.Pos) scheme {
	schemes := tableSchemes
	if p.dialect == Maps {
		schemes = mapSchemes
	}
	word, rest, found := strings.Cut(s, "://")
	if !found {
		word, rest = "", s
	}
	sc, known := schemes[strings.ToLower(word)]
	if !known {
		p.Complain(pos, "invalid url: %s: %q is no scheme of this grammar", s, word)
		return sc
	}
	label, host, labelled := strings.Cut(rest, "@")
	if !labelled {
		label, host = "", rest
	}
	switch {
	case labelled && !sc.auth:
		p.Complain(pos, "invalid url: %s: a label needs %s+auth://", s, orWord(word, "tls"))
		return sc
	case sc.auth && !labelled && p.dialect == Tables:
		p.Complain(pos, "invalid url: %s: a label must say which credentials, as in %s://label@%s", s, word, host)
		return sc
	case sc.auth && !labelled:
		label = hostOf(host)
	}
	if sc.either {
		p.either(pos, strings.TrimSuffix(word, "+auth"))
	}
	if sc.backup {
		a.Backup, a.BackupMX = true, host
		return sc
	}
	a.Host = sc.now + "://" + host
	if label != "" {
		a.Host = sc.now + "://" + label + "@" + host
	}
	if _, err := conf.ParseRelay(a.Host); err != nil {
		p.Complain(pos, "invalid url: %s: %v", s, err)
		a.Host = ""
	}
	return sc
}

func (p *parser) either(pos conf.Pos, word string) {
	p.warn(pos, "if the server has no port 465, write tls", fmt.Sprintf(eitherMessage, word))
}

func orWord(word, other string) string {
	if word == "" {
		return other
	}
	return word
}

// hostOf leaves out the port.
func hostOf(s string) string {
	if strings.HasPrefix(s, "[") {
		s, _, _ = strings.Cut(s[1:], "]")
		return s
	}
	host, _, _ := strings.Cut(s, ":")
	return host
}
