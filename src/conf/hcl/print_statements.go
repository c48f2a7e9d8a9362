package hcl

import (
	"fmt"
	"strconv"
	"time"

	"opensmtpd/src/conf"
)

// lines gathers the attributes of a block.
type lines struct {
	w   *writer
	out []part
}

func (l *lines) set(word, value string) { l.out = append(l.out, part{key: word, value: value}) }

func (l *lines) flag(word string, on bool) {
	if on {
		l.set(word, "true")
	}
}

func (l *lines) str(word, s string) {
	if s != "" {
		l.set(word, str(s))
	}
}

func (l *lines) ref(word, kind, name string) {
	if name != "" {
		l.set(word, l.w.ref(kind, name))
	}
}

func (l *lines) table(word string, r conf.TableRef) {
	if r != "" {
		l.set(word, l.w.table(r))
	}
}

// filter writes the filter of a listener or a relay.
func (l *lines) filter(name string) {
	if f := l.w.filters[name]; f != nil && f.Inline {
		l.set("filter", l.w.chain(f))
		return
	}
	l.ref("filter", "filter", name)
}

// inside gathers the settings of a block, each with its own comments.
type inside struct {
	w    *writer
	body []part
}

// set adds a setting.
func (s *inside) set(n *conf.Node, word, value string) {
	if !n.Pos.IsZero() {
		s.body = append(s.body, part{key: word, value: value, node: n})
	}
}

func (s *inside) text(t *conf.Text, word string) { s.set(&t.Node, word, str(t.Value)) }

func (s *inside) delay(d *conf.Duration, word string) {
	s.set(&d.Node, word, quote(conf.FormatDelay(d.Value)))
}

// limit adds to the limit block of that head, if it is the last part, or to a
// new one.
func (s *inside) limit(head string, p part) {
	if n := len(s.body); n > 0 && s.body[n-1].head == head {
		s.body[n-1].body = append(s.body[n-1].body, p)
		return
	}
	s.body = append(s.body, part{head: head, body: []part{p}})
}

func (s *inside) limits(list []*conf.Limit) {
	for _, l := range list {
		if !l.Pos.IsZero() {
			s.limit("limit", part{key: l.Key, value: strconv.FormatInt(l.Value, 10), node: &l.Node})
		}
	}
}

// settings writes a block of settings, if there are any.
func (w *writer) settings(word string, fill func(*inside)) {
	s := &inside{w: w}
	fill(s)
	if len(s.body) > 0 {
		w.gap()
		w.line(0, word+" {")
		w.body(1, s.body)
		w.line(0, "}")
		w.gap()
	}
}

func (w *writer) server() {
	s := &w.cfg.Server
	if n := &s.ADMD; !n.Pos.IsZero() {
		w.above(n.Doc)
		w.line(0, "admd = "+str(n.Value)+end(&n.Node))
	}
	w.settings("bounce", func(in *inside) {
		out := make([]string, len(s.BounceWarn.Value))
		for i, d := range s.BounceWarn.Value {
			out[i] = quote(conf.FormatDelay(d))
		}
		in.set(&s.BounceWarn.Node, "warn-interval", list(out, 20))
	})
	w.settings("queue", func(in *inside) {
		in.set(&s.QueueCompression.Node, "compression", strconv.FormatBool(s.QueueCompression.Value))
		if e := &s.QueueEncryption; e.Value == "" {
			in.set(&e.Node, "encryption", "true")
		} else {
			in.text(e, "encryption")
		}
		in.delay(&s.QueueTTL, "ttl")
	})
	w.settings("smtp", func(in *inside) {
		in.text(&s.SMTPCiphers, "ciphers")
		in.limits(s.SMTPLimits)
		in.set(&s.MaxMessageSize.Node, "max-message-size", quote(conf.FormatSize(s.MaxMessageSize.Value)))
		in.text(&s.SubAddrDelim, "sub-addr-delim")
	})
	w.settings("mda", func(in *inside) { in.limits(s.MDALimits) })
	for _, wr := range s.Wrappers {
		w.stmt(&wr.Node, w.named("wrapper", wr.Name), part{key: "command", value: str(wr.Command)})
	}
	w.settings("mta", func(in *inside) { in.mtaLimits(s) })
	w.settings("scheduler", func(in *inside) { in.limits(s.SchedulerLimits) })
	w.settings("srs", func(in *inside) {
		in.text(&s.SRSKey, "key")
		in.text(&s.SRSKeyBackup, "key-backup")
		in.delay(&s.SRSTTL, "ttl")
	})
	w.gap()
}

