package legacy

import (
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/syntax"
)

// mapRelay reads what follows RELAY.
func (p *parser) mapRelay(r *rule, a *conf.Action) {
	pos := p.Tok.Pos
	switch {
	case p.Skip("backup"):
		p.Once(&a.Node, "backup", pos)
		a.Backup, a.BackupMX = true, p.Str("the name of a mail exchanger")
	case p.Skip("via"):
		p.mapVia(r, a, pos)
	}
	p.relayAs(a)
}

// relayAs reads as ADDRESS.
func (p *parser) relayAs(a *conf.Action) {
	pos := p.Tok.Pos
	if p.Skip("as") {
		p.Once(&a.Node, "mail-from", pos)
		a.MailFrom = p.address()
	}
}

// via is what the words of relay via say.
type via struct {
	host, port string
	word       string // tls, smtps or ssl
	wordPos    conf.Pos
	cert       string
	certPos    conf.Pos
	auth       bool
	authPos    conf.Pos
	secrets    conf.TableRef
}

// mapVia reads [tls|smtps|ssl] HOST [port P] [tls|smtps|ssl] [certificate C]
// [enable auth | auth M], in any order, or a url.
func (p *parser) mapVia(r *rule, a *conf.Action, pos conf.Pos) {
	var v via
	p.viaTLS(&v)
	at := p.Tok.Pos
	v.host = p.Str("a host name or a url")
	syntax.Mark(&a.Node, "host", pos)
	syntax.Mark(&a.Node, "url", at)
	for p.More() && p.viaOption(&v) {
	}
	if p.Bad {
		return
	}
	if v.cert != "" {
		a.PKI = p.pkiOf(v.cert, r.Pos, v.certPos)
		syntax.Mark(&a.Node, "pki", v.certPos)
	}
	p.viaURL(a, &v, at)
}

// viaTLS reads how the connection is encrypted.
func (p *parser) viaTLS(v *via) bool {
	pos, word := p.Tok.Pos, p.Tok.Text
	if !p.Skip("tls") && !p.Skip("smtps") && !p.Skip("ssl") && !p.Skip("ssmtp") {
		return false
	}
	if v.word != "" {
		p.Complain(pos, "TLS mode already specified")
	}
	if word == "ssmtp" {
		word = "smtps"
	}
	v.word, v.wordPos = word, pos
	return true
}

func (p *parser) viaOption(v *via) bool {
	pos := p.Tok.Pos
	switch {
	case p.viaTLS(v):
	case p.Skip("port"):
		v.port = p.viaPort()
	case p.word("certificate"), p.word("use"):
		p.Skip("use")
		p.Want("certificate")
		v.certPos = p.Tok.Pos
		v.cert = p.Str("the name of a certificate")
	case p.Skip("enable"):
		p.Want("auth")
		v.auth, v.authPos = true, pos
	case p.Skip("auth"):
		v.auth, v.authPos = true, p.Tok.Pos
		v.secrets = conf.TableRef(p.mapName())
	default:
		return false
	}
	return true
}

// ports are the services that a relay may be given. It is never written.
var ports = map[string]string{"smtp": "25", "smtps": "465", "ssmtp": "465", "submission": "587", "submissions": "465", "lmtp": "24"}

// viaPort reads a port: a url has a number.
func (p *parser) viaPort() string {
	pos := p.Tok.Pos
	s := p.Port()
	if n := ports[s]; n != "" {
		return n
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			p.Fail(pos, "write its number", "port %s is not known here", s)
		}
	}
	return s
}

// viaURL makes the url and the credentials of a relay.
func (p *parser) viaURL(a *conf.Action, v *via, pos conf.Pos) {
	s := v.host
	plain := !containsScheme(s)
	if plain && v.word == "" && (v.auth || v.cert != "") {
		at := v.authPos
		if !v.auth {
			at = v.certPos
		}
		p.Complain(at, "must specify tls, smtps, or ssl")
		return
	}
	if plain {
		word := v.word
		if v.word == "" {
			word = "smtp"
		}
		if v.auth {
			word += "+auth"
		}
		s = word + "://" + s
		if v.port != "" {
			s += ":" + v.port
		}
	}
	if sc := p.url(a, s, pos); sc.auth || v.auth {
		p.credentials(a, v, pos)
	}
}

// credentials gives a relay its map of passwords: secrets, when none is named.
func (p *parser) credentials(a *conf.Action, v *via, pos conf.Pos) {
	at := v.authPos
	if at.IsZero() {
		at = pos
	}
	if a.AuthTable = v.secrets; a.AuthTable == "" {
		a.AuthTable = "secrets"
	}
	p.secrets = append(p.secrets, secretUse{a, at})
	syntax.Mark(&a.Node, "auth", at)
	syntax.Mark(&a.Node, conf.TablePart("auth"), at)
}
