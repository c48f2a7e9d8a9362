package syntax

import (
	"slices"
	"strings"

	"opensmtpd/src/conf"
)

// What every grammar sets for the whole server; only the words before differ,
// which the caller has read.

// maxWarns is how many delays a bounce configuration has, as in OpenSMTPD.
const maxWarns = 4

// BounceWarn reads delay, ….
func (p *Reader) BounceWarn(n conf.Node, what string) *conf.Node {
	var list conf.Durations
	for first := true; first || p.SkipPunct(","); first = false {
		pos := p.Tok.Pos
		d := p.Delay("bounce delay")
		if len(list.Value) == maxWarns {
			p.Complain(pos, "too many delays: at most %d", maxWarns)
		}
		list.Value = append(list.Value, d)
	}
	if p.Bad {
		return nil
	}
	s := &p.Cfg.Server.BounceWarn
	p.Replace(&s.Node, n, what)
	s.Value = list.Value
	return &s.Node
}

// QueueCompression sets it.
func (p *Reader) QueueCompression(n conf.Node) *conf.Node {
	s := &p.Cfg.Server.QueueCompression
	p.Replace(&s.Node, n, "queue compression")
	s.Value = true
	return &s.Node
}

// QueueEncryption sets the key; "" means that it is asked for.
func (p *Reader) QueueEncryption(n conf.Node, key string) *conf.Node {
	if p.Bad {
		return nil
	}
	if key == "-" || strings.EqualFold(key, "stdin") {
		key = "stdin"
	}
	s := &p.Cfg.Server.QueueEncryption
	p.Replace(&s.Node, n, "queue encryption")
	s.Value = key
	return &s.Node
}

// MTALimit reads [for domain D] pairs.
func (p *Reader) MTALimit(n conf.Node) *conf.Node {
	domain := ""
	if p.Skip("for") {
		p.Want("domain")
		domain = strings.ToLower(p.Str("a domain"))
	}
	return p.MTALimits(n, domain)
}

// MTAMaxDeferred reads a number.
func (p *Reader) MTAMaxDeferred(n conf.Node, what string) *conf.Node {
	v := p.Number(what)
	if p.Bad {
		return nil
	}
	s := &p.Cfg.Server.MTAMaxDeferred
	p.Replace(&s.Node, n, what)
	s.Value = v
	return &s.Node
}

// MaxMessageSize reads a size.
func (p *Reader) MaxMessageSize(n conf.Node, what string) *conf.Node {
	v := p.Size("size")
	if p.Bad {
		return nil
	}
	s := &p.Cfg.Server.MaxMessageSize
	p.Replace(&s.Node, n, what)
	s.Value = v
	return &s.Node
}

// SubAddrDelim reads the character between user and sub-address.
func (p *Reader) SubAddrDelim(n conf.Node, what string) *conf.Node {
	pos := p.Tok.Pos
	node := p.Setting(n, &p.Cfg.Server.SubAddrDelim, what, "a character")
	switch v := p.Cfg.Server.SubAddrDelim.Value; {
	case p.Bad:
	case len(v) != 1:
		p.Complain(pos, "%s must be one character", what)
	case v[0] <= ' ' || v[0] > '~' || v == "@":
		p.Complain(pos, "%s uses invalid character", what)
	}
	return node
}

// PKI reads NAME and returns the pki of that name, which several statements may
// describe; nil after an error.
func (p *Reader) PKI(n conf.Node) *conf.PKI {
	pos := p.Tok.Pos
	name := strings.ToLower(p.Str("the name of the pki"))
	if p.Bad {
		return nil
	}
	if i := slices.IndexFunc(p.Cfg.PKIs, func(k *conf.PKI) bool { return k.Name == name }); i >= 0 {
		Join(&p.Cfg.PKIs[i].Node, n)
		return p.Cfg.PKIs[i]
	}
	k := &conf.PKI{Node: n, Name: name}
	Mark(&k.Node, "name", pos)
	p.Cfg.PKIs = append(p.Cfg.PKIs, k)
	return k
}

// DHE reads NONE, LEGACY or AUTO.
func (p *Reader) DHE(k *conf.PKI) {
	pos := p.Tok.Pos
	k.DHE = strings.ToLower(p.Str("none, legacy or auto"))
	if k.DHE != "none" && k.DHE != "legacy" && k.DHE != "auto" {
		p.Complain(pos, "invalid DHE keyword: %s", k.DHE)
	}
}
