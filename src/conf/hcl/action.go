package hcl

import (
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

type actionField = field[*conf.Action]

// methods maps the blocks of an action; it is never written.
var methods = map[string]conf.Method{
	"mbox": conf.MBOX, "maildir": conf.Maildir, "mda": conf.MDA, "lmtp": conf.LMTP,
	"expand-only": conf.ExpandOnly, "forward-only": conf.ForwardOnly, "relay": conf.Relay,
}

// textField is an option that is a string.
func textField(word, want string, to func(*conf.Action) *string) actionField {
	return actionField{word, func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
		p.mark(&a.Node, word, at.Expr.Range())
		*to(a) = p.word(at.Expr, want)
	}}
}

// tableField is an option that is T.
func tableField(word string, to func(*conf.Action) *conf.TableRef) actionField {
	return actionField{word, func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
		p.mark(&a.Node, word, at.NameRange)
		*to(a) = p.ref(&a.Node, word, at.Expr)
	}}
}

// flagField is an option that is true or false.
func flagField(word string, to func(*conf.Action) *bool) actionField {
	return actionField{word, func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
		p.mark(&a.Node, word, at.NameRange)
		*to(a) = p.flag(at.Expr)
	}}
}

func ttlField() actionField {
	return actionField{"ttl", func(p *parser, a *conf.Action, at *hclsyntax.Attribute) { a.TTL = p.delay(at.Expr) }}
}

// localFields are the options of local delivery.
func localFields(m conf.Method) []actionField {
	table := []actionField{
		tableField("alias", func(a *conf.Action) *conf.TableRef { return &a.Alias }),
		tableField("virtual", func(a *conf.Action) *conf.TableRef { return &a.Virtual }),
		tableField("userbase", func(a *conf.Action) *conf.TableRef { return &a.UserBase }),
		textField("user", "the name of a user", func(a *conf.Action) *string { return &a.User }),
		{"wrapper", func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
			p.mark(&a.Node, "wrapper", at.Expr.Range())
			a.Wrapper = p.refTo(at.Expr, "wrapper")
		}},
		ttlField(),
	}
	switch m {
	case conf.Maildir:
		table = append(table, textField("path", "a path", func(a *conf.Action) *string { return &a.Path }),
			flagField("junk", func(a *conf.Action) *bool { return &a.Junk }))
	case conf.MDA:
		table = append(table, textField("command", "a command", func(a *conf.Action) *string { return &a.Command }))
	case conf.LMTP:
		table = append(table, textField("destination", "host:port or the path of a socket", func(a *conf.Action) *string { return &a.LMTPDest }),
			flagField("rcpt-to", func(a *conf.Action) *bool { return &a.RcptTo }))
	case conf.MBOX, conf.ExpandOnly, conf.ForwardOnly, conf.Relay, conf.Bounce:
	}
	return table
}

// relayFields are the options of relay.
func relayFields() []actionField {
	return []actionField{
		{"host", (*parser).relayHost},
		tableField("domain", func(a *conf.Action) *conf.TableRef { return &a.Domain }),
		tableField("auth", func(a *conf.Action) *conf.TableRef { return &a.AuthTable }),
		flagField("backup", func(a *conf.Action) *bool { return &a.Backup }),
		textField("mx", "the name of a mail exchanger", func(a *conf.Action) *string { return &a.BackupMX }),
		flagField("tls", func(a *conf.Action) *bool { return &a.TLS }),
		flagField("no-verify", func(a *conf.Action) *bool { return &a.NoVerify }),
		{"pki", func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
			p.mark(&a.Node, "pki", at.Expr.Range())
			a.PKI = p.refTo(at.Expr, "pki")
		}},
		{"ca", func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
			p.mark(&a.Node, "ca", at.Expr.Range())
			a.CA = p.refTo(at.Expr, "ca")
		}},
		textField("ciphers", "a list of ciphers", func(a *conf.Action) *string { return &a.Ciphers }),
		textField("protocols", "a list of protocols", func(a *conf.Action) *string { return &a.Protocols }),
		textField("helo", "a host name", func(a *conf.Action) *string { return &a.Helo }),
		tableField("helo-src", func(a *conf.Action) *conf.TableRef { return &a.HeloSrc }),
		tableField("src", func(a *conf.Action) *conf.TableRef { return &a.BindTo }),
		textField("mail-from", "an address", func(a *conf.Action) *string { return &a.MailFrom }),
		{"filter", func(p *parser, a *conf.Action, at *hclsyntax.Attribute) {
			p.mark(&a.Node, "filter", at.Expr.Range())
			a.Filter = p.filterOf(at.Expr)
		}},
		flagField("srs", func(a *conf.Action) *bool { return &a.SRS }),
		ttlField(),
	}
}

// action reads action "NAME" { METHOD { … } }.
func (p *parser) action(b *hclsyntax.Block) {
	a := &conf.Action{Node: p.declaration(b)}
	a.Name = p.label(b, &a.Node)
	p.cfg.Actions = append(p.cfg.Actions, a)
	p.keep(&a.Node, b.Range())
	p.method(a, b)
	a.Bad = p.bad
}

