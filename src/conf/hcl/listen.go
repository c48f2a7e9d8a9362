package hcl

import (
	"fmt"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// Limits of OpenSMTPD: the certificates of one listener, the length of a tag.
const (
	maxPKIs = 32
	maxTag  = 32
)

type listenField = field[*conf.Listen]

// socketFields are the options of both kinds of listener.
func socketFields() []listenField {
	return []listenField{
		{"filter", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "filter", a.Expr.Range())
			l.Filter = p.filterOf(a.Expr)
		}},
		{"mask-src", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.MaskSrc = p.flag(a.Expr) }},
		{"no-dsn", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.NoDSN = p.flag(a.Expr) }},
		{"tag", (*parser).listenTag},
	}
}

// listenFields are the options of listen.
func listenFields() []listenField {
	return append(socketFields(), []listenField{
		{"family", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "address family", a.NameRange)
			l.Family = map[string]conf.Family{"inet4": conf.Inet4, "inet6": conf.Inet6}[p.oneOf(a.Expr, "inet4", "inet6")]
		}},
		{"port", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "port", a.Expr.Range())
			l.Port = p.port(a.Expr)
		}},
		{"tls", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "TLS mode", a.NameRange)
			l.TLS = map[string]conf.TLSMode{"offer": conf.StartTLS, "require": conf.StartTLSRequire, "smtps": conf.SMTPS}[p.oneOf(a.Expr, "offer", "require", "smtps")]
		}},
		{"verify", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.TLSVerify = p.flag(a.Expr) }},
		{"pki", (*parser).listenPKI},
		{"ca", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "ca", a.Expr.Range())
			l.CA = p.refTo(a.Expr, "ca")
		}},
		{"ciphers", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			l.Ciphers = p.word(a.Expr, "a list of ciphers")
		}},
		{"protocols", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			l.Protocols = p.word(a.Expr, "a list of protocols")
		}},
		{"auth", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "auth", a.NameRange)
			l.Auth = map[string]conf.Auth{"require": conf.AuthRequire, "optional": conf.AuthOptional}[p.oneOf(a.Expr, "require", "optional")]
		}},
		{"credentials", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.AuthTable = p.ref(&l.Node, "auth", a.Expr) }},
		{"hostname", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "hostname", a.Expr.Range())
			l.Hostname = p.word(a.Expr, "a host name")
		}},
		{"hostnames", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			l.Hostnames = p.ref(&l.Node, "hostnames", a.Expr)
		}},
		{"proxy-v2", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.ProxyV2 = p.flag(a.Expr) }},
		{"received-auth", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.RecvAuth = p.flag(a.Expr) }},
		{"senders", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) {
			p.mark(&l.Node, "senders", a.NameRange)
			l.Senders = p.ref(&l.Node, "senders", a.Expr)
		}},
		{"masquerade", func(p *parser, l *conf.Listen, a *hclsyntax.Attribute) { l.Masquerade = p.flag(a.Expr) }},
	}...)
}

// listen reads listen "WHERE" { … }.
func (p *parser) listen(b *hclsyntax.Block) {
	l := &conf.Listen{Node: p.declaration(b)}
	l.On = p.label(b, &l.Node)
	p.mark(&l.Node, "on", b.LabelRanges[0])
	p.cfg.Listens = append(p.cfg.Listens, l)
	p.keep(&l.Node, b.Range())
	if l.On == "socket" {
		p.diags.Add(diag.Diag{Severity: diag.Warning, Pos: l.Place("on"), Message: `"socket" is taken for the name of an interface or a host`,
			Hint: "the local socket is written socket { … }"})
	}
	fields(p, "listen", b.Body, l, listenFields())
	has := b.Body.Attributes
	depends := func(word string, ok bool, on string) {
		if a := has[word]; a != nil && !ok && !p.bad {
			p.fail(a.NameRange, "add "+on, "%s has no meaning without %s", word, on)
		}
	}
	depends("verify", !l.TLSVerify || l.TLS == conf.StartTLSRequire || l.TLS == conf.SMTPS, `tls = "require" or "smtps"`)
	depends("credentials", l.Auth != conf.NoAuth, `auth = "require" or "optional"`)
	depends("masquerade", !l.Masquerade || l.Senders != "", "senders = table.NAME")
	l.Bad = p.bad
}

// socket reads socket { … }.
func (p *parser) socket(b *hclsyntax.Block) {
	l := &conf.Listen{Node: p.declaration(b), Socket: true}
	p.mark(&l.Node, "on", b.TypeRange)
	p.cfg.Listens = append(p.cfg.Listens, l)
	p.keep(&l.Node, b.Range())
	fields(p, "socket", b.Body, l, socketFields())
	l.Bad = p.bad
}

func (p *parser) listenTag(l *conf.Listen, a *hclsyntax.Attribute) {
	l.Tag = p.word(a.Expr, "a tag")
	if len(l.Tag) > maxTag {
		p.fail(a.Expr.Range(), "", "tag name too long: at most %d bytes", maxTag)
	}
}

func (p *parser) listenPKI(l *conf.Listen, a *hclsyntax.Attribute) {
	p.mark(&l.Node, "pki", a.NameRange)
	p.refsTo(a.Expr, "pki", func(name string, r hcl2.Range) {
		if len(l.PKIs) == maxPKIs {
			p.fail(r, "", "too many pki specified: at most %d", maxPKIs)
			return
		}
		l.PKIs = append(l.PKIs, name)
		p.mark(&l.Node, "pki "+name, r)
	})
}

// filterOf reads filter.NAME, or a list of them, which becomes an inline chain.
func (p *parser) filterOf(x hclsyntax.Expression) string {
	f := &conf.Filter{Node: p.node(x.Range()), Inline: true, Kind: conf.FilterChain,
		Name: fmt.Sprintf("<chain:%d>", len(p.cfg.Filters))}
	list := p.refsTo(x, "filter", func(name string, r hcl2.Range) {
		p.mark(&f.Node, conf.ChainPart(len(f.Chain)), r)
		f.Chain = append(f.Chain, name)
	})
	if !list {
		return strings.Join(f.Chain, "")
	}
	p.cfg.Filters = append(p.cfg.Filters, f)
	return f.Name
}
