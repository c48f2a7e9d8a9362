package check

import (
	"strings"

	"opensmtpd/src/conf"
)

// tls checks the words for ciphers and versions wherever they stand.
func (c *checker) tls() {
	c.ciphers(c.cfg.Server.SMTPCiphers.Value, c.cfg.Server.SMTPCiphers.Pos)
	for _, l := range c.cfg.Listens {
		c.ciphers(l.Ciphers, l.Place("ciphers"))
		c.protocols(l.Protocols, l.Place("protocols"))
	}
	for _, a := range c.cfg.Actions {
		c.ciphers(a.Ciphers, a.Place("ciphers"))
		c.protocols(a.Protocols, a.Place("protocols"))
	}
	for _, p := range c.cfg.PKIs {
		if p.DHE == "auto" || p.DHE == "legacy" {
			c.diags.Warnf(p.Place("dhe"), "dhe has no effect: keys are exchanged by ECDHE, which every client has")
		}
	}
}

func (c *checker) ciphers(list string, pos conf.Pos) {
	if list == "" || c.values.Ciphers == nil {
		return
	}
	missing, err := c.values.Ciphers(list)
	switch {
	case err != nil:
		c.diags.Errorf(pos, "%v", err)
	case len(missing) > 0:
		c.diags.Warnf(pos, "of these ciphers there are none here: %s", strings.Join(missing, " "))
	}
}

func (c *checker) protocols(list string, pos conf.Pos) {
	if list == "" || c.values.Protocols == nil {
		return
	}
	if err := c.values.Protocols(list); err != nil {
		c.diags.Errorf(pos, "%v", err)
	}
}