func (s *inside) mtaLimits(server *conf.Server) {
	for _, l := range server.MTALimits {
		if l.Pos.IsZero() {
			continue
		}
		head := "limit"
		if l.Domain != "" {
			head = s.w.named("limit", l.Domain)
		}
		p := part{key: l.Key, value: strconv.FormatInt(l.Value, 10), node: &l.Node}
		if l.Key == "inet4" || l.Key == "inet6" {
			p.key, p.value = "family", quote(l.Key)
		}
		s.limit(head, p)
	}
	s.set(&server.MTAMaxDeferred.Node, "max-deferred", strconv.FormatInt(server.MTAMaxDeferred.Value, 10))
}

func (w *writer) pkis() {
	for _, k := range w.cfg.PKIs {
		l := &lines{w: w}
		l.str("cert", k.Cert)
		l.str("key", k.Key)
		l.str("dhe", k.DHE)
		w.stmt(&k.Node, w.named("pki", k.Name), l.out...)
	}
	for _, c := range w.cfg.CAs {
		w.stmt(&c.Node, w.named("ca", c.Name), part{key: "cert", value: str(c.Cert)})
	}
	w.gap()
}

// programs writes procs and filters.
func (w *writer) programs() {
	for _, c := range w.cfg.Procs {
		l := &lines{w: w}
		l.proc("command", c)
		w.stmt(&c.Node, w.named("proc", c.Name), l.out...)
	}
	for _, f := range w.cfg.Filters {
		if !f.Inline {
			w.filter(f)
		}
	}
	w.gap()
}

func (l *lines) proc(word string, c *conf.Proc) {
	l.str(word, c.Command)
	l.str("user", c.User)
	l.str("group", c.Group)
	l.str("chroot", c.Chroot)
}

func (l *lines) onFailure(f *conf.Filter) {
	if f.OnFailure == conf.Bypass {
		l.str("on-failure", "bypass")
	}
}

func (l *lines) greylist(f *conf.Filter) {
	if f.Decide.Kind != "greylist" {
		return
	}
	g, usual := f.Decide.Grey, conf.UsualGrey()
	one := func(word string, d, usual time.Duration) {
		if d != usual {
			l.str(word, conf.FormatDelay(d))
		}
	}
	one("delay", g.Delay, usual.Delay)
	one("expire", g.Expire, usual.Expire)
	one("whitelist", g.Whitelist, usual.Whitelist)
}

func (w *writer) chain(f *conf.Filter) string {
	out := make([]string, len(f.Chain))
	for i, name := range f.Chain {
		out[i] = w.ref("filter", name)
	}
	return list(out, 20)
}

func (w *writer) filter(f *conf.Filter) {
	l := &lines{w: w}
	switch f.Kind {
	case conf.FilterChain:
		l.set("chain", w.chain(f))
	case conf.FilterProc:
		l.ref("proc", "proc", f.Proc.Name)
		l.onFailure(f)
	case conf.FilterProcExec:
		l.proc("proc-exec", f.Proc)
		l.onFailure(f)
	case conf.FilterBuiltin:
		l.str("phase", f.Phase)
		for _, c := range f.Conds {
			l.set(c.Kind, w.cond(c.Not, c.Regex, c.Table))
		}
		if k := f.Decide.Kind; k == "junk" || k == "bypass" || k == "greylist" {
			l.flag(k, true)
			l.greylist(f)
		} else {
			l.set(k, str(f.Decide.Arg))
		}
	}
	w.stmt(&f.Node, w.named("filter", f.Name), l.out...)
}

func (w *writer) listens() {
	for _, n := range w.cfg.Listens {
		if !n.Pos.IsZero() {
			w.listen(n)
		}
	}
	w.gap()
}

