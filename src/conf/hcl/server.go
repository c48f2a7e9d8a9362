package hcl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

type serverField = field[*conf.Server]

// setting gives a setting the node of its attribute, unless it was set before.
func (p *parser) setting(n *conf.Node, a *hclsyntax.Attribute, what string) bool {
	if !n.Pos.IsZero() {
		p.fail(a.NameRange, fmt.Sprintf("the first is in line %d", n.Pos.Line), "%s is set twice", what)
		return false
	}
	*n = p.node(a.NameRange)
	p.keep(n, a.SrcRange)
	return true
}

// serverText is a setting that is a string.
func serverText(word, what, want string, to func(*conf.Server) *conf.Text) serverField {
	return serverField{word, func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
		if t := to(s); p.setting(&t.Node, a, what) {
			t.Value = p.word(a.Expr, want)
		}
	}}
}

// serverDelay is a setting that is a delay.
func serverDelay(what string, to func(*conf.Server) *conf.Duration) serverField {
	return serverField{"ttl", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
		if t := to(s); p.setting(&t.Node, a, what) {
			t.Value = p.delay(a.Expr)
		}
	}}
}

func (p *parser) admd(a *hclsyntax.Attribute) {
	s := &p.cfg.Server.ADMD
	if !p.setting(&s.Node, a, "admd") {
		return
	}
	s.Value = p.word(a.Expr, "an authserv-id")
	if strings.IndexFunc(s.Value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		p.fail(a.Expr.Range(), "", "not a valid admd")
	}
}

// maxWarns is how many delays a bounce configuration has, as in OpenSMTPD.
const maxWarns = 4

func (p *parser) bounce(b *hclsyntax.Block) {
	fields(p, "bounce", b.Body, &p.cfg.Server, []serverField{{"warn-interval", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
		if t := &s.BounceWarn; p.setting(&t.Node, a, "bounce warn-interval") {
			t.Value = p.delays(a.Expr)
		}
	}}})
}

// delays reads one delay or a list of them.
func (p *parser) delays(x hclsyntax.Expression) []time.Duration {
	var out []time.Duration
	if tuple, ok := bare(x).(*hclsyntax.TupleConsExpr); ok {
		for _, el := range tuple.Exprs {
			out = append(out, p.delay(el))
		}
	} else if v, ok := p.eval(x); !ok {
		return nil
	} else if t := v.Type(); !v.IsNull() && (t.IsTupleType() || t.IsListType() || t.IsSetType()) {
		for it := v.ElementIterator(); it.Next(); {
			_, el := it.Element()
			out = append(out, p.asDelay(x.Range(), el))
		}
	} else {
		return []time.Duration{p.asDelay(x.Range(), v)}
	}
	switch {
	case len(out) == 0:
		p.fail(x.Range(), "", "the list is empty")
	case len(out) > maxWarns:
		p.fail(x.Range(), "", "too many delays: at most %d", maxWarns)
	}
	return out
}

func (p *parser) queue(b *hclsyntax.Block) {
	fields(p, "queue", b.Body, &p.cfg.Server, []serverField{
		{"compression", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
			if t := &s.QueueCompression; p.flag(a.Expr) && p.setting(&t.Node, a, "queue compression") {
				t.Value = true
			}
		}},
		{"encryption", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
			if t := &s.QueueEncryption; p.setting(&t.Node, a, "queue encryption") {
				p.encryption(t, a)
			}
		}},
		serverDelay("queue ttl", func(s *conf.Server) *conf.Duration { return &s.QueueTTL }),
	})
}

// encryption reads a key, "stdin", or true, which asks for the key at start.
func (p *parser) encryption(t *conf.Text, a *hclsyntax.Attribute) {
	v, ok := p.eval(a.Expr)
	switch {
	case !ok:
	case p.describe(v) == "true":
	case p.describe(v) == "false":
		p.fail(a.Expr.Range(), "leave encryption out", "expected a key, \"stdin\" or true, got false")
	default:
		if t.Value, ok = p.asText(a.Expr.Range(), v, `a key, "stdin" or true`); ok && t.Value == "" {
			p.fail(a.Expr.Range(), "true asks for the key at start", "the key is empty")
		}
	}
}

