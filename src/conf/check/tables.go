package check

import (
	"fmt"
	"strconv"
	"strings"

	"opensmtpd/src/conf"
)

// uses checks every mention of a table: that it exists, that it holds what is
// asked of it, and that its entries make sense for that.
func (c *checker) uses() {
	for _, u := range conf.Uses(c.cfg) {
		if u.Node.Bad {
			continue
		}
		t, ok := c.findTable(string(*u.Ref), u.Pos)
		if !ok || t.Bad {
			continue
		}
		if c.kind(u, t) {
			c.entries(u, t)
		}
	}
}

// kind checks that a table can serve a use.
func (c *checker) kind(u conf.Use, t *conf.Table) bool {
	if _, ok := t.Dovecot(); ok && (t.Backend == "dovecot" || u.What == "listen on … auth") {
		if u.What != "listen on … auth" {
			c.diags.Errorf(u.Pos, "table %q may not be used for %s: dovecot verifies passwords only", t.Name, u.What)
		}
		return false
	}
	if t.Backend == "getpwnam" {
		if u.Service != conf.UserInfoService {
			c.diags.Errorf(u.Pos, "table %q may not be used for %s: getpwnam knows users only", t.Name, u.What)
			return false
		}
		return true
	}
	kind, known := t.Kind, t.Backend == "static"
	if k, ok := c.kinds[t.Name]; ok {
		kind, known = k, true
	}
	is := fmt.Sprintf("table %q may not be used for %s: it is", t.Name, u.What)
	if t.Inline {
		is = "this may not be used for " + u.What + ": it is"
	}
	switch {
	case !known:
	case kind == conf.List && !u.Lists:
		c.hinted(u.Pos, "entries of a mapping are written key = value", "%s a list, a mapping is needed", is)
		return false
	case kind == conf.Map && !u.Maps && u.Regex:
		c.diags.Errorf(u.Pos, "%s a mapping, a list of regular expressions is needed", is)
		return false
	case kind == conf.Map && !u.Maps:
		hint := ""
		if t.Backend != "static" {
			hint = `a first line "# @list" makes the file a list`
		}
		c.hinted(u.Pos, hint, "%s a mapping, a list is needed", is)
		return false
	}
	return true
}

// entries checks the elements of a static table against its use.
func (c *checker) entries(u conf.Use, t *conf.Table) {
	check := c.entryCheck(u)
	if u.Service == conf.RelayHostService || u.Service == conf.RelayMapService {
		c.relayEntries(u, t)
		return
	}
	if check == nil || t.Backend != "static" {
		return
	}
	for _, e := range t.Entries {
		if err := check(e); err != nil {
			pos := e.Pos
			if pos.IsZero() {
				pos = u.Pos
			}
			c.diags.Errorf(pos, "%v", err)
		}
	}
}

// relayEntries checks the urls of a table against the action that uses it.
func (c *checker) relayEntries(u conf.Use, t *conf.Table) {
	for _, a := range c.cfg.Actions {
		if &a.Node != u.Node {
			continue
		}
		for _, e := range t.Entries {
			url := e.Key
			if t.Kind == conf.Map {
				url = e.Value
			}
			c.relayURL(a, url, e.Pos, false)
		}
	}
}

// entryCheck returns how to look at the entries of a table for a use, or nil.
func (c *checker) entryCheck(u conf.Use) func(conf.Entry) error {
	switch {
	case u.Regex:
		return func(e conf.Entry) error {
			if _, err := conf.CompileRegex(e.Key); err != nil {
				return fmt.Errorf("regular expression %q: %s", e.Key, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			}
			return nil
		}
	case u.Service == conf.NetAddrService || u.Service == conf.AddrNameService:
		return func(e conf.Entry) error {
			if e.Key == "local" {
				return nil
			}
			if _, _, err := conf.ParseNet(e.Key); err != nil {
				return fmt.Errorf("%q is %w", e.Key, err)
			}
			return nil
		}
	case u.Service == conf.SourceService:
		return func(e conf.Entry) error {
			p, _, err := conf.ParseNet(e.Key)
			switch {
			case err != nil:
				return fmt.Errorf("%q is %w", e.Key, err)
			case !p.IsSingleIP():
				return fmt.Errorf("%q is a network, an address is needed", e.Key)
			}
			return nil
		}
	case u.Service == conf.UserInfoService:
		return func(e conf.Entry) error { return checkUserInfo(e.Key, e.Value) }
	case u.Service == conf.CredentialsService && strings.HasPrefix(u.What, "action"):
		return func(e conf.Entry) error {
			if user, _, ok := strings.Cut(e.Value, ":"); !ok || user == "" {
				return fmt.Errorf("credentials of %q must be user:password", e.Key)
			}
			return nil
		}
	}
	return nil
}

// checkUserInfo checks uid:gid:home.
func checkUserInfo(name, value string) error {
	f := strings.SplitN(value, ":", 3)
	if len(f) != 3 {
		return fmt.Errorf("user %q: %q is not uid:gid:home", name, value)
	}
	for i, what := range [...]string{"uid", "gid"} {
		if _, err := strconv.ParseUint(f[i], 10, 32); err != nil {
			return fmt.Errorf("user %q: %q is not a %s", name, f[i], what)
		}
	}
	if !strings.HasPrefix(f[2], "/") {
		return fmt.Errorf("user %q: home %q is not an absolute path", name, f[2])
	}
	return nil
}
