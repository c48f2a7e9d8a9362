package legacy

import (
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// tableListen reads ON interface | SOCKET options.
func (p *parser) tableListen(n conf.Node) *conf.Node {
	l := &listening{Listen: &conf.Listen{Node: n}}
	p.Want("on")
	syntax.Mark(&l.Node, "on", p.Tok.Pos)
	if l.Socket = p.Skip("socket"); !l.Socket {
		l.On = p.Str("an interface, an address, a host name or socket")
	}
	if p.Bad {
		return nil
	}
	p.Cfg.Listens = append(p.Cfg.Listens, l.Listen)
	for p.More() {
		p.listenOption(l)
	}
	if p.Bad {
		return &l.Node
	}
	if l.cert != "" {
		p.certificate(l.Listen, l.cert, l.Place("certificate"))
	}
	p.listens = append(p.listens, l)
	if !l.both {
		return &l.Node
	}
	// secure is both: STARTTLS on the port of smtp, and smtps.
	if l.Port != "" {
		p.Complain(l.Place("port"), "invalid listen option: tls/smtps on same port")
		return &l.Node
	}
	second := *l.Listen
	second.Node = conf.Node{Pos: n.Pos, At: cloneAt(l.At)}
	second.TLS = conf.SMTPS
	second.PKIs = slices.Clone(l.PKIs)
	p.Cfg.Listens = append(p.Cfg.Listens, &second)
	p.listens = append(p.listens, &listening{Listen: &second})
	return &l.Node
}

// listening is a listener with what is settled when all is read.
type listening struct {
	*conf.Listen
	cert string // of 5.3
	both bool   // STARTTLS and SMTPS
}

// mode sets how a listener speaks TLS.
func (p *parser) mode(l *listening, m conf.TLSMode, pos conf.Pos) {
	p.Once(&l.Node, "TLS mode", pos)
	l.TLS = m
	if m != conf.StartTLS && p.Skip("verify") {
		l.TLSVerify = true
	}
}

// listenOption reads an option of a listener.
func (p *parser) listenOption(l *listening) {
	pos, word := p.Tok.Pos, p.Tok.Text
	if p.Tok.Kind != lex.Word {
		p.Unexpected("an option of listen on")
		return
	}
	read, ok := listenOptions[word]
	if !ok {
		var words []string
		for w := range listenOptions {
			words = append(words, w)
		}
		p.UnknownOption("listen on", words)
		return
	}
	p.Advance()
	if group := listenGroups[word]; group != "" {
		p.Once(&l.Node, group, pos)
	}
	read(p, l, pos)
}

// listenGroups maps options to what excludes them; TLS modes see to it
// themselves. It is never written.
var listenGroups = map[string]string{
	"inet4": "address family", "inet6": "address family", "port": "port", "certificate": "certificate",
	"ca": "ca", "auth": "auth", "auth-optional": "auth", "tag": "tag", "hostname": "hostname",
	"hostnames": "hostnames", "mask-source": "mask-source", "no-dsn": "no-dsn", "received-auth": "received-auth",
	"senders": "senders", "filter": "filter", "pki": "pki",
}

// listenOptions is never written.
var listenOptions = map[string]func(*parser, *listening, conf.Pos){
	"inet4":       func(_ *parser, l *listening, _ conf.Pos) { l.Family = conf.Inet4 },
	"inet6":       func(_ *parser, l *listening, _ conf.Pos) { l.Family = conf.Inet6 },
	"port":        func(p *parser, l *listening, _ conf.Pos) { l.Port = p.Port() },
	"smtps":       func(p *parser, l *listening, pos conf.Pos) { p.mode(l, conf.SMTPS, pos) },
	"tls":         func(p *parser, l *listening, pos conf.Pos) { p.mode(l, conf.StartTLS, pos) },
	"tls-require": func(p *parser, l *listening, pos conf.Pos) { p.mode(l, conf.StartTLSRequire, pos) },
	"ssl":         func(p *parser, l *listening, pos conf.Pos) { p.mode(l, conf.StartTLS, pos); l.both = true },
	"secure":      func(p *parser, l *listening, pos conf.Pos) { p.mode(l, conf.StartTLS, pos); l.both = true },
	"certificate": func(p *parser, l *listening, _ conf.Pos) { l.cert = p.Str("the name of a certificate") },
	"pki": func(p *parser, l *listening, pos conf.Pos) {
		name := strings.ToLower(p.Str("the name of a pki"))
		syntax.Mark(&l.Node, "pki "+name, pos)
		l.PKIs = []string{name}
	},
	"ca":            func(p *parser, l *listening, _ conf.Pos) { l.CA = strings.ToLower(p.Str("the name of a ca")) },
	"auth":          func(p *parser, l *listening, _ conf.Pos) { l.Auth = conf.AuthRequire; p.listenCredentials(l) },
	"auth-optional": func(p *parser, l *listening, _ conf.Pos) { l.Auth = conf.AuthOptional; p.listenCredentials(l) },
	"tag":           func(p *parser, l *listening, _ conf.Pos) { l.Tag = p.tag() },
	"hostname":      func(p *parser, l *listening, _ conf.Pos) { l.Hostname = p.Str("a host name") },
	"hostnames":     func(p *parser, l *listening, _ conf.Pos) { l.Hostnames = p.Ref(&l.Node, "hostnames") },
	"mask-source":   func(_ *parser, l *listening, _ conf.Pos) { l.MaskSrc = true },
	"received-auth": func(_ *parser, l *listening, _ conf.Pos) { l.RecvAuth = true },
	"no-dsn":        func(_ *parser, l *listening, _ conf.Pos) { l.NoDSN = true },
	"senders": func(p *parser, l *listening, _ conf.Pos) {
		l.Senders, l.Masquerade = p.Ref(&l.Node, "senders"), p.Skip("masquerade")
	},
	"filter": func(p *parser, _ *listening, pos conf.Pos) {
		p.Str("the name of a filter")
		p.warn(pos, "", "filters of OpenSMTPD 5 spoke another protocol and cannot run: mail is not filtered by this")
	},
	"dsn-notify": func(p *parser, _ *listening, pos conf.Pos) {
		p.Want("disable")
		p.warn(pos, "", "NOTIFY cannot be refused alone any more: no-dsn refuses all of DSN")
	},
	"dsn-ret": func(p *parser, _ *listening, pos conf.Pos) {
		p.Want("headers")
		p.warn(pos, "", "RET cannot be overridden any more: this does nothing")
	},
}

// listenCredentials reads the table of users, when there is one.
func (p *parser) listenCredentials(l *listening) {
	if p.IsPunct("<") || p.IsPunct("{") || p.Tok.Kind == lex.Quoted {
		l.AuthTable = p.Ref(&l.Node, "auth")
	}
}

// listenPKIs gives listeners that name no pki the one that they took: of their
// host name, else "*". Before there were any, certificates were named like the
// interface.
func (p *parser) listenPKIs() {
	for _, l := range p.listens {
		p.listenPKI(l.Listen)
		if l.CA == "" && l.TLSVerify && len(l.PKIs) == 1 {
			if slices.ContainsFunc(p.Cfg.CAs, func(c *conf.CA) bool { return c.Name == l.PKIs[0] }) {
				l.CA = l.PKIs[0] // pki NAME ca FILE
				l.At["ca"] = l.Place("pki")
			}
		}
	}
}

func (p *parser) listenPKI(l *conf.Listen) {
	if l.TLS == conf.NoTLS || len(l.PKIs) > 0 || l.Bad {
		return
	}
	if len(p.Cfg.PKIs) == 0 {
		p.certificateOf(l)
		return
	}
	for _, name := range []string{strings.ToLower(l.Hostname), strings.ToLower(p.opt.Host()), "*"} {
		if slices.ContainsFunc(p.Cfg.PKIs, func(k *conf.PKI) bool { return k.Name == name }) {
			l.PKIs = []string{name}
			break
		}
	}
	guessed := len(l.PKIs) == 0
	if guessed {
		l.PKIs = []string{p.Cfg.PKIs[0].Name}
	}
	pos := l.Place("TLS mode")
	syntax.Mark(&l.Node, "pki", pos)
	for _, k := range p.Cfg.PKIs {
		if k.Name == l.PKIs[0] {
			l.At["pki "+k.Name] = k.Place("name")
		}
	}
	if guessed && len(p.Cfg.PKIs) > 1 {
		p.warn(pos, "add pki NAME", "no pki is named, and none is of this host: that of "+l.PKIs[0]+" is taken")
	}
}
