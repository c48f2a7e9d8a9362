// Package check is the meaning pass: it looks at a configuration that some front
// end has read, for what no grammar can say. It needs nothing of the machine; what
// does is in package load.
package check

import (
	"fmt"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// Kinds tells what the tables hold that are not static, when that is known: a
// file decides by its first line. Tables that are not in it can hold anything.
type Kinds map[string]conf.Kind

// Values reads values whose words are known above this package; what is nil is
// not looked at.
type Values struct {
	// Ciphers returns the words that select nothing here.
	Ciphers   func(list string) (missing []string, err error)
	Protocols func(list string) error

	Alias     func(value string) error      // what a name is expanded to
	Password  func(user, hash string) error // of a user of a listener
	Addresses func(list string) error       // that a user may send from
	// Entries calls fn for each entry of a file or db as u finds it, with its line
	// or 0. again tells that the key is there several times.
	Entries func(u conf.Use, t *conf.Table, fn func(line int, e conf.Entry, again bool)) error
}

// Config adds all that is wrong with cfg to diags.
func Config(cfg *conf.Config, kinds Kinds, values Values, diags *diag.List) {
	c := &checker{
		cfg: cfg, kinds: kinds, values: values, diags: diags,
		tables: make(map[string]*conf.Table), filters: make(map[string]*conf.Filter),
		actions: make(map[string]*conf.Action), procs: make(map[string]*conf.Proc),
		pkis: make(map[string]*conf.PKI), cas: make(map[string]*conf.CA),
		wrappers: make(map[string]*conf.Wrapper),
	}
	c.declared()
	c.pki()
	c.filterChains()
	for _, w := range cfg.Server.Wrappers {
		if !w.Bad {
			c.format(w.Command, true, w.Place("command"))
		}
	}
	for _, l := range cfg.Listens {
		if !l.Bad {
			c.listen(l)
		}
	}
	c.sockets()
	for _, a := range cfg.Actions {
		if !a.Bad {
			c.action(a)
		}
	}
	for _, m := range cfg.Matches {
		if !m.Bad {
			c.match(m)
		}
	}
	c.tls()
	c.uses()
	c.reach()
}

type checker struct {
	cfg      *conf.Config
	kinds    Kinds
	values   Values
	diags    *diag.List
	tables   map[string]*conf.Table
	filters  map[string]*conf.Filter
	actions  map[string]*conf.Action
	procs    map[string]*conf.Proc
	pkis     map[string]*conf.PKI
	cas      map[string]*conf.CA
	wrappers map[string]*conf.Wrapper
}

func (c *checker) hinted(pos conf.Pos, hint, format string, args ...any) {
	c.diags.Add(diag.Diag{Severity: diag.Error, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// statement is one of any kind, as *conf.Table.
type statement interface{ Statement() *conf.Node }

// declare puts a named thing into its map, or reports that the name is taken.
func declare[T statement](c *checker, m map[string]T, what, name string, v T) {
	if first, taken := m[name]; taken {
		c.hinted(v.Statement().Place("name"), fmt.Sprintf("the first is in line %d", first.Statement().Pos.Line),
			"%s %q is declared twice", what, name)
		return
	}
	m[name] = v
}

func (c *checker) declared() {
	for _, t := range c.cfg.Tables {
		declare(c, c.tables, "table", t.Name, t)
	}
	for _, p := range c.cfg.Procs {
		declare(c, c.procs, "proc", p.Name, p)
	}
	for _, f := range c.cfg.Filters {
		declare(c, c.filters, "filter", f.Name, f)
	}
	for _, a := range c.cfg.Actions {
		declare(c, c.actions, "action", a.Name, a)
	}
	for _, p := range c.cfg.PKIs {
		declare(c, c.pkis, "pki", p.Name, p)
	}
	for _, a := range c.cfg.CAs {
		declare(c, c.cas, "ca", a.Name, a)
	}
	for _, w := range c.cfg.Server.Wrappers {
		declare(c, c.wrappers, "mda wrapper", w.Name, w)
	}
}

// find returns the thing of that name; when there is none, or only further down
// in the same file, it reports that and returns false.
func find[T statement](c *checker, m map[string]T, what, name string, pos conf.Pos) (T, bool) {
	v, ok := m[name]
	if !ok {
		names := make([]string, 0, len(m))
		for n := range m {
			if !strings.HasPrefix(n, "<") {
				names = append(names, n)
			}
		}
		hint := ""
		if near := diag.Near(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		c.hinted(pos, hint, "no %s with that name: %s", what, name)
		return v, false
	}
	if at := v.Statement().Pos; !c.cfg.AnyOrder && at.File == pos.File && at.Line > pos.Line && !strings.HasPrefix(name, "<") {
		c.hinted(pos, fmt.Sprintf("move it up: it is in line %d", at.Line), "%s %q is declared after its use", what, name)
		return v, false
	}
	return v, true
}

func (c *checker) findTable(name string, pos conf.Pos) (*conf.Table, bool) {
	return find(c, c.tables, "table", name, pos)
}

func (c *checker) findFilter(name string, pos conf.Pos) (*conf.Filter, bool) {
	return find(c, c.filters, "filter", name, pos)
}

func (c *checker) findPKI(name string, pos conf.Pos) {
	find(c, c.pkis, "pki", name, pos)
}

func (c *checker) findCA(name string, pos conf.Pos) {
	find(c, c.cas, "ca", name, pos)
}

// pki checks what certificates must have.
func (c *checker) pki() {
	for _, p := range c.cfg.PKIs {
		if p.Bad {
			continue
		}
		c.certName(p.Name, p.Place("name"))
		if p.Cert == "" {
			c.hinted(p.Place("name"), "pki "+p.Name+" cert FILE", "pki %s has no certificate", p.Name)
		}
		if p.Key == "" {
			c.hinted(p.Place("name"), "pki "+p.Name+" key FILE", "pki %s has no key", p.Name)
		}
	}
	for _, a := range c.cfg.CAs {
		if !a.Bad {
			c.certName(a.Name, a.Place("name"))
		}
	}
}

// certName checks the name of a pki or ca: "*" or a host name.
func (c *checker) certName(name string, pos conf.Pos) {
	if name != "*" && !validHost(name) {
		c.diags.Errorf(pos, "not a valid domain name: %s", name)
	}
}

// filterChains checks what filters refer to, and the replies that they give.
func (c *checker) filterChains() {
	for _, f := range c.cfg.Filters {
		if f.Bad {
			continue
		}
		switch f.Kind {
		case conf.FilterChain:
			c.chain(f)
		case conf.FilterProc:
			find(c, c.procs, "proc", f.Proc.Name, f.Place("proc"))
		case conf.FilterBuiltin:
			c.reply(f)
		case conf.FilterProcExec:
		}
	}
}

func (c *checker) chain(f *conf.Filter) {
	seen, procs := make(map[string]bool), make(map[string]bool)
	for i, name := range f.Chain {
		pos := f.Place(conf.ChainPart(i))
		g, ok := c.findFilter(name, pos)
		switch {
		case !ok || g.Bad:
		case g == f:
			c.diags.Errorf(pos, "filter chain %s contains itself", name)
		case g.Kind == conf.FilterChain:
			c.diags.Errorf(pos, "no filter chain allowed within a filter chain: %s", name)
		case seen[name]:
			c.diags.Errorf(pos, "no filter allowed twice within a filter chain: %s", name)
		case g.Kind == conf.FilterProc && procs[g.Proc.Name]:
			c.diags.Errorf(pos, "no proc allowed twice within a filter chain: %s", g.Proc.Name)
		case g.Kind == conf.FilterProc:
			procs[g.Proc.Name] = true
		}
		seen[name] = true
	}
}

// reply checks that what a filter answers is an SMTP reply, RFC 5321 section 4.2.
func (c *checker) reply(f *conf.Filter) {
	arg, pos := f.Decide.Arg, f.Place("argument")
	switch f.Decide.Kind {
	case "reject", "disconnect":
		if len(arg) < 4 || arg[0] != '4' && arg[0] != '5' || arg[1] < '0' || arg[1] > '5' ||
			arg[2] < '0' || arg[2] > '9' || arg[3] != ' ' {
			c.hinted(pos, `a reply begins with a code, as in "550 not here"`,
				"the reply of %s must begin with a 4xx or 5xx code: %q", f.Decide.Kind, arg)
		} else if strings.IndexFunc(arg, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
			c.diags.Errorf(pos, "the reply of %s has a control character", f.Decide.Kind)
		}
	case "greylist":
		if g := f.Decide.Grey; g.Expire <= g.Delay {
			c.hinted(f.Place("decision"), "give a longer expire, or a shorter delay",
				"greylist would never let anybody pass: it expires after %s, before the delay of %s is over",
				conf.FormatDelay(g.Expire), conf.FormatDelay(g.Delay))
		}
	case "rewrite":
		switch f.Phase {
		case "helo", "ehlo", "mail-from", "rcpt-to":
		default:
			c.diags.Warnf(f.Place("decision"), "phase %s has nothing to rewrite", f.Phase)
		}
	}
}