func (p *parser) method(a *conf.Action, b *hclsyntax.Block) {
	var method *hclsyntax.Block
	for _, in := range b.Body.Blocks {
		switch m, known := methods[in.Type]; {
		case !known:
			p.fail(in.TypeRange, near(in.Type, conf.MethodWords), "%q is no delivery method", in.Type)
		case method != nil:
			p.fail(in.TypeRange, "", "an action has one delivery method")
		default:
			method, a.Method = in, m
			p.mark(&a.Node, "method", in.TypeRange)
		}
	}
	for _, at := range attributes(b.Body) {
		_, isMethod := methods[at.Name]
		switch {
		case isMethod:
			p.fail(at.NameRange, "write it as "+at.Name+" { … }", "%s is a block", at.Name)
		case method != nil:
			p.fail(at.NameRange, "options go into "+method.Type+" { … }", "%q is not inside the delivery method", at.Name)
		default:
			p.fail(at.NameRange, "methods are blocks, like mbox {}", "expected a delivery method, got %q", at.Name)
		}
	}
	if method == nil {
		if !p.bad {
			p.fail(b.TypeRange, `like action "local" { mbox {} }, each on a line of its own`, "action %s has no delivery method", a.Name)
		}
		return
	}
	if len(method.Labels) > 0 {
		p.fail(method.LabelRanges[0], "", "%s has no name", method.Type)
	}
	p.options(a, method)
}

// options reads what is in the block of a method.
func (p *parser) options(a *conf.Action, b *hclsyntax.Block) {
	local := localFields(a.Method)
	if a.Method.Local() {
		p.strange(b, local, relayFields(), "relay, not of local delivery")
		fields(p, "action … "+a.Method.String(), b.Body, a, local)
	} else {
		p.strange(b, relayFields(), local, "local delivery, not of relay")
		fields(p, "action … relay", b.Body, a, relayFields())
	}
	switch a.Method {
	case conf.MDA:
		p.need(b, "command", `"…"`)
	case conf.LMTP:
		p.need(b, "destination", `"HOST:PORT" or "/SOCKET"`)
	case conf.MBOX, conf.Maildir, conf.ExpandOnly, conf.ForwardOnly, conf.Relay, conf.Bounce:
	}
	depends := func(word, on string, ok bool) {
		if at := b.Body.Attributes[word]; at != nil && !ok && !p.bad {
			p.fail(at.NameRange, "add "+on+" = true", "%s has no meaning without %s", word, on)
		}
	}
	depends("mx", "backup", a.Backup)
	depends("no-verify", "tls", a.TLS || !a.NoVerify)
}

// strange reports options of the other kind of action, and takes them out.
func (p *parser) strange(b *hclsyntax.Block, known, other []actionField, of string) {
	has := func(table []actionField, word string) bool {
		return slices.ContainsFunc(table, func(f actionField) bool { return f.word == word })
	}
	for _, at := range attributes(b.Body) {
		if !has(known, at.Name) && has(other, at.Name) {
			p.fail(at.NameRange, "", "%q is an option of %s", at.Name, of)
			delete(b.Body.Attributes, at.Name)
		}
	}
}

// relayHost reads the url of a smarthost, or a table of them.
func (p *parser) relayHost(a *conf.Action, at *hclsyntax.Attribute) {
	p.mark(&a.Node, "host", at.NameRange)
	p.mark(&a.Node, "url", at.Expr.Range())
	o, ok := p.operand(at.Expr)
	switch {
	case !ok:
	case o.isBool:
		p.fail(at.Expr.Range(), "", "expected the url of a relay, a list of them or table.NAME, got %v", o.truth)
	case o.kind == conf.List && len(o.entries) == 1:
		if a.Host = o.entries[0].Key; a.Host == "" {
			p.fail(at.Expr.Range(), "", "expected the url of a relay, got an empty string")
		}
	default:
		p.mark(&a.Node, conf.TablePart("host"), at.Expr.Range())
		a.HostTable = p.tableOf(at.Expr.Range(), o)
	}
}

// wrapper reads wrapper "NAME" { command = … }.
func (p *parser) wrapper(b *hclsyntax.Block) {
	w := &conf.Wrapper{Node: p.declaration(b)}
	w.Name = p.label(b, &w.Node)
	p.cfg.Server.Wrappers = append(p.cfg.Server.Wrappers, w)
	p.keep(&w.Node, b.Range())
	fields(p, "wrapper", b.Body, w, []field[*conf.Wrapper]{
		{"command", func(p *parser, w *conf.Wrapper, a *hclsyntax.Attribute) {
			p.mark(&w.Node, "command", a.Expr.Range())
			w.Command = p.word(a.Expr, "a command")
		}},
	})
	p.need(b, "command", `"…"`)
	w.Bad = p.bad
}
