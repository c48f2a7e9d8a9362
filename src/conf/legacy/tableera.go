package legacy

import (
	"slices"
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

// maxWarns is how many delays bounce-warn has.
const maxWarns = 4

// bounceWarn reads BOUNCE-WARN delay, ….
func (p *parser) bounceWarn(n conf.Node) *conf.Node {
	s := &p.Cfg.Server.BounceWarn
	if !p.More() {
		p.warn(n.Pos, "", "bounce-warn sets nothing: senders are told after 4h")
		return nil
	}
	var list conf.Durations
	for first := true; first || p.SkipPunct(","); first = false {
		pos := p.Tok.Pos
		list.Value = append(list.Value, p.Delay("bounce delay"))
		if len(list.Value) > maxWarns {
			p.Complain(pos, "too many delays: at most %d", maxWarns)
		}
	}
	if p.Bad {
		return nil
	}
	p.Replace(&s.Node, n, "bounce-warn")
	s.Value = list.Value
	return &s.Node
}

func (p *parser) maxDeferred(n conf.Node) *conf.Node {
	v := p.Number("max-mta-deferred")
	if p.Bad {
		return nil
	}
	s := &p.Cfg.Server.MTAMaxDeferred
	p.Replace(&s.Node, n, "max-mta-deferred")
	s.Value = v
	return &s.Node
}

func (p *parser) delimiter(n conf.Node) *conf.Node {
	pos := p.Tok.Pos
	node := p.Setting(n, &p.Cfg.Server.SubAddrDelim, "subaddressing-delimiter", "a character")
	switch v := p.Cfg.Server.SubAddrDelim.Value; {
	case p.Bad:
	case len(v) != 1:
		p.Complain(pos, "subaddressing-delimiter must be one character")
	case v[0] <= ' ' || v[0] > '~' || v == "@":
		p.Complain(pos, "subaddressing-delimiter uses invalid character")
	}
	return node
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
		domain := ""
		if p.Skip("for") {
			p.Want("domain")
			domain = strings.ToLower(p.Str("a domain"))
		}
		return p.MTALimits(n, domain)
	}
	p.UnknownOption("limit", []string{"session", "mda", "mta", "scheduler"})
	return nil
}

// tableQueue reads QUEUE COMPRESSION | ENCRYPTION [KEY key].
func (p *parser) tableQueue(n conf.Node) *conf.Node {
	s := &p.Cfg.Server
	switch {
	case p.Skip("compression"):
		p.optional("an algorithm")
		p.Replace(&s.QueueCompression.Node, n, "queue compression")
		s.QueueCompression.Value = true
		return &s.QueueCompression.Node
	case p.Skip("encryption"):
		key := ""
		if p.Skip("key") {
			key = p.Str("a key")
		}
		if p.Bad {
			return nil
		}
		if key == "-" || strings.EqualFold(key, "stdin") {
			key = "stdin"
		}
		p.Replace(&s.QueueEncryption.Node, n, "queue encryption")
		s.QueueEncryption.Value = key
		return &s.QueueEncryption.Node
	}
	p.UnknownOption("queue", []string{"compression", "encryption"})
	return nil
}

// pki reads PKI NAME certificate F | key F | ca F | dhparams F | dhe D.
func (p *parser) pki(n conf.Node) *conf.Node {
	pos := p.Tok.Pos
	name := strings.ToLower(p.Str("the name of the pki"))
	if p.Bad {
		return nil
	}
	i := slices.IndexFunc(p.Cfg.PKIs, func(k *conf.PKI) bool { return k.Name == name })
	if i < 0 {
		i = len(p.Cfg.PKIs)
		p.Cfg.PKIs = append(p.Cfg.PKIs, &conf.PKI{Node: n, Name: name})
		syntax.Mark(&p.Cfg.PKIs[i].Node, "name", pos)
	} else {
		syntax.Join(&p.Cfg.PKIs[i].Node, n)
	}
	k := p.Cfg.PKIs[i]
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
			p.addCA(name, conf.Node{Pos: n.Pos}, pos)
		case p.Skip("dhparams"):
			p.Str("the path of a file")
			p.warn(pos, "pki "+name+" dhe auto", "a file of parameters is not read any more")
		case p.Skip("dhe"):
			p.dhe(k)
		default:
			p.UnknownOption("pki", []string{"certificate", "key", "ca", "dhparams", "dhe"})
			return &k.Node
		}
	}
	return &k.Node
}

func (p *parser) dhe(k *conf.PKI) {
	pos := p.Tok.Pos
	k.DHE = strings.ToLower(p.Str("none, legacy or auto"))
	if k.DHE != "none" && k.DHE != "legacy" && k.DHE != "auto" {
		p.Complain(pos, "invalid DHE keyword: %s", k.DHE)
	}
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
