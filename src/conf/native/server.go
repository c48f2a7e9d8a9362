package native

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
)

// replace gives a setting the node of its newest statement. When it was set
// before that is said, and the older comments stay.
func (p *parser) replace(old *conf.Node, n conf.Node, what string) {
	if !old.Pos.IsZero() {
		p.diags.Warnf(n.Pos, "%s was set before, in line %d: this one holds", what, old.Pos.Line)
		if old.Comment != "" {
			old.Doc = append(old.Doc, old.Comment)
		}
		n.Doc = slices.Concat(old.Doc, n.Doc)
	}
	*old = n
}

// join adds another statement about the same thing to old.
func join(old *conf.Node, n conf.Node) {
	if old.Comment != "" {
		old.Doc = append(old.Doc, old.Comment)
		old.Comment = ""
	}
	old.Doc = append(old.Doc, n.Doc...)
}

func (p *parser) admd(n conf.Node) *conf.Node {
	pos := p.tok.Pos
	v := p.str("an authserv-id")
	if p.bad {
		return nil
	}
	if strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		p.complain(pos, "not a valid admd")
	}
	s := &p.cfg.Server.ADMD
	p.replace(&s.Node, n, "admd")
	s.Value = v
	return &s.Node
}

// maxWarns is how many delays a bounce configuration has, as in OpenSMTPD.
const maxWarns = 4

func (p *parser) bounce(n conf.Node) *conf.Node {
	p.want("warn-interval")
	var delays []time.Duration
	for first := true; first || p.skipPunct(","); first = false {
		pos := p.tok.Pos
		d := p.delay("bounce delay")
		if len(delays) == maxWarns {
			p.complain(pos, "too many delays: at most %d", maxWarns)
		}
		delays = append(delays, d)
	}
	if p.bad {
		return nil
	}
	s := &p.cfg.Server.BounceWarn
	p.replace(&s.Node, n, "bounce warn-interval")
	s.Value = delays
	return &s.Node
}

func (p *parser) queue(n conf.Node) *conf.Node {
	s := &p.cfg.Server
	switch {
	case p.skip("compression"):
		p.replace(&s.QueueCompression.Node, n, "queue compression")
		s.QueueCompression.Value = true
		return &s.QueueCompression.Node
	case p.skip("encryption"):
		key := ""
		if p.isString() {
			key = p.str("a key")
		}
		if key == "-" || strings.EqualFold(key, "stdin") {
			key = "stdin"
		}
		p.replace(&s.QueueEncryption.Node, n, "queue encryption")
		s.QueueEncryption.Value = key
		return &s.QueueEncryption.Node
	case p.skip("ttl"):
		d := p.delay("ttl delay")
		if p.bad {
			return nil
		}
		p.replace(&s.QueueTTL.Node, n, "queue ttl")
		s.QueueTTL.Value = d
		return &s.QueueTTL.Node
	}
	p.unknownOption("queue", []string{"compression", "encryption", "ttl"})
	return nil
}

func (p *parser) scheduler(n conf.Node) *conf.Node {
	p.want("limit")
	return p.limits(n, "scheduler limit", &p.cfg.Server.SchedulerLimits, conf.Keys(conf.SchedulerLimits()))
}

func (p *parser) mda(n conf.Node) *conf.Node {
	switch {
	case p.skip("limit"):
		return p.limits(n, "mda limit", &p.cfg.Server.MDALimits, conf.Keys(conf.MDALimits()))
	case p.skip("wrapper"):
		w := &conf.Wrapper{Node: n}
		w.Name = p.name(&w.Node, "the name of the wrapper")
		if p.bad {
			return nil
		}
		p.cfg.Server.Wrappers = append(p.cfg.Server.Wrappers, w)
		mark(&w.Node, "command", p.tok.Pos)
		w.Command = p.str("a command")
		return &w.Node
	}
	p.unknownOption("mda", []string{"limit", "wrapper"})
	return nil
}

