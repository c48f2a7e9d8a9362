package native

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// actionOption is an option of a local action, of relay, or of both.
type actionOption struct {
	word         string
	local, relay bool
	parse        func(*parser, *conf.Action)
}

// actionOptions is never written.
var actionOptions = []actionOption{
	{word: "ttl", local: true, relay: true, parse: func(p *parser, a *conf.Action) { a.TTL = p.delay("ttl delay") }},

	{word: "user", local: true, parse: func(p *parser, a *conf.Action) { a.User = p.str("the name of a user") }},
	{word: "alias", local: true, parse: func(p *parser, a *conf.Action) { a.Alias = p.ref(&a.Node, "alias") }},
	{word: "virtual", local: true, parse: func(p *parser, a *conf.Action) { a.Virtual = p.ref(&a.Node, "virtual") }},
	{word: "userbase", local: true, parse: func(p *parser, a *conf.Action) { a.UserBase = p.ref(&a.Node, "userbase") }},
	{word: "wrapper", local: true, parse: func(p *parser, a *conf.Action) { a.Wrapper = p.str("the name of an mda wrapper") }},

	{word: "helo", relay: true, parse: func(p *parser, a *conf.Action) { a.Helo = p.str("a host name") }},
	{word: "helo-src", relay: true, parse: func(p *parser, a *conf.Action) { a.HeloSrc = p.ref(&a.Node, "helo-src") }},
	{word: "pki", relay: true, parse: func(p *parser, a *conf.Action) { a.PKI = strings.ToLower(p.str("the name of a pki")) }},
	{word: "ca", relay: true, parse: func(p *parser, a *conf.Action) { a.CA = strings.ToLower(p.str("the name of a ca")) }},
	{word: "ciphers", relay: true, parse: func(p *parser, a *conf.Action) { a.Ciphers = p.str("a list of ciphers") }},
	{word: "protocols", relay: true, parse: func(p *parser, a *conf.Action) { a.Protocols = p.str("a list of protocols") }},
	{word: "src", relay: true, parse: func(p *parser, a *conf.Action) { a.BindTo = p.ref(&a.Node, "src") }},
	{word: "mail-from", relay: true, parse: func(p *parser, a *conf.Action) { a.MailFrom = p.str("an address") }},
	{word: "backup", relay: true, parse: (*parser).backup},
	{word: "host", relay: true, parse: (*parser).relayHost},
	{word: "domain", relay: true, parse: func(p *parser, a *conf.Action) { a.Domain = p.ref(&a.Node, "domain") }},
	{word: "tls", relay: true, parse: func(p *parser, a *conf.Action) { a.TLS, a.NoVerify = true, p.skip("no-verify") }},
	{word: "auth", relay: true, parse: func(p *parser, a *conf.Action) { a.AuthTable = p.ref(&a.Node, "auth") }},
	{word: "filter", relay: true, parse: func(p *parser, a *conf.Action) { a.Filter = p.filterRef() }},
	{word: "srs", relay: true, parse: func(_ *parser, a *conf.Action) { a.SRS = true }},
}

// action reads ACTION NAME METHOD options.
func (p *parser) action(n conf.Node) *conf.Node {
	a := &conf.Action{Node: n}
	a.Name = p.name(&a.Node, "the name of the action")
	if p.bad {
		return nil
	}
	p.cfg.Actions = append(p.cfg.Actions, a)
	p.method(a)
	for p.more() {
		o := p.actionOption(a)
		if o == nil {
			break
		}
		pos := p.tok.Pos
		p.advance()
		p.once(&a.Node, o.word, pos)
		o.parse(p, a)
	}
	return &a.Node
}

// methods maps the words of the methods that take nothing; it is never written.
var methods = map[string]conf.Method{
	"mbox": conf.MBOX, "maildir": conf.Maildir, "mda": conf.MDA, "lmtp": conf.LMTP,
	"expand-only": conf.ExpandOnly, "forward-only": conf.ForwardOnly, "relay": conf.Relay,
}

func (p *parser) method(a *conf.Action) {
	m, ok := methods[p.tok.Text]
	if p.tok.Kind != lex.Word || !ok {
		p.unexpected("a delivery method")
		return
	}
	mark(&a.Node, "method", p.tok.Pos)
	p.advance()
	switch a.Method = m; m {
	case conf.Maildir:
		if p.isString() {
			mark(&a.Node, "path", p.tok.Pos)
			a.Path = p.str("a path")
		}
		a.Junk = p.skip("junk")
	case conf.MDA:
		mark(&a.Node, "command", p.tok.Pos)
		a.Command = p.str("a command")
	case conf.LMTP:
		mark(&a.Node, "destination", p.tok.Pos)
		a.LMTPDest = p.str("host:port or the path of a socket")
		a.RcptTo = p.skip("rcpt-to")
	case conf.MBOX, conf.ExpandOnly, conf.ForwardOnly, conf.Relay, conf.Bounce:
	}
}

// actionOption returns the row for the word at hand, or fails.
func (p *parser) actionOption(a *conf.Action) *actionOption {
	local := a.Method.Local()
	var words []string
	for i := range actionOptions {
		o := &actionOptions[i]
		fits := local && o.local || !local && o.relay
		switch {
		case p.tok.Kind != lex.Word || p.tok.Text != o.word:
			if fits {
				words = append(words, o.word)
			}
		case fits:
			return o
		case local:
			p.fail(p.tok.Pos, "", "%q is an option of relay, not of local delivery", o.word)
			return nil
		default:
			p.fail(p.tok.Pos, "", "%q is an option of local delivery, not of relay", o.word)
			return nil
		}
	}
	p.unknownOption("action … "+a.Method.String(), words)
	return nil
}

func (p *parser) backup(a *conf.Action) {
	a.Backup = true
	if p.skip("mx") {
		a.BackupMX = p.str("the name of a mail exchanger")
	}
}

// relayHost reads the url of a smarthost, or a table of them.
func (p *parser) relayHost(a *conf.Action) {
	mark(&a.Node, "url", p.tok.Pos)
	if !p.bad && p.isString() {
		a.Host = p.str("the url of a relay")
		return
	}
	a.HostTable = p.ref(&a.Node, "host")
	// A list of one is the same as a string.
	if t := p.cfg.Table(a.HostTable); t != nil && t.Inline && t.Kind == conf.List && len(t.Entries) == 1 {
		a.Host, a.HostTable = t.Entries[0].Key, ""
	}
}