func (w *writer) listen(n *conf.Listen) {
	l := &lines{w: w}
	l.str("family", [...]string{"", "inet4", "inet6"}[n.Family])
	if i, err := strconv.ParseUint(n.Port, 10, 16); err == nil && i > 0 && fmt.Sprint(i) == n.Port {
		l.set("port", n.Port)
	} else {
		l.str("port", n.Port)
	}
	l.str("tls", [...]string{"", "offer", "require", "smtps"}[n.TLS])
	l.flag("verify", n.TLSVerify)
	if len(n.PKIs) > 0 {
		out := make([]string, len(n.PKIs))
		for i, name := range n.PKIs {
			out[i] = w.ref("pki", name)
		}
		if len(out) == 1 {
			l.set("pki", out[0])
		} else {
			l.set("pki", list(out, 20))
		}
	}
	l.ref("ca", "ca", n.CA)
	l.str("ciphers", n.Ciphers)
	l.str("protocols", n.Protocols)
	l.str("auth", [...]string{"", "optional", "require"}[n.Auth])
	l.table("credentials", n.AuthTable)
	l.filter(n.Filter)
	l.str("hostname", n.Hostname)
	l.table("hostnames", n.Hostnames)
	l.flag("mask-src", n.MaskSrc)
	l.flag("no-dsn", n.NoDSN)
	l.flag("proxy-v2", n.ProxyV2)
	l.flag("received-auth", n.RecvAuth)
	l.table("senders", n.Senders)
	l.flag("masquerade", n.Masquerade)
	l.str("tag", n.Tag)
	if n.Socket {
		w.stmt(&n.Node, "socket", l.out...)
	} else {
		w.stmt(&n.Node, w.named("listen", n.On), l.out...)
	}
}

func (w *writer) actions() {
	for _, a := range w.cfg.Actions {
		l := &lines{w: w}
		if a.Method.Local() {
			l.local(a)
		} else {
			l.relay(a)
		}
		if a.TTL != 0 {
			l.set("ttl", quote(conf.FormatDelay(a.TTL)))
		}
		w.stmt(&a.Node, w.named("action", a.Name), part{head: a.Method.String(), body: l.out})
	}
	w.gap()
}

func (l *lines) local(a *conf.Action) {
	l.str("path", a.Path)
	l.flag("junk", a.Junk)
	l.str("command", a.Command)
	l.str("destination", a.LMTPDest)
	l.flag("rcpt-to", a.RcptTo)
	l.table("alias", a.Alias)
	l.table("virtual", a.Virtual)
	l.table("userbase", a.UserBase)
	l.str("user", a.User)
	l.ref("wrapper", "wrapper", a.Wrapper)
}

func (l *lines) relay(a *conf.Action) {
	l.str("host", a.Host)
	l.table("host", a.HostTable)
	l.table("domain", a.Domain)
	l.table("auth", a.AuthTable)
	l.flag("backup", a.Backup)
	l.str("mx", a.BackupMX)
	l.flag("tls", a.TLS)
	l.flag("no-verify", a.NoVerify)
	l.ref("pki", "pki", a.PKI)
	l.ref("ca", "ca", a.CA)
	l.str("ciphers", a.Ciphers)
	l.str("protocols", a.Protocols)
	l.str("helo", a.Helo)
	l.table("helo-src", a.HeloSrc)
	l.table("src", a.BindTo)
	l.str("mail-from", a.MailFrom)
	l.filter(a.Filter)
	l.flag("srs", a.SRS)
}

func (w *writer) matches() {
	for _, m := range w.cfg.Matches {
		l := &lines{w: w}
		l.set("from", w.side(fromKinds[m.FromKind], m.From))
		l.set("for", w.side(forKinds[m.ForKind], m.For))
		for _, c := range []struct {
			word string
			conf.Cond
		}{{"tag", m.Tag}, {"helo", m.Helo}, {"tls", m.TLS}, {"auth", m.Auth}, {"mail-from", m.MailFrom}, {"rcpt-to", m.RcptTo}} {
			if c.Set() {
				l.set(c.word, w.cond(c.Not, c.Regex, c.Table))
			}
		}
		if m.Reject {
			l.set("reject", "true")
		} else {
			l.ref("action", "action", m.Action)
		}
		w.stmt(&m.Node, "match", l.out...)
	}
}

// side writes the source or the destination that a rule wants.
func (w *writer) side(k kind, c conf.Cond) string {
	s := quote(k.word)
	if k.call {
		s = k.word + "(" + w.pattern(c.Regex, c.Table) + ")"
	}
	if c.Not {
		return "not(" + s + ")"
	}
	return s
}
