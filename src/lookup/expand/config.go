package expand

import (
	"fmt"
	"strings"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/ruleset"
	"opensmtpd/src/lookup/table"
)

// NewConfig compiles the rules of p and ties its actions to tables, which has all
// that p names. libexec is where the programs of deliveries are, daemon the user
// that runs commands of aliases.
func NewConfig(p *project.LookupConf, tables map[string]table.Table, libexec, daemon string) (Config, error) {
	find := func(name string) table.Table { return tables[name] }
	rules, err := ruleset.New(p.Matches, find, ruleset.Local{Names: p.LocalNames, Addrs: p.LocalAddrs})
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Rules: rules, Actions: make(map[string]*Action), Delim: p.SubAddrDelim,
		LibExec: libexec, Daemon: daemon, written: make(map[string]string),
	}
	for i := range p.Tables {
		if t := &p.Tables[i]; t.Inline {
			c.written[t.Name] = written(t)
		}
	}
	for _, a := range p.Actions {
		act := &Action{Action: a}
		for _, ref := range []struct {
			name string
			to   *table.Table
		}{{a.Alias, &act.Alias}, {a.Virtual, &act.Virtual}, {a.UserBase, &act.UserBase}} {
			if ref.name == "" {
				continue
			}
			if *ref.to = tables[ref.name]; *ref.to == nil {
				return Config{}, fmt.Errorf("action %s: no table %s", a.Name, ref.name)
			}
		}
		if _, system := act.UserBase.(*table.System); system {
			act.UserBase = nil // what it would be anyway
		}
		c.Actions[a.Name] = act
	}
	return c, nil
}

// written is an inline table as its rule has it, shortened.
func written(t *project.Table) string {
	const most = 8
	var list []string
	for i, e := range t.Entries {
		if i == most {
			list = append(list, "…")
			break
		}
		if e.Value != "" {
			e.Key += " = " + e.Value
		}
		list = append(list, e.Key)
	}
	if len(list) == 1 {
		return list[0]
	}
	return "{ " + strings.Join(list, ", ") + " }"
}
