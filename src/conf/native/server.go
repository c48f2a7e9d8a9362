package native

import (
	"strings"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/syntax"
)

func (p *parser) admd(n conf.Node) *conf.Node {
	pos := p.Tok.Pos
	v := p.Str("an authserv-id")
	if p.Bad {
		return nil
	}
	if strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		p.Complain(pos, "not a valid admd")
	}
	s := &p.Cfg.Server.ADMD
	p.Replace(&s.Node, n, "admd")
	s.Value = v
	return &s.Node
}

func (p *parser) bounce(n conf.Node) *conf.Node {
	p.Want("warn-interval")
	return p.BounceWarn(n, "bounce warn-interval")
}

func (p *parser) queue(n conf.Node) *conf.Node {
	switch {
	case p.Skip("compression"):
		return p.QueueCompression(n)
	case p.Skip("encryption"):
		key := ""
		if p.IsString() {
			key = p.Str("a key")
		}
		return p.QueueEncryption(n, key)
	case p.Skip("ttl"):
		d := p.Delay("ttl delay")
		if p.Bad {
			return nil
		}
		s := &p.Cfg.Server.QueueTTL
		p.Replace(&s.Node, n, "queue ttl")
		s.Value = d
		return &s.Node
	}
	p.UnknownOption("queue", []string{"compression", "encryption", "ttl"})
	return nil
}

func (p *parser) scheduler(n conf.Node) *conf.Node {
	p.Want("limit")
	return p.Limits(n, "scheduler limit", &p.Cfg.Server.SchedulerLimits, conf.Keys(conf.SchedulerLimits()))
}

func (p *parser) mda(n conf.Node) *conf.Node {
	switch {
	case p.Skip("limit"):
		return p.Limits(n, "mda limit", &p.Cfg.Server.MDALimits, conf.Keys(conf.MDALimits()))
	case p.Skip("wrapper"):
		w := &conf.Wrapper{Node: n}
		w.Name = p.Name(&w.Node, "the name of the wrapper")
		if p.Bad {
			return nil
		}
		p.Cfg.Server.Wrappers = append(p.Cfg.Server.Wrappers, w)
		syntax.Mark(&w.Node, "command", p.Tok.Pos)
		w.Command = p.Str("a command")
		return &w.Node
	}
	p.UnknownOption("mda", []string{"limit", "wrapper"})
	return nil
}

func (p *parser) mta(n conf.Node) *conf.Node {
	switch {
	case p.Skip("max-deferred"):
		return p.MTAMaxDeferred(n, "mta max-deferred")
	case p.Skip("limit"):
		return p.MTALimit(n)
	}
	p.UnknownOption("mta", []string{"max-deferred", "limit"})
	return nil
}

func (p *parser) smtp(n conf.Node) *conf.Node {
	s := &p.Cfg.Server
	switch {
	case p.Skip("limit"):
		return p.Limits(n, "smtp limit", &s.SMTPLimits, conf.Keys(conf.SMTPLimits()))
	case p.Skip("ciphers"):
		return p.Setting(n, &s.SMTPCiphers, "smtp ciphers", "a list of ciphers")
	case p.Skip("max-message-size"):
		return p.MaxMessageSize(n, "smtp max-message-size")
	case p.Skip("sub-addr-delim"):
		return p.SubAddrDelim(n, "smtp sub-addr-delim")
	}
	p.UnknownOption("smtp", []string{"limit", "ciphers", "max-message-size", "sub-addr-delim"})
	return nil
}

func (p *parser) srs(n conf.Node) *conf.Node {
	s := &p.Cfg.Server
	switch {
	case p.Skip("key"):
		if p.Skip("backup") {
			return p.Setting(n, &s.SRSKeyBackup, "srs key backup", "a secret")
		}
		return p.Setting(n, &s.SRSKey, "srs key", "a secret")
	case p.Skip("ttl"):
		pos := p.Tok.Pos
		d := p.Delay("ttl delay")
		if p.Bad {
			return nil
		}
		if d > 0 && d < 24*time.Hour {
			p.Complain(pos, "srs ttl is too short: at least 1d")
		}
		p.Replace(&s.SRSTTL.Node, n, "srs ttl")
		s.SRSTTL.Value = d
		return &s.SRSTTL.Node
	}
	p.UnknownOption("srs", []string{"key", "ttl"})
	return nil
}

// pki reads PKI NAME with any of cert, key and dhe, into the pki of that name.
func (p *parser) pki(n conf.Node) *conf.Node {
	k := p.PKI(n)
	if k == nil {
		return nil
	}
	for p.More() {
		word, pos := p.Tok.Text, p.Tok.Pos
		switch {
		case p.Skip("cert"):
			k.Cert = p.Str("the path of a certificate")
		case p.Skip("key"):
			k.Key = p.Str("the path of a key")
		case p.Skip("dhe"):
			p.DHE(k)
		case word == "certificate":
			p.Fail(pos, "since 6.4 it is written: cert", "%q is no option of pki", word)
			return &k.Node
		default:
			p.UnknownOption("pki", []string{"cert", "key", "dhe"})
			return &k.Node
		}
		if !p.Bad && !syntax.Mark(&k.Node, word, pos) {
			p.Diags.Warnf(pos, "%s of pki %s was set before: this one holds", word, k.Name)
			k.At[word] = pos
		}
	}
	return &k.Node
}

// ca reads CA NAME cert FILE.
func (p *parser) ca(n conf.Node) *conf.Node {
	c := &conf.CA{Node: n}
	c.Name = strings.ToLower(p.Name(&c.Node, "the name of the ca"))
	p.Want("cert")
	pos := p.Tok.Pos
	c.Cert = p.Str("the path of a file")
	if p.Bad {
		return nil
	}
	syntax.Mark(&c.Node, "cert", pos)
	p.Cfg.CAs = append(p.Cfg.CAs, c)
	return &c.Node
}
