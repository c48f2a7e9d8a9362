package native

import (
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// actionOption is an option of a local action, of relay, or of both.
type actionOption struct {
	word         string
	local, relay bool
	parse        func(*parser, *conf.Action)
}

// actionOptions is never written.
var actionOptions = []actionOption{
	{word: "ttl", local: true, relay: true, parse: func(p *parser, a *conf.Action) { a.TTL = p.Delay("ttl delay") }},

	{word: "user", local: true, parse: func(p *parser, a *conf.Action) { a.User = p.Str("the name of a user") }},
	{word: "alias", local: true, parse: func(p *parser, a *conf.Action) { a.Alias = p.Ref(&a.Node, "alias") }},
	{word: "virtual", local: true, parse: func(p *parser, a *conf.Action) { a.Virtual = p.Ref(&a.Node, "virtual") }},
	{word: "userbase", local: true, parse: func(p *parser, a *conf.Action) { a.UserBase = p.Ref(&a.Node, "userbase") }},
	{word: "wrapper", local: true, parse: func(p *parser, a *conf.Action) { a.Wrapper = p.Str("the name of an mda wrapper") }},

	{word: "helo", relay: true, parse: func(p *parser, a *conf.Action) { a.Helo = p.Str("a host name") }},
	{word: "helo-src", relay: true, parse: func(p *parser, a *conf.Action) { a.HeloSrc = p.Ref(&a.Node, "helo-src") }},
	{word: "pki", relay: true, parse: func(p *parser, a *conf.Action) { a.PKI = strings.ToLower(p.Str("the name of a pki")) }},
	{word: "ca", relay: true, parse: func(p *parser, a *conf.Action) { a.CA = strings.ToLower(p.Str("the name of a ca")) }},
	{word: "ciphers", relay: true, parse: func(p *parser, a *conf.Action) { a.Ciphers = p.Str("a list of ciphers") }},
	{word: "protocols", relay: true, parse: func(p *parser, a *conf.Action) { a.Protocols = p.Str("a list of protocols") }},
	{word: "src", relay: true, parse: func(p *parser, a *conf.Action) { a.BindTo = p.Ref(&a.Node, "src") }},
	{word: "mail-from", relay: true, parse: func(p *parser, a *conf.Action) { a.MailFrom = p.Str("an address") }},
	{word: "backup", relay: true, parse: (*parser).backup},
	{word: "host", relay: true, parse: (*parser).relayHost},
	{word: "domain", relay: true, parse: func(p *parser, a *conf.Action) { a.Domain = p.Ref(&a.Node, "domain") }},
	{word: "tls", relay: true, parse: func(p *parser, a *conf.Action) { a.TLS, a.NoVerify = true, p.Skip("no-verify") }},
	{word: "auth", relay: true, parse: func(p *parser, a *conf.Action) { a.AuthTable = p.Ref(&a.Node, "auth") }},
	{word: "filter", relay: true, parse: func(p *parser, a *conf.Action) { a.Filter = p.filterRef() }},
	{word: "srs", relay: true, parse: func(_ *parser, a *conf.Action) { a.SRS = true }},
}

// action reads ACTION NAME METHOD options.
func (p *parser) action(n conf.Node) *conf.Node {
	a := &conf.Action{Node: n}
	a.Name = p.Name(&a.Node, "the name of the action")
	if p.Bad {
		return nil
	}
	p.Cfg.Actions = append(p.Cfg.Actions, a)
	p.method(a)
	for p.More() {
		o := p.actionOption(a)
		if o == nil {
			break
		}
		pos := p.Tok.Pos
		p.Advance()
		p.Once(&a.Node, o.word, pos)
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
	m, ok := methods[p.Tok.Text]
	if p.Tok.Kind != lex.Word || !ok {
		hint := "methods are " + strings.Join(conf.MethodWords, ", ")
		if near := diag.Near(p.Tok.Text, conf.MethodWords); near != "" {
			hint = "did you mean " + near + "?"
		}
		p.Fail(p.Tok.Pos, hint, "expected a delivery method, got %s", p.Describe(p.Tok))
		return
	}
	syntax.Mark(&a.Node, "method", p.Tok.Pos)
	p.Advance()
	switch a.Method = m; m {
	case conf.Maildir:
		if p.IsString() {
			syntax.Mark(&a.Node, "path", p.Tok.Pos)
			a.Path = p.Str("a path")
		}
		a.Junk = p.Skip("junk")
	case conf.MDA:
		syntax.Mark(&a.Node, "command", p.Tok.Pos)
		a.Command = p.Str("a command")
	case conf.LMTP:
		syntax.Mark(&a.Node, "destination", p.Tok.Pos)
		a.LMTPDest = p.Str("host:port or the path of a socket")
		a.RcptTo = p.Skip("rcpt-to")
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
		case p.Tok.Kind != lex.Word || p.Tok.Text != o.word:
			if fits {
				words = append(words, o.word)
			}
		case fits:
			return o
		case local:
			p.Fail(p.Tok.Pos, "", "%q is an option of relay, not of local delivery", o.word)
			return nil
		default:
			p.Fail(p.Tok.Pos, "", "%q is an option of local delivery, not of relay", o.word)
			return nil
		}
	}
	p.UnknownOption("action … "+a.Method.String(), words)
	return nil
}

func (p *parser) backup(a *conf.Action) {
	a.Backup = true
	if p.Skip("mx") {
		a.BackupMX = p.Str("the name of a mail exchanger")
	}
}

// relayHost reads the url of a smarthost, or a table of them.
func (p *parser) relayHost(a *conf.Action) {
	syntax.Mark(&a.Node, "url", p.Tok.Pos)
	if !p.Bad && p.IsString() {
		a.Host = p.Str("the url of a relay")
		return
	}
	a.HostTable = p.Ref(&a.Node, "host")
	// A list of one is the same as a string.
	if t := p.Cfg.Table(a.HostTable); t != nil && t.Inline && t.Kind == conf.List && len(t.Entries) == 1 {
		a.Host, a.HostTable = t.Entries[0].Key, ""
	}
}
