package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
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
		c.meantTable(u, t)
		if c.kind(u, t) {
			c.entries(u, t)
		}
	}
}

// meantTable warns of a value that is the name of a table.
func (c *checker) meantTable(u conf.Use, t *conf.Table) {
	if !t.Inline || len(t.Entries) != 1 || t.Kind != conf.List {
		return
	}
	if meant := c.tables[t.Entries[0].Key]; meant != nil && !meant.Inline {
		c.diags.Add(diag.Diag{Severity: diag.Warning, Pos: u.Pos,
			Message: fmt.Sprintf("%q is a value here, not the table of that name", meant.Name), Hint: "the table is <" + meant.Name + ">"})
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

// entries checks the elements of a table against its use: those of a file as far
// as somebody reads it to us, and they are warned of, since the others serve.
func (c *checker) entries(u conf.Use, t *conf.Table) {
	check := c.entryCheck(u)
	if t.Backend != "static" {
		c.fileEntries(u, t, check)
		return
	}
	for _, e := range t.Entries {
		pos := e.Pos
		if pos.IsZero() {
			pos = u.Pos
		}
		if f := check(e); f.Message != "" {
			f.Pos = pos
			c.diags.Add(f)
		}
	}
}

// maxSaid bounds what is said of one file.
const maxSaid = 10

func (c *checker) fileEntries(u conf.Use, t *conf.Table, check entryCheck) {
	if c.values.Entries == nil || t.Backend != "file" && t.Backend != "db" {
		return
	}
	said := 0
	err := c.values.Entries(u, t, func(line int, e conf.Entry, again bool) {
		f := check(e)
		if again && f.Message == "" {
			f.Message = fmt.Sprintf("%q is there twice: the last one counts", e.Key)
		}
		if f.Message == "" || said > maxSaid {
			return
		}
		if said++; said > maxSaid {
			f.Message, f.Hint = "and so on", ""
		}
		f.Severity, f.Pos = diag.Warning, conf.Pos{File: t.Config, Line: line, Col: 1}
		if line == 0 {
			f.Message, f.Pos = "table "+t.Name+": "+f.Message, t.Place("config")
		}
		c.diags.Add(f)
	})
	if err != nil {
		c.diags.Errorf(t.Place("config"), "table %s: %v", t.Name, err)
	}
}

// entryCheck tells what is wrong with an entry, in a finding without a place.
type entryCheck func(conf.Entry) diag.Diag

func right(conf.Entry) diag.Diag { return diag.Diag{} }

// wrong makes an entryCheck of what returns errors.
func wrong(check func(conf.Entry) error) entryCheck {
	return func(e conf.Entry) diag.Diag {
		if err := check(e); err != nil {
			return diag.Diag{Severity: diag.Error, Message: err.Error()}
		}
		return diag.Diag{}
	}
}

// value makes an entryCheck of what reads the value of a key.
func value(what string, read func(string) error) entryCheck {
	if read == nil {
		return right
	}
	return wrong(func(e conf.Entry) error {
		if err := read(e.Value); err != nil {
			return fmt.Errorf("%s %q: %w", what, e.Key, err)
		}
		return nil
	})
}

// entryCheck returns how to look at the entries of a table for a use.
func (c *checker) entryCheck(u conf.Use) entryCheck {
	if u.Regex {
		return wrong(regex)
	}
	switch u.Service {
	case conf.NetAddrService, conf.AddrNameService:
		return wrong(netAddr)
	case conf.SourceService:
		return wrong(source)
	case conf.UserInfoService:
		return wrong(func(e conf.Entry) error { return userInfo(e.Key, e.Value) })
	case conf.AliasService, conf.VirtualService:
		return value("alias", c.values.Alias)
	case conf.MailAddrMapService:
		return value("user", c.values.Addresses)
	case conf.DomainService:
		return domain
	case conf.RelayHostService, conf.RelayMapService:
		return c.relayEntry(u)
	case conf.CredentialsService:
		return c.credentials(u)
	case conf.MailAddrService:
		return nullSender
	case conf.StringService:
	}
	return right
}

func regex(e conf.Entry) error {
	if _, err := conf.CompileRegex(e.Key); err != nil {
		return fmt.Errorf("regular expression %q: %s", e.Key, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

func netAddr(e conf.Entry) error {
	if e.Key == "local" {
		return nil
	}
	if _, _, err := conf.ParseNet(e.Key); err != nil {
		return fmt.Errorf("%q is %w", e.Key, err)
	}
	return nil
}

func source(e conf.Entry) error {
	p, _, err := conf.ParseNet(e.Key)
	switch {
	case err != nil:
		return fmt.Errorf("%q is %w", e.Key, err)
	case !p.IsSingleIP():
		return fmt.Errorf("%q is a network, an address is needed", e.Key)
	}
	return nil
}

// domain warns of what is no domain and so matches none.
func domain(e conf.Entry) diag.Diag {
	f := diag.Diag{Severity: diag.Warning}
	if strings.ContainsAny(e.Key, "@/ \t") {
		f.Message = fmt.Sprintf("%q is not a domain, and matches nothing", e.Key)
	}
	if strings.Contains(e.Key, "@") {
		f.Hint = "for mail addresses there are for rcpt-to and from mail-from"
	}
	return f
}

// nullSender warns of how nobody's address is not written.
func nullSender(e conf.Entry) diag.Diag {
	f := diag.Diag{Severity: diag.Warning}
	if e.Key == "" {
		f.Message, f.Hint = `"" matches nothing`, `the regex for the empty sender of reports is "^@$"`
	}
	return f
}

// relayEntry looks at the urls of a table for the action that uses it.
func (c *checker) relayEntry(u conf.Use) entryCheck {
	i := slices.IndexFunc(c.cfg.Actions, func(a *conf.Action) bool { return &a.Node == u.Node })
	if i < 0 {
		return right
	}
	return func(e conf.Entry) diag.Diag {
		url := e.Key
		if u.Service == conf.RelayMapService {
			url = e.Value
		}
		return c.relayURL(c.cfg.Actions[i], url, false)
	}
}

// credentials looks at passwords: those of users of a listener are encrypted,
// those for a relay are not.
func (c *checker) credentials(u conf.Use) entryCheck {
	switch {
	case strings.HasPrefix(u.What, "action"):
		return wrong(func(e conf.Entry) error {
			if user, _, ok := strings.Cut(e.Value, ":"); !ok || user == "" {
				return fmt.Errorf("credentials of %q must be user:password", e.Key)
			}
			return nil
		})
	case strings.HasPrefix(u.What, "listen") && c.values.Password != nil:
		return func(e conf.Entry) diag.Diag {
			f := diag.Diag{Severity: diag.Warning}
			if err := c.values.Password(e.Key, e.Value); err != nil {
				f.Message = fmt.Sprintf("user %q cannot authenticate: %v", e.Key, err)
				f.Hint = "smtpctl encrypt makes a hash of a password"
			}
			return f
		}
	}
	return right
}

// userInfo checks uid:gid:home.
func userInfo(name, value string) error {
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
