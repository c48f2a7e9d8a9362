package lka

import (
	"context"
	"fmt"
	"os"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/program"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// programTable makes a table that a program serves. The client of a program that
// runs already is that of the generations before.
func (r *Role) programTable(p *project.LookupConf, t *project.Table, g *generation, files map[string]*os.File) (table.Table, error) {
	c := r.client(t.Identity)
	if c == nil {
		f := files[t.Identity]
		if f == nil {
			return nil, fmt.Errorf("no descriptor for the program %s", t.Backend)
		}
		delete(files, t.Identity)
		c = program.New(program.Options{
			Name: t.Name, Clock: r.env.Clock, Log: r.log, End: func() { r.endProgram(t.Identity) },
		})
		c.Use(f)
	}
	g.programs[t.Identity] = c
	return c.Table(p.SubAddrDelim), nil
}

// client finds the client of a program, in whatever generation.
func (r *Role) client(identity string) *program.Client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, g := range append([]*generation{r.current, r.prepared}, r.old...) {
		if g != nil && g.programs[identity] != nil {
			return g.programs[identity]
		}
	}
	return nil
}

// program takes the pipe to a program that parent has started again.
func (r *Role) program(_ context.Context, q proc.Request) {
	var m msg.Program
	f := q.File()
	if err := q.Parse(&m); err != nil || f == nil {
		if f != nil {
			f.Close()
		}
		q.Fail(mailerr.Local(fmt.Errorf("program without a pipe: %w", err)))
		return
	}
	c := r.client(m.Identity)
	if c == nil {
		f.Close() // no generation has it any more
		return
	}
	c.Use(f)
}

// endProgram has parent kill a program that is of no use, and start it again.
func (r *Role) endProgram(identity string) {
	// It fails when parent is gone, and then so is the daemon.
	_ = r.parent.Send(context.Background(), &msg.ProgramEnd{Identity: identity})
}

// release lets go what a generation holds and no other needs. Call it without
// the lock, when the generation is out of reach.
func (r *Role) release(g *generation) {
	for _, c := range g.dovecots {
		c.Close()
	}
	for _, w := range g.watches {
		w.close()
	}
	for identity, c := range g.programs {
		if r.client(identity) != c {
			c.Close()
		}
	}
}
