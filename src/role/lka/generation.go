package lka

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/dovecot"
	"opensmtpd/src/lookup/expand"
	"opensmtpd/src/lookup/program"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mail/srs"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// generation is one configuration, ready for use.
type generation struct {
	gen       mail.Gen
	tables    map[string]table.Table
	secret    map[string]bool // those that nobody is told of
	dovecots  []*dovecot.Client
	files     map[string]*table.Static   // by identity
	watches   map[string]*watch          // the files of maps, by identity
	programs  map[string]*program.Client // of tables, by identity
	uses      []tableUse
	mappings  map[string]bool // files that must be mappings
	expand    expand.Config
	resources proc.Resources
	addrs     []netip.Addr // of this machine
}

// generation makes one of what parent sent, and closes the descriptors. Files
// that were not sent again are those of before.
func (r *Role) generation(c proc.Conf, before *generation) (*generation, error) {
	files := make(map[string]*os.File)
	for _, f := range c.Files {
		if f.File != nil {
			files[f.Identity] = f.File
		}
	}
	defer func() {
		for _, f := range files { // but what has found its owner
			f.Close()
		}
	}()
	var p project.LookupConf
	if err := project.Decode(c.Projection, &p); err != nil {
		return nil, err
	}
	g := &generation{
		gen: c.Gen, tables: make(map[string]table.Table), secret: make(map[string]bool), files: make(map[string]*table.Static),
		watches: make(map[string]*watch), programs: make(map[string]*program.Client), resources: c.Resources, addrs: p.LocalAddrs,
	}
	for i := range p.Tables {
		t, err := r.table(&p, &p.Tables[i], g, before, files)
		if err != nil {
			r.release(g)
			return nil, fmt.Errorf("table %s: %w", p.Tables[i].Name, err)
		}
		g.tables[p.Tables[i].Name] = t
		g.secret[p.Tables[i].Name] = p.Tables[i].Secret
	}
	if err := r.rules(g, &p); err != nil {
		r.release(g)
		return nil, err
	}
	g.uses, g.mappings = tableUses(&p), mappings(&p)
	r.complain(g, "")
	return g, nil
}

// table makes one table. Two tables of the same file share its content.
func (r *Role) table(p *project.LookupConf, t *project.Table, g, before *generation, files map[string]*os.File) (table.Table, error) {
	switch t.Backend {
	case "static":
		entries := make([]table.Entry, len(t.Entries))
		for i, e := range t.Entries {
			entries[i] = table.Entry{Key: e.Key, Value: e.Value}
		}
		return table.NewStatic(t.Name, t.Kind, entries, p.SubAddrDelim), nil
	case "getpwnam":
		return table.NewSystem(t.Name, r.systemUser), nil
	case "file":
		return r.fileTable(p, t, g, before, files)
	case "db":
		return r.mapTable(p, t, g, before, files)
	case "dovecot":
		return r.dovecotTable(t, g), nil
	}
	return r.programTable(p, t, g, files)
}

func (r *Role) fileTable(p *project.LookupConf, t *project.Table, g, before *generation, files map[string]*os.File) (table.Table, error) {
	if s := g.files[t.Identity]; s != nil {
		return s.As(t.Name), nil
	}
	var s *table.Static
	switch f := files[t.Identity]; {
	case f != nil:
		var err error
		if s, err = table.NewFile(t.Name, t.Config, f, p.SubAddrDelim); err != nil {
			return nil, err
		}
	case before != nil && before.files[t.Identity] != nil && before.files[t.Identity].Delim() == p.SubAddrDelim:
		s = before.files[t.Identity].As(t.Name)
	default:
		return nil, fmt.Errorf("no descriptor for %s", t.Config)
	}
	g.files[t.Identity] = s
	return s, nil
}

// rules compiles the rules and ties the actions to their tables.
func (r *Role) rules(g *generation, p *project.LookupConf) (err error) {
	g.expand, err = expand.NewConfig(p, g.tables, r.libexec, paths.User)
	g.expand.RootLikeOthers = r.env.Unprivileged
	if p.SRSKey != "" {
		rewriter := srs.Rewriter{Key: p.SRSKey, Backup: p.SRSKeyBackup, TTL: p.SRSTTL}
		g.expand.Reverse = func(a addr.Address) (addr.Address, error) { return rewriter.Reverse(a, r.env.Clock.Now()) }
	}
	return err
}

// tableUse is a table and what it is asked, where entries can be useless for it.
type tableUse struct {
	table   string
	service table.Service
}

func tableUses(p *project.LookupConf) (uses []tableUse) {
	seen := make(map[string]bool)
	add := func(name string, s table.Service) {
		if name != "" && !seen[name] {
			seen[name] = true
			uses = append(uses, tableUse{name, s})
		}
	}
	for i := range p.Matches {
		m := &p.Matches[i]
		for _, c := range []project.Cond{m.From, m.For, m.Tag, m.Helo, m.Auth, m.MailFrom, m.RcptTo} {
			if c.Regex {
				add(c.Table, table.Regex)
			}
		}
		if m.FromKind == conf.FromSrc && !m.From.Regex {
			add(m.From.Table, table.NetAddr)
		}
	}
	for _, a := range p.Actions {
		add(a.UserBase, table.UserInfo)
	}
	for _, t := range p.Tables {
		if t.Secret {
			add(t.Name, table.Credentials)
		}
	}
	return uses
}

// mappings are the files whose values are asked for: a list in their place would
// answer with nothing.
func mappings(p *project.LookupConf) map[string]bool {
	need := make(map[string]bool)
	for _, a := range p.Actions {
		need[a.Alias], need[a.Virtual], need[a.UserBase] = true, true, true
	}
	files := make(map[string]bool)
	for _, t := range p.Tables {
		if need[t.Name] || t.Secret {
			files[t.Config] = true
		}
	}
	return files
}

// update reads the content of a table again.
func (g *generation) update(t *table.Static, f *os.File) error {
	if g.mappings[t.Path()] {
		return t.UpdateMap(f)
	}
	return t.Update(f)
}

// complain tells the administrator of entries in files that can never match: in
// those of all tables, or of the one that was read again.
func (r *Role) complain(g *generation, name string) {
	for _, u := range g.uses {
		t := static(g.tables[u.table])
		if t == nil || t.Path() == "" || name != "" && u.table != name {
			continue
		}
		for _, bad := range t.Check(u.service) {
			r.log.TableEntry(t.Path(), bad)
		}
	}
}

// systemUser serves tables of the getpwnam back end.
func (r *Role) systemUser(ctx context.Context, name string) (table.User, bool, error) {
	var reply msg.UserInfoReply
	if err := r.parent.Call(ctx, &msg.UserInfo{Name: name}, &reply); err != nil {
		return table.User{}, false, err
	}
	if reply.Err != nil {
		return table.User{}, false, reply.Err
	}
	return table.User{Name: reply.Name, UID: reply.UID, GID: reply.GID, Home: reply.Home}, reply.Found, nil
}