// limits reads KEY NUMBER pairs; the comments stay with the first.
func (p *parser) limits(n conf.Node, what string, list *[]*conf.Limit, keys []string) *conf.Node {
	var first *conf.Node
	for p.more() {
		pos, key := p.tok.Pos, p.tok.Text
		if !p.limitKey(what, keys) {
			break
		}
		v := p.number(what)
		if p.bad {
			break
		}
		node := conf.Node{Pos: pos}
		if first == nil {
			node = n
		}
		i := slices.IndexFunc(*list, func(l *conf.Limit) bool { return l.Key == key })
		if i < 0 {
			i = len(*list)
			*list = append(*list, &conf.Limit{Key: key})
		}
		l := (*list)[i]
		p.replace(&l.Node, node, what+" "+key)
		l.Value = v
		if first == nil {
			first = &l.Node
		}
	}
	if first == nil && !p.bad {
		p.diags.Warnf(n.Pos, "%s sets nothing", what)
	}
	return first
}

// limitKey reads the name of a limit.
func (p *parser) limitKey(what string, keys []string) bool {
	pos, key := p.tok.Pos, p.tok.Text
	if !p.isString() {
		p.unexpected("the name of a limit")
		return false
	}
	if !slices.Contains(keys, key) {
		hint := "limits: " + strings.Join(keys, ", ")
		if near := diag.Near(key, keys); near != "" {
			hint = "did you mean " + strconv.Quote(near) + "?"
		}
		p.fail(pos, hint, "invalid %s keyword: %s", what, key)
		return false
	}
	p.advance()
	return true
}

func (p *parser) mta(n conf.Node) *conf.Node {
	switch {
	case p.skip("max-deferred"):
		v := p.number("max-deferred")
		if p.bad {
			return nil
		}
		s := &p.cfg.Server.MTAMaxDeferred
		p.replace(&s.Node, n, "mta max-deferred")
		s.Value = v
		return &s.Node
	case p.skip("limit"):
		domain := ""
		if p.skip("for") {
			p.want("domain")
			domain = strings.ToLower(p.str("a domain"))
		}
		return p.mtaLimits(n, domain)
	}
	p.unknownOption("mta", []string{"max-deferred", "limit"})
	return nil
}

func (p *parser) mtaLimits(n conf.Node, domain string) *conf.Node {
	list := &p.cfg.Server.MTALimits
	var first *conf.Node
	for p.more() {
		node := conf.Node{Pos: p.tok.Pos}
		if first == nil {
			node = n
		}
		key, value := p.tok.Text, int64(0)
		family := p.tok.Kind == lex.Word && (key == "inet4" || key == "inet6")
		if family {
			p.advance()
		} else if p.limitKey("mta limit", conf.Keys(conf.MTALimits())) {
			value = p.number("mta limit")
		}
		if p.bad {
			break
		}
		i := slices.IndexFunc(*list, func(l *conf.MTALimit) bool {
			return l.Domain == domain && (l.Key == key || family && (l.Key == "inet4" || l.Key == "inet6"))
		})
		if i < 0 {
			i = len(*list)
			*list = append(*list, &conf.MTALimit{Domain: domain})
		}
		l := (*list)[i]
		p.replace(&l.Node, node, "mta limit "+key)
		l.Key, l.Value = key, value
		if first == nil {
			first = &l.Node
		}
	}
	if first == nil && !p.bad {
		p.diags.Warnf(n.Pos, "mta limit sets nothing")
	}
	return first
}

