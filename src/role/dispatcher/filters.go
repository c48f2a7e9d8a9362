package dispatcher

import (
	"context"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/filter"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// tables asks lookup about the tables of conditions. It implements
// filter.Tables.
type tables struct{ lka proc.Caller }

// Match implements filter.Tables.
func (t tables) Match(ctx context.Context, gen mail.Gen, s table.Service, name, key string) (bool, error) {
	var got msg.Answer
	err := t.lka.Call(ctx, &msg.Query{Gen: gen, Service: uint8(s), Match: true, Table: name, Key: key}, &got)
	if err == nil && got.Err != nil {
		err = got.Err
	}
	return got.Found, err
}

// newPrograms makes the set of filter programs; one that does not keep to the
// protocol is ended by parent.
func newPrograms(env proc.Env) *filter.Programs {
	parent := env.Peers[proc.Parent]
	return filter.NewPrograms(env.Clock, env.Log, func(identity string) {
		if parent == nil {
			return
		}
		// It fails when parent is gone, and then the daemon stops.
		if err := parent.Send(context.Background(), &msg.ProgramEnd{Identity: identity}); err != nil {
			env.Log.Debugf("debug: filter: %v", err)
		}
	})
}

// filters makes the filters of a generation, and gives the listeners theirs.
func (r *Role) filters(g *generation, p *project.DispatcherConf) error {
	var err error
	g.programs, err = r.programs.Prepare(p, g.take)
	if err != nil {
		return err
	}
	g.filters = filter.New(filter.Options{
		Clock: r.clock, Log: r.log, Tables: tables{r.env.Peers[proc.Lookup]}, Programs: g.programs,
		Greylist: r.grey,
	}, p)
	all := g.net
	if g.socket != nil {
		all = append(all, g.socket)
	}
	for _, l := range all {
		name := ""
		for i := range p.Listeners {
			if p.Listeners[i].Identity == l.Identity {
				name = p.Listeners[i].Filter
			}
		}
		if name == "" {
			continue
		}
		if l.Filter, err = g.filters.Inbound(name); err != nil {
			return err
		}
	}
	return nil
}

// restarted takes a filter program that parent has started again.
func (r *Role) restarted(_ context.Context, q proc.Request) {
	var m msg.Program
	f := q.File()
	err := q.Parse(&m)
	switch {
	case f == nil:
		r.log.Warnf("warn: filter: a program came without a descriptor")
		return
	case err == nil:
		err = r.programs.Restarted(m.Identity, f)
	default:
		f.Close()
	}
	if err != nil {
		r.log.Warnf("warn: filter: %v", err)
	}
}
