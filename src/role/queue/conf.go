package queue

import (
	"context"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/runq"
)

// generation is one configuration as queue uses it.
type generation struct {
	gen     mail.Gen
	conf    project.QueueConf
	actions map[string]*project.QueueAction
}

func decode(c proc.Conf) (*generation, error) {
	g := &generation{gen: c.Gen, actions: make(map[string]*project.QueueAction)}
	if err := project.Decode(c.Projection, &g.conf); err != nil {
		return nil, err
	}
	for i := range g.conf.Actions {
		a := &g.conf.Actions[i]
		g.actions[a.Name] = a
	}
	return g, nil
}

// Prepare checks a new generation and keeps it.
func (r *Role) Prepare(_ context.Context, c proc.Conf) error {
	g, err := decode(c)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prepared[c.Gen] = g
	return nil
}

// Commit makes the prepared generation current. Deliveries under way keep the
// one they began with.
func (r *Role) Commit(gen mail.Gen) {
	r.mu.Lock()
	g := r.prepared[gen]
	delete(r.prepared, gen)
	if g != nil {
		r.conf.Store(g)
		r.rq.SetConfig(r.runqConf(g))
	}
	r.mu.Unlock()
	if g != nil {
		r.pool.SetLimits(g.mdaLimits())
		r.poke()
	}
}

// Abort forgets the prepared generation.
func (r *Role) Abort(gen mail.Gen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.prepared, gen)
}

func (g *generation) mdaLimits() mda.Limits {
	return mda.Limits{MaxSession: g.conf.MDA.MaxSession, MaxSessionPerUser: g.conf.MDA.MaxSessionPerUser}
}

// action is that of an envelope. Those of OpenSMTPD before 6.4 name none, because
// they told themselves how to deliver: they go by the first action of today that
// does what their type says; "" when there is none.
func (g *generation) action(t envelope.Type, name string) string {
	if name != "" || t == envelope.Bounce {
		return name
	}
	for i := range g.conf.Actions {
		a := &g.conf.Actions[i]
		if a.Method.Local() == (t == envelope.MDA) && a.Method != conf.ForwardOnly {
			return a.Name
		}
	}
	return ""
}

// ttl is how long an envelope lives that does not say so itself.
func (g *generation) ttl(action string) time.Duration {
	if a := g.actions[action]; a != nil && a.TTL > 0 {
		return a.TTL
	}
	return g.conf.TTL
}

func (r *Role) runqConf(g *generation) runq.Config {
	return runq.Config{
		MaxInflight: g.conf.Scheduler.MaxInflight,
		Warn:        g.conf.BounceWarn,
		Hold: func(t envelope.Type, dest string) runq.Hold {
			switch t {
			case envelope.MDA:
				m := &g.conf.MDA
				return runq.Hold{Hiwat: m.TaskHiwat, Lowat: m.TaskLowat, Release: m.TaskRelease}
			case envelope.MTA:
				return g.relayHold(r.relayer.Domain(dest))
			}
			return runq.Hold{Hiwat: maxReports}
		},
	}
}

// relayHold finds the limits of a domain; the first are those of every other.
func (g *generation) relayHold(domain string) runq.Hold {
	if len(g.conf.MTA) == 0 {
		return runq.Hold{Hiwat: 50, Lowat: 30, Release: 10} // OpenSMTPD 7.8
	}
	l := &g.conf.MTA[0]
	for i := range g.conf.MTA {
		if m := &g.conf.MTA[i]; m.Domain != "" && addr.EqualDomain(m.Domain, domain) {
			l = m
		}
	}
	return runq.Hold{Hiwat: l.TaskHiwat, Lowat: l.TaskLowat, Release: l.TaskRelease}
}

// item is an envelope as the run queue knows it.
func (r *Role) item(e *envelope.Envelope) runq.Item {
	return r.summaryItem(store.Summary{
		ID: e.ID, Type: e.Type, Retry: e.Retry, Action: e.Action, Domain: e.Dest.Domain, User: e.MDAUser,
		Created: envelope.Unix(e.Created), TTL: int64(e.TTL / time.Second), LastBounce: envelope.Unix(e.LastBounce),
	})
}

func (r *Role) summaryItem(s store.Summary) runq.Item {
	s.Action = r.conf.Load().action(s.Type, s.Action)
	it := runq.Item{
		ID: s.ID, Type: s.Type, Retry: s.Retry,
		Created: envelope.FromUnix(s.Created), TTL: time.Duration(s.TTL) * time.Second,
	}
	if it.TTL <= 0 {
		it.TTL = r.conf.Load().ttl(s.Action)
	}
	if s.LastBounce > s.Created {
		it.Warned = time.Duration(s.LastBounce-s.Created) * time.Second
	}
	switch s.Type {
	case envelope.MDA:
		it.Dest = s.User
	case envelope.MTA:
		it.Dest = r.relayer.Dest(s.Action, s.Domain)
	}
	return it
}
