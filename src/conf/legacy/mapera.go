package legacy

import (
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// mapReserved are the words that were reserved from 4.6 on to the end. The later
// ones may stand where a name is wanted: `map virtual` was right in 4.6. It is
// never written.
var mapReserved = map[string]bool{
	"accept": true, "all": true, "any": true, "auth": true, "certificate": true, "db": true,
	"deliver": true, "domain": true, "enable": true, "for": true, "from": true, "include": true,
	"listen": true, "local": true, "maildir": true, "map": true, "mbox": true, "mda": true,
	"on": true, "port": true, "reject": true, "relay": true, "smtps": true, "source": true,
	"ssl": true, "tls": true, "to": true, "via": true,
}

// mapStatements are the words that mapStatement knows, for hints.
var mapStatements = []string{"accept", "expire", "hostname", "include", "listen", "map", "queue", "reject", "size", "smtps", "ssmtp"}

// mapStatement returns the function for the statement that begins with word, or
// nil.
func mapStatement(word string) parseFunc {
	switch word {
	case "accept":
		return func(p *parser, n conf.Node) *conf.Node { return p.mapRule(n, false) }
	case "reject":
		return func(p *parser, n conf.Node) *conf.Node { return p.mapRule(n, true) }
	case "expire":
		return (*parser).expireAll
	case "hostname":
		return (*parser).hostnameStatement
	case "include":
		return func(p *parser, n conf.Node) *conf.Node { return p.Include(n) }
	case "listen":
		return (*parser).mapListen
	case "map":
		return (*parser).mapStatement
	case "queue":
		return (*parser).mapQueue
	case "size":
		return (*parser).messageSize
	case "smtps", "ssmtp": // 4.5
		return func(p *parser, n conf.Node) *conf.Node {
			p.Want("listen")
			node := p.mapListen(n)
			if l := p.Cfg.Listens; node != nil {
				l[len(l)-1].TLS = conf.SMTPS
				p.certificateOf(l[len(l)-1])
			}
			return node
		}
	}
	return nil
}

// expireAll reads EXPIRE delay.
func (p *parser) expireAll(n conf.Node) *conf.Node {
	d := p.Delay("expire delay")
	if p.Bad {
		return nil
	}
	s := &p.Cfg.Server.QueueTTL
	p.Replace(&s.Node, n, "expire")
	s.Value = d
	return &s.Node
}

// messageSize reads SIZE size, or MAX-MESSAGE-SIZE size.
func (p *parser) messageSize(n conf.Node) *conf.Node {
	return p.MaxMessageSize(n, "the size of messages")
}

// hostnameStatement reads HOSTNAME name.
func (p *parser) hostnameStatement(n conf.Node) *conf.Node {
	p.Setting(n, &p.hostname, "hostname", "a host name")
	if !p.Bad {
		p.warn(n.Pos, "or write it into the file mailname", "today a host name is set for each listener and relay")
	}
	return nil
}

// mapQueue reads QUEUE INTERVAL number | COMPRESSION [algorithm].
func (p *parser) mapQueue(n conf.Node) *conf.Node {
	switch {
	case p.Skip("compression"):
		p.optional("an algorithm")
		return p.QueueCompression(n)
	case p.Skip("interval"):
		if p.Tok.Kind == lex.Number {
			p.Advance()
		} else {
			p.Delay("interval")
		}
		if !p.Bad {
			p.warn(n.Pos, "", "the queue runs when something is due, there is no interval any more: this line does nothing")
		}
		return nil
	}
	p.UnknownOption("queue", []string{"compression", "interval"})
	return nil
}

// mapStatement reads MAP name [{] source [}].
func (p *parser) mapStatement(n conf.Node) *conf.Node {
	t := &conf.Table{Node: n}
	t.Name = p.Name(&t.Node, "the name of a map")
	if p.Bad {
		return nil
	}
	p.Cfg.Tables = append(p.Cfg.Tables, t)
	brace := p.SkipPunct("{")
	for !p.Bad {
		if brace {
			p.Newlines()
		}
		if !p.More() || p.IsPunct("}") {
			break
		}
		p.mapOption(t)
		p.SkipPunct(",")
	}
	if brace {
		p.WantPunct("}")
	}
	if !p.Bad && t.Backend == "" {
		p.Complain(t.Place("name"), "map %s has no source defined", t.Name)
		t.Bad = true
	}
	return &t.Node
}

func (p *parser) mapOption(t *conf.Table) {
	pos := p.Tok.Pos
	switch {
	case p.Skip("source"):
		p.mapSource(t)
	case p.Skip("type"): // what it is follows from its use
		p.Str("single, list or hash")
	case p.Skip("config"):
		p.Str("a string")
		p.warn(pos, "", "config never did anything")
	case p.Skip("db"):
		p.mapFile(t, "db")
	case p.Skip("plain"), p.Skip("file"):
		p.mapFile(t, "file")
	case p.Tok.Kind == lex.Quoted: // 5.2.1: map NAME "/path"
		p.mapFile(t, "file")
	default:
		p.UnknownOption("map", []string{"source", "type", "config"})
	}
}

func (p *parser) mapSource(t *conf.Table) {
	pos := p.Tok.Pos
	switch {
	case p.Skip("db"):
		p.mapFile(t, "db")
	case p.Skip("plain"), p.Skip("file"):
		p.mapFile(t, "file")
	case p.word("dns"), p.word("external"), p.word("ldap"):
		p.Fail(pos, "db \"/path.db\" and plain \"/path\" are known", "the source %q never worked", p.Tok.Text)
	default:
		p.UnknownOption("source", []string{"db", "plain", "file"})
	}
}

func (p *parser) mapFile(t *conf.Table, backend string) {
	pos := p.Tok.Pos
	syntax.Mark(&t.Node, "config", pos)
	t.Backend, t.Config = backend, p.Str("the path of a file")
	if !p.Bad && !strings.HasPrefix(t.Config, "/") {
		p.Fail(pos, "", "map %s: %q is not an absolute path", t.Name, t.Config)
	}
}

// mapListen reads ON interface [port] [ssl] [certificate] [auth] [tag], in any
// order.
func (p *parser) mapListen(n conf.Node) *conf.Node {
	l := &conf.Listen{Node: n}
	p.Want("on")
	syntax.Mark(&l.Node, "on", p.Tok.Pos)
	l.On = p.Str("an interface, an address or a host name")
	if p.Bad {
		return nil
	}
	p.Cfg.Listens = append(p.Cfg.Listens, l)
	cert := ""
	for p.More() {
		p.mapListenOption(l, &cert)
	}
	switch {
	case p.Bad:
	case l.TLS == conf.NoTLS && cert != "":
		p.Fail(l.Place("certificate"), "", "must specify tls or smtps")
	case cert != "":
		p.certificate(l, cert, l.Place("certificate"))
	default:
		p.certificateOf(l)
	}
	return &l.Node
}

func (p *parser) mapListenOption(l *conf.Listen, cert *string) {
	pos := p.Tok.Pos
	switch {
	case p.Skip("port"):
		p.Once(&l.Node, "port", pos)
		l.Port = p.Port()
	case p.Skip("smtps"):
		p.Once(&l.Node, "TLS mode", pos)
		l.TLS = conf.SMTPS
	case p.Skip("tls"):
		p.Once(&l.Node, "TLS mode", pos)
		l.TLS = conf.StartTLS
	case p.Skip("tls-require"):
		p.Once(&l.Node, "TLS mode", pos)
		l.TLS = conf.StartTLSRequire
	case p.word("ssl"):
		p.Fail(pos, "two lines do both: listen on X tls, and listen on X smtps", "a listener is tls or smtps, ssl is for relay via")
	case p.word("certificate"), p.word("use"):
		if p.Skip("use") && l.TLS == conf.NoTLS {
			l.TLS = conf.StartTLS // 4.5 offered it when there was a certificate
		}
		p.Want("certificate")
		p.Once(&l.Node, "certificate", pos)
		*cert = p.Str("the name of a certificate")
	case p.Skip("enable"):
		p.Want("auth")
		p.Once(&l.Node, "auth", pos)
		l.Auth = conf.AuthOptional
	case p.Skip("auth"):
		p.Once(&l.Node, "auth", pos)
		l.Auth = conf.AuthRequire
	case p.Skip("auth-optional"):
		p.Once(&l.Node, "auth", pos)
		l.Auth = conf.AuthOptional
	case p.Skip("tag"):
		p.Once(&l.Node, "tag", pos)
		l.Tag = p.tag()
	default:
		p.UnknownOption("listen on", []string{"port", "smtps", "tls", "tls-require", "certificate", "enable", "auth", "auth-optional", "tag"})
	}
}

// maxTag is the length of a tag.
const maxTag = 32

func (p *parser) tag() string {
	pos := p.Tok.Pos
	s := p.Str("a tag")
	if len(s) > maxTag {
		p.Complain(pos, "tag name too long: at most %d bytes", maxTag)
	}
	return s
}

// certificateOf gives a listener that names no certificate the one of its
// interface or address.
func (p *parser) certificateOf(l *conf.Listen) {
	if l.TLS != conf.NoTLS && len(l.PKIs) == 0 {
		p.certificate(l, l.On, l.Place("on"))
	}
}

// certificate gives a listener a certificate by name.
func (p *parser) certificate(l *conf.Listen, name string, pos conf.Pos) {
	k := p.pkiOf(name, l.Pos, pos)
	l.PKIs = []string{k}
	syntax.Mark(&l.Node, "pki", pos)
	syntax.Mark(&l.Node, "pki "+k, pos)
}

// certs is where certificates are found by name.
const certs = "/etc/mail/certs/"

// pkiOf returns the name of the pki with the certificate of that name, under
// certs, or at that path, whose key is beside it; it declares what is new.
func (p *parser) pkiOf(name string, stmt, pos conf.Pos) string {
	cert, key := certs+name+".crt", certs+name+".key"
	if strings.HasPrefix(name, "/") {
		stem := name
		for _, ext := range []string{".crt", ".pem", ".cert"} {
			stem = strings.TrimSuffix(stem, ext)
		}
		cert, key = name, stem+".key"
		if stem == name {
			cert = name + ".crt"
		}
		name = stem[strings.LastIndexByte(stem, '/')+1:]
	}
	base := hostLike(name)
	for id, i := base, 2; ; i++ {
		at := slices.IndexFunc(p.Cfg.PKIs, func(k *conf.PKI) bool { return k.Name == id })
		if at < 0 {
			k := &conf.PKI{Node: conf.Node{Pos: stmt}, Name: id, Cert: cert, Key: key}
			for _, word := range []string{"name", "cert", "key"} {
				syntax.Mark(&k.Node, word, pos)
			}
			p.Cfg.PKIs = append(p.Cfg.PKIs, k)
			return id
		}
		if p.Cfg.PKIs[at].Cert == cert {
			return id
		}
		id = base + "-" + string(rune('0'+i%10))
	}
}

// hostLike makes the name of a pki of that of a certificate: it must look like a
// host's.
func hostLike(s string) string {
	s = strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._", r) {
			return r
		}
		return '-'
	}, s))
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '.' })
	for i, part := range parts {
		parts[i] = strings.Trim(part, "-")
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return "certificate"
	}
	return strings.Join(parts, ".")
}