func (p *parser) smtp(b *hclsyntax.Block) {
	fields(p, "smtp", b.Body, &p.cfg.Server, []serverField{
		serverText("ciphers", "smtp ciphers", "a list of ciphers", func(s *conf.Server) *conf.Text { return &s.SMTPCiphers }),
		{"max-message-size", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
			if t := &s.MaxMessageSize; p.setting(&t.Node, a, "smtp max-message-size") {
				t.Value = p.size(a.Expr)
			}
		}},
		{"sub-addr-delim", (*parser).subAddrDelim},
	}, "limit")
	p.limits(b, "smtp limit", &p.cfg.Server.SMTPLimits, conf.SMTPLimits())
}

func (p *parser) subAddrDelim(s *conf.Server, a *hclsyntax.Attribute) {
	t := &s.SubAddrDelim
	if !p.setting(&t.Node, a, "smtp sub-addr-delim") {
		return
	}
	v, ok := p.str(a.Expr, "a character")
	switch t.Value = v; {
	case !ok:
	case len(v) != 1:
		p.fail(a.Expr.Range(), "", "sub-addr-delim must be one character")
	case v[0] <= ' ' || v[0] > '~' || v == "@":
		p.fail(a.Expr.Range(), "", "sub-addr-delim uses invalid character")
	}
}

func (p *parser) mda(b *hclsyntax.Block) {
	fields(p, "mda", b.Body, &p.cfg.Server, nil, "limit")
	p.limits(b, "mda limit", &p.cfg.Server.MDALimits, conf.MDALimits())
}

func (p *parser) scheduler(b *hclsyntax.Block) {
	fields(p, "scheduler", b.Body, &p.cfg.Server, nil, "limit")
	p.limits(b, "scheduler limit", &p.cfg.Server.SchedulerLimits, conf.SchedulerLimits())
}

// limits reads the limit blocks of b.
func (p *parser) limits(b *hclsyntax.Block, what string, list *[]*conf.Limit, known []conf.Limit) {
	for _, in := range b.Body.Blocks {
		if in.Type != "limit" {
			continue
		}
		if len(in.Labels) > 0 {
			p.fail(in.LabelRanges[0], "", "%s has no name", what)
		}
		var table []field[*[]*conf.Limit]
		for _, key := range conf.Keys(known) {
			table = append(table, field[*[]*conf.Limit]{key, func(p *parser, list *[]*conf.Limit, a *hclsyntax.Attribute) {
				l := &conf.Limit{Key: key}
				if i := slices.IndexFunc(*list, func(l *conf.Limit) bool { return l.Key == key }); i >= 0 {
					l = (*list)[i]
				} else {
					*list = append(*list, l)
				}
				if p.setting(&l.Node, a, what+" "+key) {
					l.Value = p.number(a.Expr)
				}
			}})
		}
		fields(p, what, in.Body, list, table)
	}
}

func (p *parser) mta(b *hclsyntax.Block) {
	fields(p, "mta", b.Body, &p.cfg.Server, []serverField{
		{"max-deferred", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
			if t := &s.MTAMaxDeferred; p.setting(&t.Node, a, "mta max-deferred") {
				t.Value = p.number(a.Expr)
			}
		}},
	}, "limit")
	for _, in := range b.Body.Blocks {
		if in.Type == "limit" {
			p.mtaLimit(in)
		}
	}
}

