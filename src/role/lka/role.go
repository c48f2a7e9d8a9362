// Package lka is the lookup process: it holds the tables and the rules, and
// answers who receives what, who a user is and what a client is called.
//
// SECURITY. It runs as _smtpd in an empty root, without listening anywhere and
// without a file of its own: tables come as descriptors from parent, and so do
// the contents of resolv.conf and hosts. What it reads is of three kinds.
// Addresses and names in requests of dispatcher were chosen by strangers; they
// are keys of lookups and nothing else, bounded by the SMTP grammar. Answers of
// name servers are parsed by a library, and a name that is no host name is
// dropped. Tables, .forward files and includes belong to the administrator or to
// a user; what they make of one recipient is bounded in depth, number and size.
// Table programs are the administrator's too, but not taken at their word: their
// lines are bounded and checked, and no key with a line break in it reaches them.
// The envelopes that result go to queue from here, so that dispatcher cannot
// write one. A user is known to parent alone, which also reads his .forward, as
// him; a virtual user's uid is what a table says, as the administrator wants it.
//
// Passwords come from dispatcher and are compared here, with the hashes of a
// table, or by a table program or Dovecot; those of system accounts go to parent.
// What a table of passwords says is told to nobody. A hash is dear to compare
// with, so few are at a time; the places are counted here, and dispatcher keeps
// the others waiting.
package lka

import (
	"context"
	"fmt"
	"os"
	"sync"

	"opensmtpd/src/lookup/auth"
	"opensmtpd/src/lookup/dns"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/stat"
)

// kept is how many generations are remembered beside the current one, for
// sessions that began under them. A session that outlives more than that many
// reloads goes by the current rules.
const kept = 4

// Role is the lookup process. It is a proc.Program.
type Role struct {
	env     proc.Env
	log     *mlog.Logger
	parent  proc.Caller
	queue   proc.Caller
	libexec string
	dns     *dns.Resolver
	// exchanger remembers mail servers; it asks through dns.
	exchanger *dns.Exchanger
	checker   *auth.Checker
	stats     stat.Set

	mu       sync.RWMutex
	current  *generation
	old      []*generation // newest last
	prepared *generation
}

// New returns the role with its first generation in force.
func New(env proc.Env) (*Role, error) {
	for _, need := range []proc.Role{proc.Parent, proc.Queue} {
		if env.Peers[need] == nil {
			return nil, fmt.Errorf("lookup: no connection to %s", need)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("lookup: %w", err)
	}
	r := &Role{
		env: env, log: env.Log, parent: env.Peers[proc.Parent], queue: env.Peers[proc.Queue], libexec: paths.LibExec(exe),
		checker: auth.NewChecker(),
		dns:     dns.New(env.Clock, env.Conf.Resources.ResolvConf, env.Conf.Resources.Hosts),
	}
	r.exchanger = dns.NewExchanger(r.dns)
	if err := r.Prepare(context.Background(), env.Conf); err != nil {
		r.dns.Close()
		return nil, err
	}
	r.Commit(env.Conf.Gen)
	return r, nil
}

// Prepare implements proc.Program.
func (r *Role) Prepare(_ context.Context, c proc.Conf) error {
	r.mu.RLock()
	before := r.current
	r.mu.RUnlock()
	g, err := r.generation(c, before)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prepared = g
	return nil
}

// Commit implements proc.Program.
func (r *Role) Commit(gen mail.Gen) {
	if gone := r.swap(gen); gone != nil {
		r.release(gone)
	}
}

// swap puts the prepared generation in force and returns the one that nobody
// needs any more, or nil.
func (r *Role) swap(gen mail.Gen) (gone *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.prepared
	if g == nil || g.gen != gen {
		return nil
	}
	r.prepared = nil
	if r.current != nil {
		r.old = append(r.old, r.current)
		if len(r.old) > kept {
			gone, r.old = r.old[0], r.old[1:]
		}
		r.dns.Configure(g.resources.ResolvConf, g.resources.Hosts)
		r.exchanger.Forget()
	}
	r.current = g
	return gone
}

// Abort implements proc.Program.
func (r *Role) Abort(gen mail.Gen) {
	r.mu.Lock()
	g := r.prepared
	if g == nil || g.gen != gen {
		r.mu.Unlock()
		return
	}
	r.prepared = nil
	r.mu.Unlock()
	r.release(g)
}

// at returns a generation by its number: the current one when it is not known.
func (r *Role) at(gen mail.Gen) *generation {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, g := range r.old {
		if g.gen == gen {
			return g
		}
	}
	return r.current
}

// Run implements proc.Program: the work is done by the handlers.
func (r *Role) Run(ctx context.Context) error {
	<-ctx.Done()
	r.dns.Close()
	r.mu.Lock()
	all := append(r.old, r.current, r.prepared)
	r.old, r.current, r.prepared = nil, &generation{}, nil
	r.mu.Unlock()
	for _, g := range all {
		if g != nil {
			r.release(g)
		}
	}
	return nil
}

// Handlers implements proc.Program.
func (r *Role) Handlers() []proc.Handler {
	return append(r.relayHandlers(), []proc.Handler{
		{From: proc.Dispatcher, Type: msg.TypeExpand, Concurrent: true, Do: r.expand},
		{From: proc.Queue, Type: msg.TypeExpand, Concurrent: true, Do: r.expand},
		{From: proc.Dispatcher, Type: msg.TypeRDNS, Concurrent: true, Do: r.rdns},
		{From: proc.Parent, Type: msg.TypeProgram, Do: r.program},
		{From: proc.Parent, Type: msg.TypeUserBase, Concurrent: true, Do: r.userBase},
		{From: proc.Control, Type: msg.TypeControl, Concurrent: true, Do: r.control},
		{From: proc.Control, Type: msg.TypeStats, Do: func(_ context.Context, q proc.Request) { q.Reply(r.stats.Reply()) }},
	}...)
}
