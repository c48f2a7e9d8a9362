package filter

import (
	"context"
	"fmt"
	"net/netip"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// Tables answers for the tables of conditions.
type Tables interface {
	// Match tells whether key is in a table of a generation. An error is
	// temporary.
	Match(ctx context.Context, gen mail.Gen, s table.Service, name, key string) (bool, error)
}

// phases are the names of smtpd.conf(5) and smtpd-filters(7). Never written.
var phases = map[string]server.Phase{
	"connect": server.PhaseConnect, "helo": server.PhaseHelo, "ehlo": server.PhaseEhlo,
	"starttls": server.PhaseStartTLS, "auth": server.PhaseAuth, "mail-from": server.PhaseMailFrom,
	"rcpt-to": server.PhaseRcptTo, "data": server.PhaseData, "commit": server.PhaseCommit,
	"noop": server.PhaseNoop, "quit": server.PhaseQuit, "rset": server.PhaseRset,
	"help": server.PhaseHelp, "wiz": server.PhaseWiz,
}

// builtin is a filter with a condition and a decision.
type builtin struct {
	name   string
	phase  server.Phase
	conds  []condition
	decide decision
	reply  smtp.Reply // of reject and disconnect
	arg    string     // of rewrite and report
	rule   greylist.Rule
}

type decision uint8

const (
	bypass decision = iota
	disconnect
	junk
	reject
	rewrite
	report
	grey
)

// decisions are the words of smtpd.conf(5). Never written.
var decisions = map[string]decision{
	"bypass": bypass, "disconnect": disconnect, "junk": junk, "reject": reject, "rewrite": rewrite, "report": report,
	"greylist": grey,
}

func newBuiltin(f *project.Filter) (*builtin, error) {
	b := &builtin{name: f.Name, arg: f.Decide.Arg, rule: greylist.Rule(f.Decide.Grey)}
	var ok bool
	if b.phase, ok = phases[f.Phase]; !ok {
		return nil, fmt.Errorf("filter %s: unknown phase %q", f.Name, f.Phase)
	}
	if b.decide, ok = decisions[f.Decide.Kind]; !ok {
		return nil, fmt.Errorf("filter %s: unknown decision %q", f.Name, f.Decide.Kind)
	}
	if b.decide == reject || b.decide == disconnect {
		b.reply, _ = smtp.ParseReply(f.Decide.Arg) // what is no reply becomes 421
	}
	for i := range f.Conds {
		c := &f.Conds[i]
		k, ok := keys[c.Kind]
		if !ok {
			return nil, fmt.Errorf("filter %s: unknown condition %q", f.Name, c.Kind)
		}
		b.conds = append(b.conds, condition{kind: k, not: c.Not, table: c.Table, regex: c.Regex})
	}
	return b, nil
}

// condition is one question about a session.
type condition struct {
	kind  kind
	not   bool
	table string // "": none is asked
	regex bool
}

// kind says what a condition looks at.
type kind struct {
	service table.Service
	// plain answers a condition without a table.
	plain func(*server.Session) bool
	// key is what is looked for, false when there is nothing to look for.
	key func(s *server.Session, param string) (string, bool)
}

// keys are the conditions of smtpd.conf(5). Never written.
var keys = map[string]kind{
	"fcrdns": {plain: func(s *server.Session) bool { return s.Client.Name.Host != "" && s.Client.Name.Forward }},
	"rdns": {table.Domain, hasName,
		func(s *server.Session, _ string) (string, bool) { return s.Host(), true }},
	"src": {service: table.NetAddr,
		key: func(s *server.Session, _ string) (string, bool) { return table.AddrKey(s.Client.Addr.Addr()), true }},
	"helo": {service: table.Domain, key: heloOf},
	"auth": {table.String, func(s *server.Session) bool { return s.User != "" },
		func(s *server.Session, _ string) (string, bool) { return s.User, s.User != "" }},
	"mail-from": {service: table.MailAddr, key: senderOf},
	"rcpt-to":   {service: table.MailAddr, key: func(_ *server.Session, param string) (string, bool) { return param, true }},
}

// hasName tells whether a client has a name: an address is none.
func hasName(s *server.Session) bool {
	_, err := netip.ParseAddr(s.Client.Name.Host)
	return s.Client.Name.Host != "" && err != nil
}

// heloOf is the name that the client gives, or in the phases of HELO and EHLO is
// giving.
func heloOf(s *server.Session, param string) (string, bool) {
	if p := asking(s); p == server.PhaseHelo || p == server.PhaseEhlo {
		return param, true
	}
	return s.Helo, true
}

// senderOf is the sender, of the transaction or at MAIL the one that is offered.
func senderOf(s *server.Session, param string) (string, bool) {
	if t := s.Transaction(); t != nil {
		return t.Mail.From.SMTP(), true
	}
	return param, true
}

// matches tells whether the conditions of a filter hold.
func (b *builtin) matches(ctx context.Context, tables Tables, s *server.Session, param string) (bool, error) {
	for i := range b.conds {
		yes, err := b.conds[i].holds(ctx, tables, s, param)
		if err != nil {
			return false, fmt.Errorf("filter %s: %w", b.name, err)
		}
		if !yes {
			return false, nil
		}
	}
	return true, nil
}

func (c *condition) holds(ctx context.Context, tables Tables, s *server.Session, param string) (bool, error) {
	if c.table == "" {
		return c.kind.plain != nil && c.kind.plain(s) != c.not, nil
	}
	key, has := c.kind.key(s, param)
	if !has {
		return c.not, nil
	}
	service := c.kind.service
	switch {
	case c.regex:
		service = table.Regex
	case service == table.MailAddr && key == "":
		key = "@" // the null sender
	}
	yes, err := tables.Match(ctx, s.Listener.Gen, service, c.table, key)
	return yes != c.not, err
}
