package native

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// maxTag is the length of a listener's tag: an envelope file has room for no
// more.
const maxTag = 32

// listenOption reads what follows the word of an option.
type listenOption struct {
	word   string
	socket bool   // allowed for the socket too
	group  string // what excludes it; the word itself when empty
	many   bool   // may be repeated
	parse  func(*parser, *conf.Listen)
}

// listenOptions is never written.
var listenOptions = []listenOption{
	{word: "inet4", group: "address family", parse: func(_ *parser, l *conf.Listen) { l.Family = conf.Inet4 }},
	{word: "inet6", group: "address family", parse: func(_ *parser, l *conf.Listen) { l.Family = conf.Inet6 }},
	{word: "port", parse: func(p *parser, l *conf.Listen) { l.Port = p.Port() }},
	{word: "filter", socket: true, parse: func(p *parser, l *conf.Listen) { l.Filter = p.filterRef() }},
	{word: "smtps", group: "TLS mode", parse: func(p *parser, l *conf.Listen) {
		l.TLS, l.TLSVerify = conf.SMTPS, p.Skip("verify")
	}},
	{word: "tls", group: "TLS mode", parse: func(_ *parser, l *conf.Listen) { l.TLS = conf.StartTLS }},
	{word: "tls-require", group: "TLS mode", parse: func(p *parser, l *conf.Listen) {
		l.TLS, l.TLSVerify = conf.StartTLSRequire, p.Skip("verify")
	}},
	{word: "ciphers", parse: func(p *parser, l *conf.Listen) { l.Ciphers = p.Str("a list of ciphers") }},
	{word: "protocols", parse: func(p *parser, l *conf.Listen) { l.Protocols = p.Str("a list of protocols") }},
	{word: "pki", many: true, parse: (*parser).listenPKI},
	{word: "ca", parse: func(p *parser, l *conf.Listen) { l.CA = strings.ToLower(p.Str("the name of a ca")) }},
	{word: "auth", parse: func(p *parser, l *conf.Listen) { l.Auth, l.AuthTable = conf.AuthRequire, p.credentials(l) }},
	{word: "auth-optional", group: "auth", parse: func(p *parser, l *conf.Listen) {
		l.Auth, l.AuthTable = conf.AuthOptional, p.credentials(l)
	}},
	{word: "tag", socket: true, parse: (*parser).listenTag},
	{word: "hostname", parse: func(p *parser, l *conf.Listen) { l.Hostname = p.Str("a host name") }},
	{word: "hostnames", parse: func(p *parser, l *conf.Listen) { l.Hostnames = p.Ref(&l.Node, "hostnames") }},
	{word: "mask-src", socket: true, parse: func(_ *parser, l *conf.Listen) { l.MaskSrc = true }},
	{word: "received-auth", parse: func(_ *parser, l *conf.Listen) { l.RecvAuth = true }},
	{word: "no-dsn", socket: true, parse: func(_ *parser, l *conf.Listen) { l.NoDSN = true }},
	{word: "proxy-v2", parse: func(_ *parser, l *conf.Listen) { l.ProxyV2 = true }},
	{word: "senders", parse: func(p *parser, l *conf.Listen) {
		l.Senders, l.Masquerade = p.Ref(&l.Node, "senders"), p.Skip("masquerade")
	}},
}

// listen reads LISTEN ON interface | SOCKET options.
func (p *parser) listen(n conf.Node) *conf.Node {
	p.Want("on")
	if p.Bad {
		return nil
	}
	l := &conf.Listen{Node: n}
	syntax.Mark(&l.Node, "on", p.Tok.Pos)
	if p.IsPunct("*") || p.Tok.Text == "any" {
		p.Fail(p.Tok.Pos, "listen on all is on every address", "expected an interface, an address, a host name or socket, got %s", p.Describe(p.Tok))
	}
	if l.Socket = p.Skip("socket"); !l.Socket {
		l.On = p.Str("an interface, an address, a host name or socket")
	}
	if p.Bad {
		return nil
	}
	p.Cfg.Listens = append(p.Cfg.Listens, l)
	for p.More() {
		o := p.listenOption(l.Socket)
		if o == nil {
			break
		}
		pos := p.Tok.Pos
		p.Advance()
		switch {
		case o.many:
			syntax.Mark(&l.Node, o.word, pos)
		case o.group != "":
			p.Once(&l.Node, o.group, pos)
		default:
			p.Once(&l.Node, o.word, pos)
		}
		o.parse(p, l)
	}
	return &l.Node
}

// listenOption returns the row for the word at hand, or fails.
func (p *parser) listenOption(socket bool) *listenOption {
	var words []string
	for i := range listenOptions {
		o := &listenOptions[i]
		if p.Tok.Kind == lex.Word && p.Tok.Text == o.word {
			if socket && !o.socket {
				p.Fail(p.Tok.Pos, "the socket takes filter, mask-src, no-dsn and tag",
					"%q is no option of listen on socket", o.word)
				return nil
			}
			return o
		}
		words = append(words, o.word)
	}
	p.UnknownOption("listen on", words)
	return nil
}

// credentials reads T when it is there.
func (p *parser) credentials(l *conf.Listen) conf.TableRef {
	if p.IsRef() {
		return p.Ref(&l.Node, "auth")
	}
	return ""
}

// maxPKIs bounds the certificates of one listener, as in OpenSMTPD.
const maxPKIs = 32

func (p *parser) listenPKI(l *conf.Listen) {
	pos := p.Tok.Pos
	name := strings.ToLower(p.Str("the name of a pki"))
	if len(l.PKIs) == maxPKIs {
		p.Complain(pos, "too many pki specified: at most %d", maxPKIs)
	}
	syntax.Mark(&l.Node, "pki "+name, pos)
	l.PKIs = append(l.PKIs, name)
}

func (p *parser) listenTag(l *conf.Listen) {
	pos := p.Tok.Pos
	l.Tag = p.Str("a tag")
	if len(l.Tag) > maxTag {
		p.Complain(pos, "tag name too long: at most %d bytes", maxTag)
	}
}
