package printer

import (
	"strings"
	"time"

	"opensmtpd/src/conf"
)

// opts gathers the words of a statement.
type opts struct {
	p     *printer
	words []string
}

// flag adds a word when it holds.
func (o *opts) flag(on bool, word string) {
	if on {
		o.words = append(o.words, word)
	}
}

// str adds a word and a string when there is one.
func (o *opts) str(word, s string) {
	if s != "" {
		o.words = append(o.words, word, o.p.word(s))
	}
}

// ref adds a word and a table when there is one.
func (o *opts) ref(word string, r conf.TableRef) {
	if r != "" {
		o.words = append(o.words, word, o.p.ref(r))
	}
}

// filter adds the filter of a listener or a relay.
func (o *opts) filter(name string) {
	if name == "" {
		return
	}
	if f := o.p.filters[name]; f != nil && f.Inline {
		o.words = append(o.words, "filter", o.p.chain(f))
		return
	}
	o.str("filter", name)
}

func (o *opts) ttl(d time.Duration) {
	if d != 0 {
		o.words = append(o.words, "ttl", conf.FormatDelay(d))
	}
}

func (p *printer) chain(f *conf.Filter) string {
	names := make([]string, len(f.Chain))
	for i, n := range f.Chain {
		names[i] = p.word(n)
	}
	return "{ " + strings.Join(names, ", ") + " }"
}

func (p *printer) pkis() {
	for _, k := range p.cfg.PKIs {
		o := &opts{p, []string{"pki", p.word(k.Name)}}
		o.str("cert", k.Cert)
		o.str("key", k.Key)
		o.str("dhe", k.DHE)
		p.stmt(&k.Node, o.words...)
	}
	for _, c := range p.cfg.CAs {
		p.stmt(&c.Node, "ca", p.word(c.Name), "cert", p.word(c.Cert))
	}
	p.gap()
}

// programs writes procs and filters.
func (p *printer) programs() {
	for _, c := range p.cfg.Procs {
		o := &opts{p, []string{"proc", p.word(c.Name), p.word(c.Command)}}
		o.proc(c)
		p.stmt(&c.Node, o.words...)
	}
	for _, f := range p.cfg.Filters {
		if !f.Inline {
			p.filter(f)
		}
	}
	p.gap()
}

func (o *opts) proc(c *conf.Proc) {
	o.str("user", c.User)
	o.str("group", c.Group)
	o.str("chroot", c.Chroot)
}

func (o *opts) onFailure(f *conf.Filter) {
	o.flag(f.OnFailure == conf.Bypass, "on-failure")
	o.flag(f.OnFailure == conf.Bypass, "bypass")
}

func (o *opts) greylist(g conf.Grey) {
	usual := conf.UsualGrey()
	one := func(word string, d, usual time.Duration) {
		if d != usual {
			o.words = append(o.words, word, conf.FormatDelay(d))
		}
	}
	one("delay", g.Delay, usual.Delay)
	one("expire", g.Expire, usual.Expire)
	one("whitelist", g.Whitelist, usual.Whitelist)
}

func (p *printer) filter(f *conf.Filter) {
	o := &opts{p, []string{"filter", p.word(f.Name)}}
	switch f.Kind {
	case conf.FilterChain:
		o.words = append(o.words, "chain", p.chain(f))
	case conf.FilterProc:
		o.words = append(o.words, "proc", p.word(f.Proc.Name))
		o.onFailure(f)
	case conf.FilterProcExec:
		o.words = append(o.words, "proc-exec", p.word(f.Proc.Command))
		o.proc(f.Proc)
		o.onFailure(f)
	case conf.FilterBuiltin:
		o.words = append(o.words, "phase", f.Phase, "match")
		for _, c := range f.Conds {
			o.cond(conf.Cond{Pos: f.Pos, Not: c.Not, Regex: c.Regex, Table: c.Table}, c.Kind)
		}
		o.words = append(o.words, f.Decide.Kind)
		if k := f.Decide.Kind; k == "greylist" {
			o.greylist(f.Decide.Grey)
		} else if k != "junk" && k != "bypass" {
			o.words = append(o.words, p.word(f.Decide.Arg))
		}
	}
	p.stmt(&f.Node, o.words...)
}

// cond adds a condition with its negation, regex and table.
func (o *opts) cond(c conf.Cond, word string) {
	if !c.Set() {
		return
	}
	if c.Not {
		word = "!" + word
	}
	o.words = append(o.words, word)
	o.flag(c.Regex, "regex")
	if c.Table != "" {
		o.words = append(o.words, o.p.ref(c.Table))
	}
}

func (p *printer) listens() {
	for _, l := range p.cfg.Listens {
		if !l.Pos.IsZero() {
			p.listen(l)
		}
	}
	p.gap()
}

