package legacy

import (
	"fmt"
	"reflect"
	"strings"

	"opensmtpd/src/conf"
)

// name returns the name of the action that does what a says, and declares it when
// no rule had the same before.
func (p *parser) name(a conf.Action) string {
	base := baseName(&a)
	for i := 1; ; i++ {
		a.Name = base
		if i > 1 {
			a.Name = fmt.Sprintf("%s_%d", base, i)
		}
		old := p.action(a.Name)
		if old == nil {
			p.Cfg.Actions = append(p.Cfg.Actions, &a)
			return a.Name
		}
		if p.same(old, &a) {
			return a.Name
		}
	}
}

func (p *parser) action(name string) *conf.Action {
	for _, a := range p.Cfg.Actions {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// same tells whether two actions do the same; inline tables are compared by what
// is in them.
func (p *parser) same(a, b *conf.Action) bool {
	plain := func(a conf.Action) conf.Action {
		a.Node = conf.Node{}
		for _, ref := range []*conf.TableRef{&a.Alias, &a.Virtual, &a.UserBase, &a.BindTo, &a.HeloSrc, &a.AuthTable} {
			*ref = conf.TableRef(p.tableKey(*ref))
		}
		return a
	}
	return reflect.DeepEqual(plain(*a), plain(*b))
}

// baseName makes a name that tells a reader what the action does.
func baseName(a *conf.Action) string {
	switch {
	case a.Method == conf.Relay && a.Host != "":
		host := a.Host
		if _, rest, ok := strings.Cut(host, "://"); ok {
			host = rest
		}
		host = host[strings.LastIndexByte(host, '@')+1:]
		return "relay_" + strings.Trim(tame(host), "_")
	case a.Method == conf.Relay && a.Backup:
		return "relay_backup"
	case a.Method == conf.Relay:
		return "relay_mx"
	case a.Method == conf.ForwardOnly:
		return "forward_only"
	case a.Method == conf.ExpandOnly:
		return "expand_only"
	case a.Virtual != "":
		return "virtual_" + a.Method.String()
	}
	return "local_" + a.Method.String()
}

// tame makes a bare word of the printable rest of a name.
func tame(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', strings.ContainsRune("._-", r):
			return r
		}
		return '_'
	}, s)
}
