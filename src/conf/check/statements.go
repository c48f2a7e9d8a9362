package check

import (
	"fmt"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/mda/format"
)

// listen checks what one listener's options say together.
func (c *checker) listen(l *conf.Listen) {
	if l.Filter != "" {
		c.useFilter(l.Filter, l.Place("filter"))
	}
	if l.Socket {
		return
	}
	for _, name := range l.PKIs {
		c.findPKI(name, l.Place("pki "+name))
	}
	if l.CA != "" {
		c.findCA(l.CA, l.Place("ca"))
	}
	const tls = "tls, tls-require or smtps"
	if l.TLS == conf.NoTLS {
		if len(l.PKIs) > 0 {
			c.hinted(l.Place("pki"), "add "+tls, "pki requires %s", tls)
		}
		if l.CA != "" {
			c.hinted(l.Place("ca"), "add "+tls, "ca requires %s", tls)
		}
	} else if len(l.PKIs) == 0 {
		c.hinted(l.Place("TLS mode"), "add pki NAME", "pki required for %s",
			[...]string{"", "tls", "tls-require", "smtps"}[l.TLS])
	}
	if l.Hostname != "" && !validHost(l.Hostname) {
		c.diags.Warnf(l.Place("hostname"), "%q is not a host name: other servers may refuse it", l.Hostname)
	}
	if l.Senders != "" && l.Auth == conf.NoAuth {
		c.diags.Warnf(l.Place("senders"), "senders has no effect without auth")
	}
}

// sockets checks that there is at most one socket listener.
func (c *checker) sockets() {
	var first *conf.Listen
	for _, l := range c.cfg.Listens {
		switch {
		case !l.Socket:
		case first == nil:
			first = l
		default:
			c.hinted(l.Pos, fmt.Sprintf("the first is in line %d", first.Pos.Line), "socket listener already configured")
		}
	}
}

// useFilter checks the filter of a listener or an action. Inline chains were
// checked as filters.
func (c *checker) useFilter(name string, pos conf.Pos) {
	if f := c.filters[name]; f == nil || !f.Inline {
		c.findFilter(name, pos)
	}
}

// action checks what one action's options say together.
func (c *checker) action(a *conf.Action) {
	if a.Method.Local() {
		c.local(a)
		return
	}
	if a.Filter != "" {
		c.useFilter(a.Filter, a.Place("filter"))
	}
	if a.PKI != "" {
		c.findPKI(a.PKI, a.Place("pki"))
	}
	if a.CA != "" {
		c.findCA(a.CA, a.Place("ca"))
	}
	c.relay(a)
}

func (c *checker) local(a *conf.Action) {
	if a.User != "" {
		switch a.Method {
		case conf.MBOX, conf.ForwardOnly, conf.ExpandOnly:
			c.diags.Errorf(a.Place("user"), "user may not be specified for %v", a.Method)
		case conf.Maildir, conf.MDA, conf.LMTP, conf.Relay, conf.Bounce:
		}
	}
	if a.Alias != "" && a.Virtual != "" {
		c.diags.Errorf(later(a.Place("alias"), a.Place("virtual")), "alias and virtual are mutually exclusive")
	}
	if a.Wrapper != "" {
		find(c, c.wrappers, "mda wrapper", a.Wrapper, a.Place("wrapper"))
		if a.Method == conf.MBOX {
			c.diags.Warnf(a.Place("wrapper"), "no command delivers to an mbox: the wrapper is for commands and files of aliases and .forward alone")
		}
	}
	if a.Method == conf.LMTP && a.LMTPDest != "" {
		if err := checkLMTP(a.LMTPDest); err != nil {
			c.hinted(a.Place("destination"), "host:port, or the path of a socket", "lmtp destination %q: %v", a.LMTPDest, err)
		}
	}
	c.format(a.Path, false, a.Place("path"))
	c.format(a.Command, false, a.Place("command"))
}

// format checks the format specifiers of a path or a command.
func (c *checker) format(template string, wrapper bool, pos conf.Pos) {
	if err := format.Check(template, wrapper); err != nil {
		c.diags.Errorf(pos, "%v", err)
	}
}

func (c *checker) relay(a *conf.Action) {
	hosts := a.Host != "" || a.HostTable != ""
	if hosts && a.Domain != "" {
		c.diags.Errorf(later(a.Place("host"), a.Place("domain")), "host and domain are mutually exclusive")
	}
	if a.Backup && hosts {
		c.diags.Errorf(later(a.Place("host"), a.Place("backup")), "backup and host are mutually exclusive")
	}
	if a.Backup && a.Domain != "" {
		c.diags.Errorf(later(a.Place("domain"), a.Place("backup")), "backup and domain are mutually exclusive")
	}
	if a.AuthTable != "" && !hosts && a.Domain == "" {
		c.diags.Errorf(a.Place("auth"), "auth may not be specified without host on an action")
	}
	if a.SRS && c.cfg.Server.SRSKey.Value == "" {
		c.hinted(a.Place("srs"), "add srs key SECRET", "an srs key is required for srs to be specified in an action")
	}
	if a.Host != "" {
		if f := c.relayURL(a, a.Host, true); f.Message != "" {
			f.Pos = a.Place("url")
			c.diags.Add(f)
		}
	}
	if a.MailFrom != "" && !validMailbox(a.MailFrom) {
		c.diags.Errorf(a.Place("mail-from"), "%q is not a mail address", a.MailFrom)
	}
	if a.Helo != "" && !validHost(a.Helo) && !validLiteral(a.Helo) {
		c.diags.Warnf(a.Place("helo"), "%q is not a host name: other servers may refuse it", a.Helo)
	}
}

// relayURL checks one url of an action, or the only one.
func (c *checker) relayURL(a *conf.Action, url string, only bool) diag.Diag {
	u, err := conf.ParseRelay(url)
	f := diag.Diag{Severity: diag.Error}
	switch {
	case err != nil:
		f.Message = fmt.Sprintf("relay url %q: %v", url, err)
	case a.TLS && (u.Scheme == "smtp+notls" || u.Scheme == "lmtp"):
		f.Message = fmt.Sprintf("tls and %s:// are mutually exclusive", u.Scheme)
	case u.Label != "" && a.AuthTable == "":
		f.Message = fmt.Sprintf("the label %q of relay url %q needs a table of credentials", u.Label, url)
		f.Hint = "add auth <table>"
	case u.Label == "" && a.AuthTable != "" && only:
		f.Severity, f.Message = diag.Warning, fmt.Sprintf("relay url %q has no label: auth has no effect", url)
	}
	return f
}

// match checks that what a rule names exists.
func (c *checker) match(m *conf.Match) {
	if !m.Reject {
		find(c, c.actions, "action", m.Action, m.Place("action"))
	}
}

// later returns the place further down, which is where two things collide.
func later(a, b conf.Pos) conf.Pos {
	if a.File == b.File && (a.Line > b.Line || a.Line == b.Line && a.Col > b.Col) {
		return a
	}
	return b
}