// mtaLimit reads limit { … }, or limit "DOMAIN" { … } for one domain.
func (p *parser) mtaLimit(b *hclsyntax.Block) {
	domain := ""
	switch {
	case len(b.Labels) > 1:
		p.fail(b.LabelRanges[1], "", "limit is for one domain")
	case len(b.Labels) == 1:
		if domain = strings.ToLower(b.Labels[0]); domain == "" {
			p.fail(b.LabelRanges[0], "without a name it is for all domains", "the domain is empty")
		}
	}
	set := func(a *hclsyntax.Attribute, same func(key string) bool) *conf.MTALimit {
		list := &p.cfg.Server.MTALimits
		i := slices.IndexFunc(*list, func(l *conf.MTALimit) bool { return l.Domain == domain && same(l.Key) })
		if i < 0 {
			i = len(*list)
			*list = append(*list, &conf.MTALimit{Domain: domain})
		}
		if !p.setting(&(*list)[i].Node, a, "mta limit "+a.Name) {
			return nil
		}
		return (*list)[i]
	}
	table := []serverField{{"family", func(p *parser, _ *conf.Server, a *hclsyntax.Attribute) {
		if l := set(a, func(key string) bool { return key == "inet4" || key == "inet6" }); l != nil {
			l.Key = p.oneOf(a.Expr, "inet4", "inet6")
		}
	}}}
	for _, key := range conf.Keys(conf.MTALimits()) {
		table = append(table, serverField{key, func(p *parser, _ *conf.Server, a *hclsyntax.Attribute) {
			if l := set(a, func(k string) bool { return k == key }); l != nil {
				l.Key, l.Value = key, p.number(a.Expr)
			}
		}})
	}
	fields(p, "mta limit", b.Body, &p.cfg.Server, table)
}

func (p *parser) srs(b *hclsyntax.Block) {
	fields(p, "srs", b.Body, &p.cfg.Server, []serverField{
		serverText("key", "srs key", "a secret", func(s *conf.Server) *conf.Text { return &s.SRSKey }),
		serverText("key-backup", "srs key-backup", "a secret", func(s *conf.Server) *conf.Text { return &s.SRSKeyBackup }),
		{"ttl", func(p *parser, s *conf.Server, a *hclsyntax.Attribute) {
			if t := &s.SRSTTL; p.setting(&t.Node, a, "srs ttl") {
				if t.Value = p.delay(a.Expr); t.Value > 0 && t.Value < 24*time.Hour {
					p.fail(a.Expr.Range(), "", "srs ttl is too short: at least 1d")
				}
			}
		}},
	})
}

// include is read with the file; what is inside is for nobody.
func (p *parser) include(b *hclsyntax.Block) {
	fields(p, "include", b.Body, p.cfg, nil)
}

// pki reads pki "NAME" { … }.
func (p *parser) pki(b *hclsyntax.Block) {
	k := &conf.PKI{Node: p.declaration(b)}
	k.Name = p.label(b, &k.Node)
	p.cfg.PKIs = append(p.cfg.PKIs, k)
	p.keep(&k.Node, b.Range())
	text := func(word, want string, to *string) field[*conf.PKI] {
		return field[*conf.PKI]{word, func(p *parser, k *conf.PKI, a *hclsyntax.Attribute) {
			p.mark(&k.Node, word, a.Expr.Range())
			*to = p.word(a.Expr, want)
		}}
	}
	fields(p, "pki", b.Body, k, []field[*conf.PKI]{
		text("cert", "the path of a certificate", &k.Cert),
		text("key", "the path of a key", &k.Key),
		{"dhe", func(p *parser, k *conf.PKI, a *hclsyntax.Attribute) {
			k.DHE = p.oneOf(a.Expr, "none", "legacy", "auto")
		}},
	})
	p.need(b, "cert", `"FILE"`)
	p.need(b, "key", `"FILE"`)
	k.Bad = p.bad
}

// ca reads ca "NAME" { cert = … }.
func (p *parser) ca(b *hclsyntax.Block) {
	c := &conf.CA{Node: p.declaration(b)}
	c.Name = p.label(b, &c.Node)
	p.cfg.CAs = append(p.cfg.CAs, c)
	p.keep(&c.Node, b.Range())
	fields(p, "ca", b.Body, c, []field[*conf.CA]{{"cert", func(p *parser, c *conf.CA, a *hclsyntax.Attribute) {
		p.mark(&c.Node, "cert", a.Expr.Range())
		c.Cert = p.word(a.Expr, "the path of a file")
	}}})
	p.need(b, "cert", `"FILE"`)
	c.Bad = p.bad
}
