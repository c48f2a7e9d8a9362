// Package ruleset finds the rule, a match line of smtpd.conf(5), that decides
// what happens to a recipient: the first whose conditions all hold.
//
// A ruleset is compiled. Every condition becomes a predicate; rules that ask the
// same share it, and it is evaluated at most once for a subject. Predicates
// about tables of the configuration, which cannot change, are evaluated all at
// once before the rules are gone through, so that ten thousand rules with a
// domain each cost a few lookups and one walk over small integers.
package ruleset

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
)

// Subject is what the rules are asked about.
type Subject struct {
	Tag           string     // of the listener
	Addr          netip.Addr // of the client; zero for the local socket
	Internal      bool       // an address that one of ours was expanded to
	RDNS          string     // the client's name, "" when it has none
	Helo          string
	TLS           bool
	Authenticated bool
	AuthUser      string
	Sender        addr.Address
	Rcpt          addr.Address // after the expansions so far
}

// Local is what "from local" and "for local" stand for.
type Local struct {
	Names []string     // domains
	Addrs []netip.Addr // of this machine's interfaces
}

// Ruleset is the rules of one configuration. It may be used by several
// goroutines.
type Ruleset struct {
	rules  []span
	lines  []Rule // as many
	conds  []cond // of all rules, in order
	preds  []predicate
	groups []group
	blank  []verdict // of every predicate before anything is known
	memos  sync.Pool
	local  map[netip.Addr]bool
}

// span is the part of conds that belongs to a rule.
type span struct{ from, to uint32 }

type cond struct {
	pred uint32
	want verdict
}

// verdict is what is known of a predicate. "never" makes a rule fail with the
// condition and with its negation.
type verdict uint8

const (
	unknown verdict = iota
	no
	yes
	never
)

// Rule is one line of the configuration.
type Rule struct {
	Number int // from 1
	project.Match
}

// New compiles rules. find returns a table by name, nil if there is none.
func New(matches []project.Match, find func(name string) table.Table, local Local) (*Ruleset, error) {
	r := &Ruleset{local: make(map[netip.Addr]bool)}
	for _, a := range local.Addrs {
		r.local[a.Unmap()] = true
	}
	c := compiler{Ruleset: r, find: find, known: make(map[predicate]uint32)}
	c.builtins(local)
	for i := range matches {
		from := len(r.conds)
		if err := c.rule(&matches[i]); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		r.rules = append(r.rules, span{uint32(from), uint32(len(r.conds))})
		r.lines = append(r.lines, Rule{i + 1, matches[i]})
	}
	c.finish()
	r.memos.New = func() any { return &memo{known: make([]verdict, len(r.preds))} }
	return r, nil
}

// Match returns the first rule that s fulfils, nil when there is none; it is
// shared and must not be changed. An error
// means that a table could not be asked, which must not be taken for either.
func (r *Ruleset) Match(ctx context.Context, s *Subject) (*Rule, error) {
	m := r.begin(s)
	defer r.memos.Put(m)
	for i := range r.rules {
		failed, err := r.first(ctx, m, s, i)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		if failed < 0 {
			return &r.lines[i], nil
		}
	}
	return nil, nil
}

// Step is what happened at one rule.
type Step struct {
	Rule   *Rule
	Failed string // the condition that did not hold; "" when the rule matched
}

// Explain is Match with an account of each rule that was looked at.
func (r *Ruleset) Explain(ctx context.Context, s *Subject) ([]Step, *Rule, error) {
	m := r.begin(s)
	defer r.memos.Put(m)
	var steps []Step
	for i := range r.rules {
		step := Step{Rule: &r.lines[i]}
		failed, err := r.first(ctx, m, s, i)
		if err != nil {
			return steps, nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		if failed < 0 {
			return append(steps, step), step.Rule, nil
		}
		c := r.conds[failed]
		step.Failed = r.preds[c.pred].text(c.want == no)
		steps = append(steps, step)
	}
	return steps, nil, nil
}

// memo is what is known during one walk over the rules.
type memo struct{ known []verdict }

// begin evaluates all that cannot fail: facts and fixed tables.
func (r *Ruleset) begin(s *Subject) *memo {
	m := r.memos.Get().(*memo)
	copy(m.known, r.blank)
	m.known[predLocal] = truth(r.isLocal(s))
	m.known[predForLocal] = truth(r.forLocalAddr(s.Rcpt.Domain))
	m.known[predAny] = yes
	m.known[predTLS] = truth(s.TLS)
	m.known[predAuth] = truth(s.Authenticated)
	m.known[predSocket] = truth(!s.Addr.IsValid())
	m.known[predRDNS] = truth(s.RDNS != "")
	if s.Internal {
		m.known[predSocket], m.known[predRDNS] = never, never
	}
	for i := range r.groups {
		r.groups[i].evaluate(s, m)
	}
	return m
}

func truth(b bool) verdict {
	if b {
		return yes
	}
	return no
}

func (r *Ruleset) isLocal(s *Subject) bool {
	return s.Internal || !s.Addr.IsValid() || r.local[s.Addr.Unmap()]
}

// forLocalAddr tells whether a domain is a literal of one of our addresses.
func (r *Ruleset) forLocalAddr(domain string) bool {
	a, ok := addr.Literal(domain)
	return ok && r.local[a.Unmap()]
}

// first returns the index of the first condition of rule i that does not hold,
// or -1.
func (r *Ruleset) first(ctx context.Context, m *memo, s *Subject, i int) (int, error) {
	for n := r.rules[i].from; n < r.rules[i].to; n++ {
		c := r.conds[n]
		v := m.known[c.pred]
		if v == unknown {
			var err error
			if v, err = r.preds[c.pred].ask(ctx, s); err != nil {
				return 0, err
			}
			m.known[c.pred] = v
		}
		if v != c.want {
			return int(n), nil
		}
	}
	return -1, nil
}

// String returns the rule as smtpd.conf(5) has it, defaults written out.
func (r *Rule) String() string { return text(&r.Match) }

var fromWords = map[conf.FromKind]string{
	conf.FromLocal: "from local", conf.FromAny: "from any", conf.FromSocket: "from socket", conf.FromSrc: "from src",
	conf.FromRDNS: "from rdns", conf.FromAuth: "from auth", conf.FromMailFrom: "from mail-from",
}

var forWords = map[conf.ForKind]string{
	conf.ForLocal: "for local", conf.ForAny: "for any", conf.ForDomain: "for domain", conf.ForRcptTo: "for rcpt-to",
}
