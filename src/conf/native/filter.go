package native

import (
	"fmt"
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// filter reads the four forms of FILTER NAME.
func (p *parser) filter(n conf.Node) *conf.Node {
	f := &conf.Filter{Node: n}
	f.Name = p.name(&f.Node, "the name of the filter")
	if p.bad {
		return nil
	}
	p.cfg.Filters = append(p.cfg.Filters, f)
	mark(&f.Node, "kind", p.tok.Pos)
	switch {
	case p.skip("chain"):
		f.Kind = conf.FilterChain
		p.chain(f)
	case p.skip("proc"):
		f.Kind = conf.FilterProc
		mark(&f.Node, "proc", p.tok.Pos)
		f.Proc = &conf.Proc{Name: p.str("the name of a proc")}
	case p.skip("proc-exec"):
		f.Kind = conf.FilterProcExec
		f.Proc = &conf.Proc{}
		mark(&f.Node, "command", p.tok.Pos)
		f.Proc.Command = p.str("a command")
		p.procOptions(&f.Node, f.Proc)
	case p.skip("phase"):
		p.builtin(f)
	default:
		p.unexpected("chain, phase, proc or proc-exec")
	}
	return &f.Node
}

// filterRef reads the name of a filter or an inline chain.
func (p *parser) filterRef() string {
	if !p.isPunct("{") {
		return p.plain("the name of a filter or {")
	}
	f := &conf.Filter{Node: conf.Node{Pos: p.tok.Pos}, Inline: true, Kind: conf.FilterChain,
		Name: fmt.Sprintf("<chain:%d>", len(p.cfg.Filters))}
	p.cfg.Filters = append(p.cfg.Filters, f)
	p.chain(f)
	return f.Name
}

// chain reads { name, … }.
func (p *parser) chain(f *conf.Filter) {
	p.wantPunct("{")
	p.newlines()
	for first := true; !p.bad && (first || !p.isPunct("}")); first = false {
		mark(&f.Node, conf.ChainPart(len(f.Chain)), p.tok.Pos)
		name := p.plain("the name of a filter")
		if p.bad {
			break
		}
		f.Chain = append(f.Chain, name)
		p.comma()
	}
	p.wantPunct("}")
}

// The conditions that a phase may look at: what the session has told by then.
var (
	condsConnect = []string{"fcrdns", "rdns", "src"}
	condsHelo    = []string{"fcrdns", "rdns", "src", "helo"}
	condsAuth    = []string{"fcrdns", "rdns", "src", "helo", "auth"}
	condsMail    = []string{"fcrdns", "rdns", "src", "helo", "auth", "mail-from"}
	condsRcpt    = []string{"fcrdns", "rdns", "src", "helo", "auth", "mail-from", "rcpt-to"}
)

// phases maps the phases to their conditions; it is never written.
var phases = map[string][]string{
	"connect": condsConnect, "helo": condsHelo, "ehlo": condsHelo, "auth": condsAuth,
	"mail-from": condsMail, "rcpt-to": condsRcpt, "data": condsMail, "commit": condsMail,
}

// builtin reads PHASE match CONDITION DECISION.
func (p *parser) builtin(f *conf.Filter) {
	conds, ok := phases[p.tok.Text]
	if p.tok.Kind != lex.Word || !ok {
		p.unexpected("a phase: connect, helo, ehlo, auth, mail-from, rcpt-to, data or commit")
		return
	}
	f.Phase = p.tok.Text
	mark(&f.Node, "phase", p.tok.Pos)
	p.advance()
	p.want("match")
	p.filterCond(f, conds)
	p.decision(f)
}

func (p *parser) filterCond(f *conf.Filter, conds []string) {
	if p.bad {
		return
	}
	c := conf.FilterCond{Pos: p.tok.Pos, Not: p.skipPunct("!")}
	word := p.tok.Text
	switch {
	case p.tok.Kind != lex.Word || !slices.Contains(condsRcpt, word):
		p.unexpected("a condition: " + strings.Join(conds, ", "))
		return
	case !slices.Contains(conds, word):
		p.fail(p.tok.Pos, "conditions of this phase: "+strings.Join(conds, ", "),
			"%q is not known yet in phase %s", word, f.Phase)
		return
	}
	c.Kind = word
	p.advance()
	switch word {
	case "fcrdns":
	case "rdns", "auth":
		if c.Regex = p.skip("regex"); c.Regex || p.isRef() {
			c.Table = p.ref(&f.Node, word)
		}
	default:
		c.Regex = p.skip("regex")
		c.Table = p.ref(&f.Node, word)
	}
	f.Conds = append(f.Conds, c)
}

func (p *parser) decision(f *conf.Filter) {
	if p.bad {
		return
	}
	word := p.tok.Text
	mark(&f.Node, "decision", p.tok.Pos)
	switch {
	case p.tok.Kind != lex.Word:
		p.unexpected("a decision: bypass, disconnect, junk, reject, report or rewrite")
	case word == "junk" || word == "bypass":
		if f.Phase == "commit" {
			p.fail(p.tok.Pos, "take the decision in an earlier phase", "%s is too late in phase commit", word)
			return
		}
		p.advance()
		f.Decide.Kind = word
	case word == "reject" || word == "disconnect" || word == "rewrite" || word == "report":
		p.advance()
		mark(&f.Node, "argument", p.tok.Pos)
		f.Decide = conf.Decision{Kind: word, Arg: p.str("the text of " + word)}
	case slices.Contains(condsRcpt, word):
		p.fail(p.tok.Pos, "make two filters, and a chain of them", "a filter has one condition")
	default:
		p.unexpected("a decision: bypass, disconnect, junk, reject, report or rewrite")
	}
}

// proc reads PROC NAME COMMAND options.
func (p *parser) proc(n conf.Node) *conf.Node {
	c := &conf.Proc{Node: n}
	c.Name = p.name(&c.Node, "the name of the proc")
	if p.bad {
		return nil
	}
	p.cfg.Procs = append(p.cfg.Procs, c)
	mark(&c.Node, "command", p.tok.Pos)
	c.Command = p.str("a command")
	p.procOptions(&c.Node, c)
	return &c.Node
}

func (p *parser) procOptions(n *conf.Node, c *conf.Proc) {
	for p.more() {
		pos, word := p.tok.Pos, p.tok.Text
		switch {
		case p.skip("user"):
			c.User = p.str("the name of a user")
		case p.skip("group"):
			c.Group = p.str("the name of a group")
		case p.skip("chroot"):
			c.Chroot = p.str("a directory")
		default:
			p.unknownOption("a filter program", []string{"user", "group", "chroot"})
			return
		}
		p.once(n, word, pos)
	}
}
