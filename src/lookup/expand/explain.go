package expand

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"opensmtpd/src/lookup/ruleset"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// Row is one line of "smtpctl explain" (msg.VerbExplain): a place in the tree of
// an expansion, or what happened there. Rows come in the order of the tree, each
// below the last one of a smaller Depth.
type Row struct {
	Depth int    `json:"depth"`
	Kind  string `json:"kind"` // "address", "user", "command", "file", "error"; "rule", "delivery", "known", "refused"
	Text  string `json:"text"` // a name, a rule, a reply, or what is delivered how

	// Of a rule.
	Number  int    `json:"number,omitempty"` // from 1
	Line    int    `json:"line,omitempty"`   // in the file
	Matched bool   `json:"matched,omitempty"`
	Failed  string `json:"failed,omitempty"` // the condition that did not hold

	// Of a delivery.
	Action string `json:"action,omitempty"`
	Method string `json:"method,omitempty"`
	User   string `json:"user,omitempty"`
	Dest   string `json:"dest,omitempty"`

	// Of a refusal, what the log would say.
	Cause string `json:"cause,omitempty"`
}

// Explain expands subject.Rcpt as Expand does and accounts for every rule and
// every step. Nothing is delivered.
func Explain(ctx context.Context, c *Config, w World, subject *ruleset.Subject) []Row {
	t := newTree(c, w, subject)
	t.account = &account{of: make(map[*node]*record)}
	_, err := t.expand(ctx)
	rows := t.account.root.rows(nil, 0)
	for i := range rows {
		if r := &rows[i]; r.Kind == "rule" {
			r.Text, r.Failed = c.spell(r.Text), c.spell(r.Failed)
		}
	}
	if err != nil {
		row := Row{Kind: "refused", Text: fmt.Sprintf("%d %s %s", err.Code, err.Enhanced, err.Text)}
		if err.Cause != nil {
			row.Cause = err.Cause.Error()
		}
		rows = append(rows, row)
	}
	return rows
}

// spell replaces the made-up names of tables in a rule by what is in them.
func (c *Config) spell(rule string) string {
	words := strings.Split(rule, " ")
	for i, w := range words {
		if text, ok := c.written[w]; ok {
			words[i] = text
		}
	}
	return strings.Join(words, " ")
}

// account is what Explain remembers of a tree. A nil account remembers nothing.
type account struct {
	root *record
	of   map[*node]*record
}

// record is what happened at a node.
type record struct {
	kind, text string
	rules      []ruleset.Step
	out        []Delivery
	known      bool
	err        *mailerr.Error
	kids       []*record
}

func (a *account) grown(n *node) {
	if a == nil {
		return
	}
	r := &record{kind: n.Kind.String(), text: n.Value.String()}
	a.of[n] = r
	if n.parent == nil {
		a.root = r
		return
	}
	p := a.of[n.parent]
	p.kids = append(p.kids, r)
}

// known remembers a node that the tree has already.
func (a *account) known(n *node) {
	if a == nil || n.parent == nil {
		return
	}
	p := a.of[n.parent]
	p.kids = append(p.kids, &record{kind: n.Kind.String(), text: n.Value.String(), known: true})
}

func (a *account) delivered(n *node, d Delivery) {
	if a != nil {
		a.of[n].out = append(a.of[n].out, d)
	}
}

func (a *account) refused(n *node, err *mailerr.Error) {
	if a != nil {
		a.of[n].err = err
	}
}

func (r *record) rows(rows []Row, depth int) []Row {
	rows = append(rows, Row{Depth: depth, Kind: r.kind, Text: r.text})
	for _, s := range r.rules {
		rows = append(rows, Row{Depth: depth + 1, Kind: "rule", Text: s.Rule.String(), Number: s.Rule.Number,
			Line: s.Rule.Line, Matched: s.Failed == "", Failed: s.Failed})
	}
	for i := range r.out {
		rows = append(rows, deliveryRow(&r.out[i], depth+1))
	}
	if r.known {
		rows = append(rows, Row{Depth: depth + 1, Kind: "known", Text: "is in the tree already"})
	}
	if r.err != nil {
		rows = append(rows, Row{Depth: depth + 1, Kind: "refused", Text: "the message is refused for this"})
	}
	for _, k := range r.kids {
		rows = k.rows(rows, depth+1)
	}
	return rows
}

func deliveryRow(d *Delivery, depth int) Row {
	row := Row{Depth: depth, Kind: "delivery", Action: d.Action.Name, Method: d.Action.Method.String(),
		User: d.User, Dest: d.Dest.String()}
	switch {
	case d.Type == envelope.MTA:
		row.Text = fmt.Sprintf("%s to %s, action %s", row.Method, row.Dest, row.Action)
	case d.Exec != "":
		row.Text = fmt.Sprintf("%s as user %s", d.Exec, d.User)
	default:
		row.Text = fmt.Sprintf("%s for user %s, action %s", row.Method, d.User, row.Action)
	}
	return row
}

// words are those of a question; true: a value follows. It is never written.
var words = map[string]bool{
	"src": true, "socket": false, "rdns": true, "helo": true, "tls": false, "auth": true, "tag": true,
	"mail-from": true, "rcpt-to": true,
}

// Words returns the words of a question.
func Words() []string {
	list := make([]string, 0, len(words))
	for w := range words {
		list = append(list, w)
	}
	slices.Sort(list)
	return list
}

// Question reads the words of "smtpctl explain", which are those of match in
// smtpd.conf(5): src ADDRESS | socket, rdns NAME, helo NAME, tls, auth USER, tag
// TAG, mail-from ADDRESS, rcpt-to ADDRESS, in any order, the last one always.
// Without a source the mail comes by the local socket.
func Question(args []string) (*ruleset.Subject, error) {
	s := new(ruleset.Subject)
	given := make(map[string]string)
	for i := 0; i < len(args); i++ {
		w := args[i]
		value, known := words[w]
		if !known {
			return nil, fmt.Errorf("%q is none of %s", w, strings.Join(Words(), ", "))
		}
		if _, twice := given[w]; twice {
			return nil, fmt.Errorf("%s is given twice", w)
		}
		given[w] = ""
		if value {
			if i++; i == len(args) {
				return nil, fmt.Errorf("%s needs a value", w)
			}
			given[w] = args[i]
		}
	}
	s.RDNS, s.Helo, s.Tag, s.AuthUser = given["rdns"], given["helo"], given["tag"], given["auth"]
	_, s.TLS = given["tls"]
	_, s.Authenticated = given["auth"]
	s.Sender = cutAddress(given["mail-from"])
	s.Rcpt = cutAddress(given["rcpt-to"])
	if s.Rcpt.Local == "" || s.Rcpt.Domain == "" {
		return nil, fmt.Errorf("rcpt-to must be user@domain")
	}
	src, remote := given["src"]
	if _, socket := given["socket"]; socket && remote {
		return nil, fmt.Errorf("src and socket exclude each other")
	}
	if remote {
		a, err := netip.ParseAddr(strings.Trim(src, "[]"))
		if err != nil {
			return nil, fmt.Errorf("src: %q is not an address", src)
		}
		s.Addr = a.Unmap()
	}
	return s, nil
}

func cutAddress(s string) addr.Address {
	return addr.Cut(strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">"))
}