func (p *printer) listen(l *conf.Listen) {
	o := &opts{p, []string{"listen on"}}
	if l.Socket {
		o.words = append(o.words, "socket")
	} else {
		o.words = append(o.words, p.word(l.On))
	}
	o.flag(l.Family == conf.Inet4, "inet4")
	o.flag(l.Family == conf.Inet6, "inet6")
	o.port(l.Port)
	o.flag(l.TLS == conf.SMTPS, "smtps")
	o.flag(l.TLS == conf.StartTLS, "tls")
	o.flag(l.TLS == conf.StartTLSRequire, "tls-require")
	o.flag(l.TLSVerify, "verify")
	for _, name := range l.PKIs {
		o.str("pki", name)
	}
	o.str("ca", l.CA)
	o.str("ciphers", l.Ciphers)
	o.str("protocols", l.Protocols)
	switch l.Auth {
	case conf.AuthRequire:
		o.words = append(o.words, "auth")
	case conf.AuthOptional:
		o.words = append(o.words, "auth-optional")
	case conf.NoAuth:
	}
	if l.AuthTable != "" {
		o.words = append(o.words, p.ref(l.AuthTable))
	}
	o.filter(l.Filter)
	o.str("hostname", l.Hostname)
	o.ref("hostnames", l.Hostnames)
	o.flag(l.MaskSrc, "mask-src")
	o.flag(l.NoDSN, "no-dsn")
	o.flag(l.ProxyV2, "proxy-v2")
	o.flag(l.RecvAuth, "received-auth")
	o.ref("senders", l.Senders)
	o.flag(l.Masquerade, "masquerade")
	o.str("tag", l.Tag)
	p.stmt(&l.Node, o.words...)
}

// port adds a port: a number stays a number, two services are reserved words.
func (o *opts) port(s string) {
	switch {
	case s == "":
	case strings.Trim(s, "0123456789") == "" || s == "smtp" || s == "smtps":
		o.words = append(o.words, "port", s)
	default:
		o.str("port", s)
	}
}

func (p *printer) actions() {
	for _, a := range p.cfg.Actions {
		o := &opts{p, []string{"action", p.word(a.Name), a.Method.String()}}
		if a.Method.Local() {
			o.local(a)
		} else {
			o.relay(a)
		}
		o.ttl(a.TTL)
		p.stmt(&a.Node, o.words...)
	}
	p.gap()
}

func (o *opts) local(a *conf.Action) {
	switch a.Method {
	case conf.Maildir:
		if a.Path != "" {
			o.words = append(o.words, o.p.word(a.Path))
		}
		o.flag(a.Junk, "junk")
	case conf.MDA:
		o.words = append(o.words, o.p.word(a.Command))
	case conf.LMTP:
		o.words = append(o.words, o.p.word(a.LMTPDest))
		o.flag(a.RcptTo, "rcpt-to")
	case conf.MBOX, conf.ExpandOnly, conf.ForwardOnly, conf.Relay, conf.Bounce:
	}
	o.ref("alias", a.Alias)
	o.ref("virtual", a.Virtual)
	o.ref("userbase", a.UserBase)
	o.str("user", a.User)
	o.str("wrapper", a.Wrapper)
}

func (o *opts) relay(a *conf.Action) {
	o.str("host", a.Host)
	o.ref("host", a.HostTable)
	o.ref("domain", a.Domain)
	o.ref("auth", a.AuthTable)
	o.flag(a.Backup, "backup")
	o.str("mx", a.BackupMX)
	o.flag(a.TLS, "tls")
	o.flag(a.NoVerify, "no-verify")
	o.str("pki", a.PKI)
	o.str("ca", a.CA)
	o.str("ciphers", a.Ciphers)
	o.str("protocols", a.Protocols)
	o.str("helo", a.Helo)
	o.ref("helo-src", a.HeloSrc)
	o.ref("src", a.BindTo)
	o.str("mail-from", a.MailFrom)
	o.filter(a.Filter)
	o.flag(a.SRS, "srs")
}

func (p *printer) matches() {
	for _, m := range p.cfg.Matches {
		o := &opts{p, []string{"match"}}
		o.from(m)
		o.dest(m)
		o.cond(m.Tag, "tag")
		o.cond(m.Helo, "helo")
		o.cond(m.TLS, "tls")
		o.cond(m.Auth, "auth")
		o.cond(m.MailFrom, "mail-from")
		o.cond(m.RcptTo, "rcpt-to")
		if m.Reject {
			o.words = append(o.words, "reject")
		} else {
			o.words = append(o.words, "action", p.word(m.Action))
		}
		p.stmt(&m.Node, o.words...)
	}
}

func (o *opts) from(m *conf.Match) {
	word := "from " + [...]string{"local", "any", "socket", "src", "rdns", "auth", "mail-from"}[m.FromKind]
	c := m.From
	c.Pos = m.Pos // spelled out even when it was not written
	o.cond(c, word)
}

func (o *opts) dest(m *conf.Match) {
	word := "for " + [...]string{"local", "any", "domain", "rcpt-to"}[m.ForKind]
	c := m.For
	c.Pos = m.Pos
	o.cond(c, word)
}