func (p *parser) smtp(n conf.Node) *conf.Node {
	s := &p.cfg.Server
	switch {
	case p.skip("limit"):
		return p.limits(n, "smtp limit", &s.SMTPLimits, conf.Keys(conf.SMTPLimits()))
	case p.skip("ciphers"):
		return p.setting(n, &s.SMTPCiphers, "smtp ciphers", "a list of ciphers")
	case p.skip("max-message-size"):
		v := p.size("size")
		if p.bad {
			return nil
		}
		p.replace(&s.MaxMessageSize.Node, n, "smtp max-message-size")
		s.MaxMessageSize.Value = v
		return &s.MaxMessageSize.Node
	case p.skip("sub-addr-delim"):
		pos := p.tok.Pos
		node := p.setting(n, &s.SubAddrDelim, "smtp sub-addr-delim", "a character")
		switch v := s.SubAddrDelim.Value; {
		case p.bad:
		case len(v) != 1:
			p.complain(pos, "sub-addr-delim must be one character")
		case v[0] <= ' ' || v[0] > '~' || v == "@":
			p.complain(pos, "sub-addr-delim uses invalid character")
		}
		return node
	}
	p.unknownOption("smtp", []string{"limit", "ciphers", "max-message-size", "sub-addr-delim"})
	return nil
}

// setting reads the STRING of a setting.
func (p *parser) setting(n conf.Node, s *conf.Text, what, want string) *conf.Node {
	v := p.str(want)
	if p.bad {
		return nil
	}
	p.replace(&s.Node, n, what)
	s.Value = v
	return &s.Node
}

func (p *parser) srs(n conf.Node) *conf.Node {
	s := &p.cfg.Server
	switch {
	case p.skip("key"):
		if p.skip("backup") {
			return p.setting(n, &s.SRSKeyBackup, "srs key backup", "a secret")
		}
		return p.setting(n, &s.SRSKey, "srs key", "a secret")
	case p.skip("ttl"):
		pos := p.tok.Pos
		d := p.delay("ttl delay")
		if p.bad {
			return nil
		}
		if d > 0 && d < 24*time.Hour {
			p.complain(pos, "srs ttl is too short: at least 1d")
		}
		p.replace(&s.SRSTTL.Node, n, "srs ttl")
		s.SRSTTL.Value = d
		return &s.SRSTTL.Node
	}
	p.unknownOption("srs", []string{"key", "ttl"})
	return nil
}

// pki reads PKI NAME with any of cert, key and dhe, into the pki of that name.
func (p *parser) pki(n conf.Node) *conf.Node {
	pos := p.tok.Pos
	name := strings.ToLower(p.str("the name of the pki"))
	if p.bad {
		return nil
	}
	i := slices.IndexFunc(p.cfg.PKIs, func(k *conf.PKI) bool { return k.Name == name })
	if i < 0 {
		i = len(p.cfg.PKIs)
		p.cfg.PKIs = append(p.cfg.PKIs, &conf.PKI{Node: n, Name: name})
		mark(&p.cfg.PKIs[i].Node, "name", pos)
	} else {
		join(&p.cfg.PKIs[i].Node, n)
	}
	k := p.cfg.PKIs[i]
	for p.more() {
		word, pos := p.tok.Text, p.tok.Pos
		switch {
		case p.skip("cert"):
			k.Cert = p.str("the path of a certificate")
		case p.skip("key"):
			k.Key = p.str("the path of a key")
		case p.skip("dhe"):
			arg := p.tok.Pos
			k.DHE = strings.ToLower(p.str("none, legacy or auto"))
			if k.DHE != "none" && k.DHE != "legacy" && k.DHE != "auto" {
				p.complain(arg, "invalid DHE keyword: %s", k.DHE)
			}
		default:
			p.unknownOption("pki", []string{"cert", "key", "dhe"})
			return &k.Node
		}
		if !p.bad && !mark(&k.Node, word, pos) {
			p.diags.Warnf(pos, "%s of pki %s was set before: this one holds", word, name)
			k.At[word] = pos
		}
	}
	return &k.Node
}

// ca reads CA NAME cert FILE.
func (p *parser) ca(n conf.Node) *conf.Node {
	c := &conf.CA{Node: n}
	c.Name = strings.ToLower(p.name(&c.Node, "the name of the ca"))
	p.want("cert")
	pos := p.tok.Pos
	c.Cert = p.str("the path of a file")
	if p.bad {
		return nil
	}
	mark(&c.Node, "cert", pos)
	p.cfg.CAs = append(p.cfg.CAs, c)
	return &c.Node
}
