package native

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
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
	{word: "port", parse: func(p *parser, l *conf.Listen) { l.Port = p.port() }},
	{word: "filter", socket: true, parse: func(p *parser, l *conf.Listen) { l.Filter = p.filterRef() }},
	{word: "smtps", group: "TLS mode", parse: func(p *parser, l *conf.Listen) {
		l.TLS, l.TLSVerify = conf.SMTPS, p.skip("verify")
	}},
	{word: "tls", group: "TLS mode", parse: func(_ *parser, l *conf.Listen) { l.TLS = conf.StartTLS }},
	{word: "tls-require", group: "TLS mode", parse: func(p *parser, l *conf.Listen) {
		l.TLS, l.TLSVerify = conf.StartTLSRequire, p.skip("verify")
	}},
	{word: "ciphers", parse: func(p *parser, l *conf.Listen) { l.Ciphers = p.str("a list of ciphers") }},
	{word: "protocols", parse: func(p *parser, l *conf.Listen) { l.Protocols = p.str("a list of protocols") }},
	{word: "pki", many: true, parse: (*parser).listenPKI},
	{word: "ca", parse: func(p *parser, l *conf.Listen) { l.CA = strings.ToLower(p.str("the name of a ca")) }},
	{word: "auth", parse: func(p *parser, l *conf.Listen) { l.Auth, l.AuthTable = conf.AuthRequire, p.credentials(l) }},
	{word: "auth-optional", group: "auth", parse: func(p *parser, l *conf.Listen) {
		l.Auth, l.AuthTable = conf.AuthOptional, p.credentials(l)
	}},
	{word: "tag", socket: true, parse: (*parser).listenTag},
	{word: "hostname", parse: func(p *parser, l *conf.Listen) { l.Hostname = p.str("a host name") }},
	{word: "hostnames", parse: func(p *parser, l *conf.Listen) { l.Hostnames = p.ref(&l.Node, "hostnames") }},
	{word: "mask-src", socket: true, parse: func(_ *parser, l *conf.Listen) { l.MaskSrc = true }},
	{word: "received-auth", parse: func(_ *parser, l *conf.Listen) { l.RecvAuth = true }},
	{word: "no-dsn", socket: true, parse: func(_ *parser, l *conf.Listen) { l.NoDSN = true }},
	{word: "proxy-v2", parse: func(_ *parser, l *conf.Listen) { l.ProxyV2 = true }},
	{word: "senders", parse: func(p *parser, l *conf.Listen) {
		l.Senders, l.Masquerade = p.ref(&l.Node, "senders"), p.skip("masquerade")
	}},
}

// listen reads LISTEN ON interface | SOCKET options.
func (p *parser) listen(n conf.Node) *conf.Node {
	p.want("on")
	if p.bad {
		return nil
	}
	l := &conf.Listen{Node: n}
	mark(&l.Node, "on", p.tok.Pos)
	if l.Socket = p.skip("socket"); !l.Socket {
		l.On = p.str("an interface, an address, a host name or socket")
	}
	if p.bad {
		return nil
	}
	p.cfg.Listens = append(p.cfg.Listens, l)
	for p.more() {
		o := p.listenOption(l.Socket)
		if o == nil {
			break
		}
		pos := p.tok.Pos
		p.advance()
		switch {
		case o.many:
			mark(&l.Node, o.word, pos)
		case o.group != "":
			p.once(&l.Node, o.group, pos)
		default:
			p.once(&l.Node, o.word, pos)
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
		if p.tok.Kind == lex.Word && p.tok.Text == o.word {
			if socket && !o.socket {
				p.fail(p.tok.Pos, "the socket takes filter, mask-src, no-dsn and tag",
					"%q is no option of listen on socket", o.word)
				return nil
			}
			return o
		}
		words = append(words, o.word)
	}
	p.unknownOption("listen on", words)
	return nil
}

// credentials reads T when it is there.
func (p *parser) credentials(l *conf.Listen) conf.TableRef {
	if p.isRef() {
		return p.ref(&l.Node, "auth")
	}
	return ""
}

// port reads a number or the name of a service, two of which are reserved words.
func (p *parser) port() string {
	if !p.bad && p.tok.Kind == lex.Number {
		s := p.tok.Text
		p.advance()
		return s
	}
	for _, word := range [...]string{"smtp", "smtps"} {
		if p.skip(word) {
			return word
		}
	}
	return p.str("a port")
}

// maxPKIs bounds the certificates of one listener, as in OpenSMTPD.
const maxPKIs = 32

func (p *parser) listenPKI(l *conf.Listen) {
	pos := p.tok.Pos
	name := strings.ToLower(p.str("the name of a pki"))
	if len(l.PKIs) == maxPKIs {
		p.complain(pos, "too many pki specified: at most %d", maxPKIs)
	}
	mark(&l.Node, "pki "+name, pos)
	l.PKIs = append(l.PKIs, name)
}

func (p *parser) listenTag(l *conf.Listen) {
	pos := p.tok.Pos
	l.Tag = p.str("a tag")
	if len(l.Tag) > maxTag {
		p.complain(pos, "tag name too long: at most %d bytes", maxTag)
	}
}
