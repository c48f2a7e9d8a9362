// Package expand finds out who receives the mail for a recipient: it sends the
// address through the rules, then through aliases or virtual tables, the users
// and their .forward files, until only mailboxes, commands, files and addresses
// elsewhere are left, each of which becomes an envelope.
//
// Expansion is a tree that is grown breadth first. A node is not grown twice
// where the result would be the same, so that loops end and nobody gets a
// message twice; what is nested deeper than MaxDepth, or is wider than MaxNodes,
// is refused.
package expand

import (
	"context"
	"errors"
	"fmt"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/aliases"
	"opensmtpd/src/lookup/ruleset"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mail/srs"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

const (
	// MaxDepth is how deep expansions may nest, as in OpenSMTPD.
	MaxDepth = 10
	// MaxNodes is how many nodes a tree may have: room for a list of 20,000,
	// and a bound for one that is made to explode.
	MaxNodes = 25_000
)

// What the log says of an expansion that was cut; the sender is told that there is
// a problem.
var (
	errDeep = fmt.Errorf("expansion is more than %d deep", MaxDepth)
	errWide = fmt.Errorf("expansion has more than %d parts", MaxNodes)
	errLoop = errors.New("expansion leads to nobody")
	errRoot = errors.New("root gets mail by mbox alone: an alias can name somebody else")
)

// Action is an action with the tables that it names.
type Action struct {
	project.Action
	Alias    table.Table // nil: none
	Virtual  table.Table // nil: none
	UserBase table.Table // nil: system users
}

// Config is what an expansion goes by: one generation of the configuration. It
// is not changed.
type Config struct {
	Rules   *ruleset.Ruleset
	Actions map[string]*Action
	Delim   string // between user and sub-address
	LibExec string // where mail.mboxfile is, for envelopes
	Daemon  string // the user that runs commands of aliases
	// RootLikeOthers tells that root, too, gets mail by whatever method: the daemon
	// runs as one user, who is root.
	RootLikeOthers bool
	// Reverse finds whom a bounce to a sender that was rewritten by us is for;
	// nil when none was.
	Reverse func(addr.Address) (addr.Address, error)
	// written has what stands in the file for a table without a name, for Explain.
	written map[string]string
}

// World is what an expansion asks outside of the configuration.
type World interface {
	// User finds a user, and his .forward when that is asked for.
	User(ctx context.Context, q *msg.UserInfo) (*msg.UserInfoReply, error)
	// Include reads the file of an :include:.
	Include(ctx context.Context, path string) (text []byte, found bool, err error)
	// Warnf writes a line for the administrator.
	Warnf(format string, args ...any)
	// Tracing tells whether the expand trace is on.
	Tracing() bool
	// Tracef writes a line of the expand trace.
	Tracef(format string, args ...any)
}

// Delivery is one envelope that a recipient was expanded to.
type Delivery struct {
	Type       envelope.Type
	Action     *Action
	Dest       addr.Address // the address that the rules were asked last about
	User       string       // of local ones: who owns the delivery
	Exec       string       // a command or file instead of the action's method
	Subaddress string
}

// Expand returns the deliveries for subject.Rcpt, at least one, or the reply that
// refuses it; the text of that does not name the recipient.
func Expand(ctx context.Context, c *Config, w World, subject *ruleset.Subject) ([]Delivery, *mailerr.Error) {
	return newTree(c, w, subject).expand(ctx)
}

func newTree(c *Config, w World, subject *ruleset.Subject) *tree {
	return &tree{
		Config: c, World: w, tracing: w.Tracing(), subject: *subject,
		seen: make(map[key]struct{}), users: make(map[userKey]*msg.UserInfoReply),
	}
}

func (t *tree) expand(ctx context.Context) ([]Delivery, *mailerr.Error) {
	t.grow(nil, nil, aliases.Value{Kind: aliases.Address, Addr: t.subject.Rcpt})
	for t.next < len(t.nodes) {
		n := t.nodes[t.next]
		t.nodes[t.next] = nil
		t.next++
		if err := t.visit(ctx, n); err != nil {
			if t.tracing {
				t.Tracef("expand: %v: %v", n, err)
			}
			t.account.refused(n, err)
			return nil, err
		}
	}
	switch len(t.out) {
	case 0:
		return nil, listProblem(errLoop)
	case t.vain:
		return nil, mailerr.Permanent(550, 1, 1, "Invalid recipient", errRoot)
	}
	return t.out, nil
}

// tree is an expansion under way.
type tree struct {
	*Config
	World
	tracing bool // known once, so that nothing is formatted in vain
	subject ruleset.Subject
	nodes   []*node // in the order of their making; those before next are done
	next    int
	seen    map[key]struct{}
	users   map[userKey]*msg.UserInfoReply
	out     []Delivery
	vain    int                   // of out, those that parent will refuse, since they are for root
	sent    map[Delivery]struct{} // made when there are two
	account *account              // for Explain, else nil
}

// node is a value at its place in the tree.
type node struct {
	aliases.Value
	parent *node
	origin *node   // the nearest address above, itself for an address
	action *Action // by which it came about; nil for the recipient and until the rules are asked
	depth  int

	sameUser  bool // of a user: the parent is the same user
	final     bool // of a user: he put himself into his .forward
	realUser  bool // of a user: found in the userbase
	forwarded bool // of a user: his .forward was asked for
	uid       uint32
}

func (n *node) String() string { return fmt.Sprintf("%v: %v [depth=%d]", n.Kind, n.Value, n.depth) }

// key tells nodes apart whose expansions differ. An address that came out of an
// expansion gives the same wherever it stands, a user depends on the rule that
// his address met, a command or file on the user who wrote it.
type key struct {
	kind     aliases.Kind
	text     string
	addr     addr.Address
	external bool // the recipient itself, which may meet other rules
	sameUser bool
	final    bool
	origin   *node
	owner    *node
}

func (n *node) key() key {
	k := key{kind: n.Kind, text: n.Text, sameUser: n.sameUser, final: n.final}
	if n.Kind == aliases.Address {
		k.addr = addr.Address{Local: n.Addr.Local, Domain: addr.Lower(n.Addr.Domain)}
		k.external = n.parent == nil
		return k
	}
	k.origin = n.origin
	if n.Kind == aliases.Command || n.Kind == aliases.File {
		k.owner = n.parent
	}
	return k
}

// grow adds a node unless there is one like it.
func (t *tree) grow(parent *node, action *Action, v aliases.Value) {
	n := &node{Value: v, parent: parent, action: action}
	n.origin = n
	if parent != nil {
		n.depth = parent.depth + 1
		if v.Kind != aliases.Address {
			n.origin = parent.origin
		}
		if p := t.self(parent, v); p != nil {
			n.sameUser, n.final = true, p.forwarded
		}
	}
	k := n.key()
	if _, dup := t.seen[k]; dup {
		if t.tracing {
			t.Tracef("expand: %v: known, discarded", n)
		}
		t.account.known(n)
		if n.circular() {
			t.Warnf("warn: %v: the expansion leads back here through %v: nobody gets the mail by that way", n.Value, parent.Value)
		}
		return
	}
	t.seen[k] = struct{}{}
	t.nodes = append(t.nodes, n)
	t.account.grown(n)
}

// self returns the user from whom v comes, under parent, when v is that user
// again: by his name, or by an address of his.
func (t *tree) self(parent *node, v aliases.Value) *node {
	if v.Kind != aliases.User {
		return nil
	}
	p, name := parent, v.Text
	if p.Kind == aliases.Address && p.parent != nil && p.parent.action == p.action {
		p = p.parent
		name, _, _ = addr.SplitTag(name, t.Delim)
	}
	if p.Kind != aliases.User || p.Text != name {
		return nil
	}
	return p
}

// circular tells whether n is what one of the nodes above it is.
func (n *node) circular() bool {
	for p := n.parent; p != nil; p = p.parent {
		same := p.Text == n.Text
		if n.Kind == aliases.Address {
			same = p.Addr.Local == n.Addr.Local && addr.EqualDomain(p.Addr.Domain, n.Addr.Domain)
		}
		if p.Kind == n.Kind && same {
			return true
		}
	}
	return false
}

// visit does what a node asks for: makes more nodes, or deliveries.
func (t *tree) visit(ctx context.Context, n *node) *mailerr.Error {
	if t.tracing {
		t.Tracef("expand: %v", n)
	}
	if n.depth >= MaxDepth {
		return listProblem(errDeep)
	}
	if len(t.nodes) > MaxNodes {
		return listProblem(errWide)
	}
	switch n.Kind {
	case aliases.Address:
		return t.address(ctx, n)
	case aliases.User:
		return t.user(ctx, n)
	case aliases.Command, aliases.File:
		return t.external(n)
	case aliases.Error:
		return t.refusal(n)
	}
	return mailerr.Local(fmt.Errorf("unexpected %v in an expansion", n))
}

func (t *tree) address(ctx context.Context, n *node) *mailerr.Error {
	s := t.subject
	s.Rcpt = n.Addr
	s.Internal = s.Internal || n.parent != nil
	t.reverse(n, &s)
	rule, err := t.match(ctx, n, &s)
	if err != nil {
		return trouble(err)
	}
	if t.tracing {
		t.Tracef("expand: %s", outcome(rule))
	}
	if rule == nil || rule.Reject {
		return invalidRecipient()
	}
	a := t.Actions[rule.Action]
	if a == nil {
		return mailerr.Local(fmt.Errorf("rule %d names no action %q", rule.Number, rule.Action))
	}
	n.action = a
	switch {
	case !a.Method.Local():
		t.deliver(n, Delivery{Type: envelope.MTA})
	case a.Virtual != nil:
		found, err := t.virtual(ctx, n, n.Addr.Lower())
		if err != nil {
			return listTrouble(err)
		}
		if !found {
			return listProblem(nil)
		}
	default:
		t.grow(n, a, aliases.Value{Kind: aliases.User, Text: addr.Lower(n.Addr.Local)})
	}
	return nil
}

// reverse replaces a sender that we have rewritten, to which a bounce comes back,
// by the real one. The bounce is from here then: without our hash nobody could
// have had us send it.
func (t *tree) reverse(n *node, s *ruleset.Subject) {
	if t.Reverse == nil || !s.Sender.IsZero() || !srs.Is(n.Addr) {
		return
	}
	a, err := t.Reverse(n.Addr)
	if err != nil {
		t.Warnf("warn: SRS: %v: %v", n.Addr, err)
		return
	}
	if t.tracing {
		t.Tracef("expand: %v is %v rewritten", n.Addr, a)
	}
	n.Addr, s.Rcpt, s.Internal = a, a, true
}

// match asks the rules about the address of n.
func (t *tree) match(ctx context.Context, n *node, s *ruleset.Subject) (*ruleset.Rule, error) {
	if t.account == nil {
		return t.Rules.Match(ctx, s)
	}
	steps, rule, err := t.Rules.Explain(ctx, s)
	t.account.of[n].rules = steps
	return rule, err
}

func outcome(rule *ruleset.Rule) string {
	if rule == nil {
		return "no rule matched"
	}
	return fmt.Sprintf("rule #%d matched: %v", rule.Number, rule)
}

// external delivers to a command or a file. Root's may not, and what a rule
// allows only to forward may not either.
func (t *tree) external(n *node) *mailerr.Error {
	p := n.parent
	if p.realUser && p.uid == 0 {
		return trouble(fmt.Errorf("%v not allowed in root's forward", n.Kind))
	}
	if n.action.forwardOnly() {
		return trouble(fmt.Errorf("%v on a forward-only rule", n.Kind))
	}
	d := Delivery{Type: envelope.MDA, User: t.Daemon, Exec: n.Text}
	if p.realUser {
		d.User = p.Text
	} else if n.Kind == aliases.Command {
		t.Warnf("warn: commands executed from aliases run with %s privileges", t.Daemon)
	}
	if n.Kind == aliases.File {
		d.Exec = envelope.ExecFile(t.LibExec, n.Text)
	}
	t.deliver(n, d)
	return nil
}

func (t *tree) refusal(n *node) *mailerr.Error {
	if n.action.forwardOnly() {
		return trouble(errors.New("error: on a forward-only rule"))
	}
	return reply(n.Text)
}

// deliver adds a delivery of node n unless there is the same already.
func (t *tree) deliver(n *node, d Delivery) {
	d.Action = n.action
	d.Dest = n.origin.Addr
	if len(t.out) > 0 {
		if t.sent == nil {
			t.sent = map[Delivery]struct{}{t.out[0]: {}}
		}
		if _, dup := t.sent[d]; dup {
			return
		}
		t.sent[d] = struct{}{}
	}
	t.out = append(t.out, d)
	t.account.delivered(n, d)
}
