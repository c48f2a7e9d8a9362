package legacy

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// tableReserved are the words that were reserved from 5.3 on to the end. The
// later ones may stand where a name is wanted. It is never written.
var tableReserved = map[string]bool{
	"accept": true, "alias": true, "any": true, "as": true, "auth": true, "auth-optional": true,
	"backup": true, "bounce-warn": true, "certificate": true, "deliver": true, "domain": true,
	"expire": true, "for": true, "from": true, "hostname": true, "include": true, "key": true,
	"listen": true, "local": true, "maildir": true, "max-message-size": true, "mbox": true,
	"mda": true, "on": true, "port": true, "queue": true, "reject": true, "relay": true,
	"sender": true, "smtps": true, "source": true, "table": true, "tag": true, "tagged": true,
	"tls": true, "tls-require": true, "to": true, "userbase": true, "via": true, "virtual": true,
}

// tableStatements are the words that tableStatement knows, for hints.
var tableStatements = []string{"accept", "bounce-warn", "ca", "ciphers", "curve", "enqueuer", "expire", "filter",
	"filterchain", "include", "limit", "listen", "max-message-size", "max-mta-deferred", "pki", "queue", "reject",
	"subaddressing-delimiter", "table"}

// tableStatement returns the function for the statement that begins with word,
// or nil.
func tableStatement(word string) parseFunc {
	switch word {
	case "accept":
		return func(p *parser, n conf.Node) *conf.Node { return p.tableRule(n, false) }
	case "reject":
		return func(p *parser, n conf.Node) *conf.Node { return p.tableRule(n, true) }
	case "bounce-warn":
		return (*parser).bounceWarn
	case "ca":
		return (*parser).ca
	case "ciphers":
		return func(p *parser, n conf.Node) *conf.Node {
			return p.Setting(n, &p.Cfg.Server.SMTPCiphers, "ciphers", "a list of ciphers")
		}
	case "curve":
		return func(p *parser, n conf.Node) *conf.Node {
			return p.dropped(n, "curves are chosen by the TLS library today: this line does nothing")
		}
	case "enqueuer", "filter", "filterchain":
		return func(p *parser, n conf.Node) *conf.Node {
			return p.dropped(n, "filters of OpenSMTPD 5 spoke another protocol and cannot run: mail is not filtered by this")
		}
	case "expire":
		return (*parser).expireAll
	case "include":
		return func(p *parser, n conf.Node) *conf.Node { return p.Include(n) }
	case "limit":
		return (*parser).limit
	case "listen":
		return (*parser).tableListen
	case "max-message-size":
		return (*parser).messageSize
	case "max-mta-deferred":
		return (*parser).maxDeferred
	case "pki":
		return (*parser).pki
	case "queue":
		return (*parser).tableQueue
	case "subaddressing-delimiter":
		return (*parser).delimiter
	case "table":
		return func(p *parser, n conf.Node) *conf.Node { return p.Table(n) }
	}
	return nil
}

// dropped reads over a statement that can do nothing any more.
func (p *parser) dropped(n conf.Node, why string) *conf.Node {
	for p.More() {
		if p.Tok.Kind == lex.Invalid {
			p.Bad = true
			return nil
		}
		p.Advance()
	}
	p.warn(n.Pos, "", why)
	return nil
}

// bounceWarn reads BOUNCE-WARN delay, ….
func (p *parser) bounceWarn(n conf.Node) *conf.Node {
	if !p.More() {
		p.warn(n.Pos, "", "bounce-warn sets nothing: senders are told after 4h")
		return nil
	}
	return p.BounceWarn(n, "bounce-warn")
}

func (p *parser) maxDeferred(n conf.Node) *conf.Node { return p.MTAMaxDeferred(n, "max-mta-deferred") }

func (p *parser) delimiter(n conf.Node) *conf.Node {
	return p.SubAddrDelim(n, "subaddressing-delimiter")
}

// limit reads LIMIT SESSION | MDA | SCHEDULER | MTA [for domain D] pairs.
func (p *parser) limit(n conf.Node) *conf.Node {
	s := &p.Cfg.Server
	switch {
	case p.Skip("session"):
		return p.Limits(n, "limit session", &s.SMTPLimits, conf.Keys(conf.SMTPLimits()))
	case p.Skip("mda"):
		return p.Limits(n, "limit mda", &s.MDALimits, conf.Keys(conf.MDALimits()))
	case p.Skip("scheduler"):
		return p.Limits(n, "limit scheduler", &s.SchedulerLimits, conf.Keys(conf.SchedulerLimits()))
	case p.Skip("mta"):
		return p.MTALimit(n)
	}
	p.UnknownOption("limit", []string{"session", "mda", "mta", "scheduler"})
	return nil
}

// tableQueue reads QUEUE COMPRESSION | ENCRYPTION [KEY key].
func (p *parser) tableQueue(n conf.Node) *conf.Node {
	switch {
	case p.Skip("compression"):
		p.optional("an algorithm")
		return p.QueueCompression(n)
	case p.Skip("encryption"):
		key := ""
		if p.Skip("key") {
			key = p.Str("a key")
		}
		return p.QueueEncryption(n, key)
	}
	p.UnknownOption("queue", []string{"compression", "encryption"})
	return nil
}

// pki reads PKI NAME certificate F | key F | ca F | dhparams F | dhe D.
func (p *parser) pki(n conf.Node) *conf.Node {
	k := p.PKI(n)
	if k == nil {
		return nil
	}
	for p.More() {
		pos := p.Tok.Pos
		switch {
		case p.Skip("certificate"):
			k.Cert = p.Str("the path of a certificate")
			k.At["cert"] = pos
		case p.Skip("key"):
			k.Key = p.Str("the path of a key")
			k.At["key"] = pos
		case p.Skip("ca"):
			p.addCA(k.Name, conf.Node{Pos: n.Pos}, pos)
		case p.Skip("dhparams"):
			p.Str("the path of a file")
			p.warn(pos, "pki "+k.Name+" dhe auto", "a file of parameters is not read any more")
		case p.Skip("dhe"):
			p.DHE(k)
		default:
			p.UnknownOption("pki", []string{"certificate", "key", "ca", "dhparams", "dhe"})
			return &k.Node
		}
	}
	return &k.Node
}

// ca reads CA NAME certificate F.
func (p *parser) ca(n conf.Node) *conf.Node {
	pos := p.Tok.Pos
	name := strings.ToLower(p.Str("the name of the ca"))
	p.Want("certificate")
	return p.addCA(name, n, pos)
}

func (p *parser) addCA(name string, n conf.Node, pos conf.Pos) *conf.Node {
	c := &conf.CA{Node: n, Name: name}
	syntax.Mark(&c.Node, "name", pos)
	syntax.Mark(&c.Node, "cert", p.Tok.Pos)
	c.Cert = p.Str("the path of a file")
	if p.Bad {
		return nil
	}
	p.Cfg.CAs = append(p.Cfg.CAs, c)
	return &c.Node
}
