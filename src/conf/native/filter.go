package native

import (
	"fmt"
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
	"opensmtpd/src/conf/syntax"
)

// filter reads the four forms of FILTER NAME.
func (p *parser) filter(n conf.Node) *conf.Node {
	f := &conf.Filter{Node: n}
	f.Name = p.Name(&f.Node, "the name of the filter")
	if p.Bad {
		return nil
	}
	p.Cfg.Filters = append(p.Cfg.Filters, f)
	syntax.Mark(&f.Node, "kind", p.Tok.Pos)
	switch {
	case p.Skip("chain"):
		f.Kind = conf.FilterChain
		p.chain(f)
	case p.Skip("proc"):
		f.Kind = conf.FilterProc
		syntax.Mark(&f.Node, "proc", p.Tok.Pos)
		f.Proc = &conf.Proc{Name: p.Str("the name of a proc")}
		p.filterOptions(f)
	case p.Skip("proc-exec"):
		f.Kind = conf.FilterProcExec
		f.Proc = &conf.Proc{}
		syntax.Mark(&f.Node, "command", p.Tok.Pos)
		f.Proc.Command = p.Str("a command")
		p.filterOptions(f)
	case p.Skip("phase"):
		p.builtin(f)
	default:
		p.Unexpected("chain, phase, proc or proc-exec")
	}
	return &f.Node
}

// filterRef reads the name of a filter or an inline chain.
func (p *parser) filterRef() string {
	if !p.IsPunct("{") {
		return p.Plain("the name of a filter or {")
	}
	f := &conf.Filter{Node: conf.Node{Pos: p.Tok.Pos}, Inline: true, Kind: conf.FilterChain,
		Name: fmt.Sprintf("<chain:%d>", len(p.Cfg.Filters))}
	p.Cfg.Filters = append(p.Cfg.Filters, f)
	p.chain(f)
	return f.Name
}

// chain reads { name, … }.
func (p *parser) chain(f *conf.Filter) {
	p.WantPunct("{")
	p.Newlines()
	for first := true; !p.Bad && (first || !p.IsPunct("}")); first = false {
		syntax.Mark(&f.Node, conf.ChainPart(len(f.Chain)), p.Tok.Pos)
		name := p.Plain("the name of a filter")
		if p.Bad {
			break
		}
		f.Chain = append(f.Chain, name)
		p.Comma()
	}
	p.WantPunct("}")
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
	"connect": condsConnect, "helo": condsHelo, "ehlo": condsHelo, "starttls": condsHelo, "auth": condsAuth,
	"mail-from": condsMail, "rcpt-to": condsRcpt, "data": condsMail, "commit": condsMail,
}

// builtin reads PHASE match CONDITION DECISION.
func (p *parser) builtin(f *conf.Filter) {
	conds, ok := phases[p.Tok.Text]
	if p.Tok.Kind != lex.Word || !ok {
		p.Unexpected("a phase: connect, helo, ehlo, starttls, auth, mail-from, rcpt-to, data or commit")
		return
	}
	f.Phase = p.Tok.Text
	syntax.Mark(&f.Node, "phase", p.Tok.Pos)
	p.Advance()
	p.Want("match")
	p.filterCond(f, conds)
	p.decision(f)
}

func (p *parser) filterCond(f *conf.Filter, conds []string) {
	if p.Bad {
		return
	}
	c := conf.FilterCond{Pos: p.Tok.Pos, Not: p.SkipPunct("!")}
	word := p.Tok.Text
	switch {
	case p.Tok.Kind != lex.Word || !slices.Contains(condsRcpt, word):
		p.Unexpected("a condition: " + strings.Join(conds, ", "))
		return
	case !slices.Contains(conds, word):
		p.Fail(p.Tok.Pos, "conditions of this phase: "+strings.Join(conds, ", "),
			"%q is not known yet in phase %s", word, f.Phase)
		return
	}
	c.Kind = word
	p.Advance()
	switch word {
	case "fcrdns":
	case "rdns", "auth":
		if c.Regex = p.Skip("regex"); c.Regex || p.IsRef() {
			c.Table = p.Ref(&f.Node, word)
		}
	default:
		c.Regex = p.Skip("regex")
		c.Table = p.Ref(&f.Node, word)
	}
	f.Conds = append(f.Conds, c)
}

// missingCode has what goes before a reply that was written without a code:
// OpenSMTPD loads such a filter, and answers 421 in its place. It is never
// written.
var missingCode = map[string]string{"reject": "550", "disconnect": "421"}

// codeless tells whether a reply is words alone.
func codeless(s string) bool { return s != "" && (s[0] < '0' || s[0] > '9') }

func (p *parser) decision(f *conf.Filter) {
	if p.Bad {
		return
	}
	word := p.Tok.Text
	syntax.Mark(&f.Node, "decision", p.Tok.Pos)
	switch {
	case p.Tok.Kind != lex.Word:
		p.Unexpected("a decision: bypass, disconnect, greylist, junk, reject, report or rewrite")
	case word == "junk" || word == "bypass":
		if f.Phase == "commit" {
			p.Fail(p.Tok.Pos, "take the decision in an earlier phase", "%s is too late in phase commit", word)
			return
		}
		p.Advance()
		f.Decide.Kind = word
	case word == "reject" || word == "disconnect" || word == "rewrite" || word == "report":
		p.Advance()
		pos := p.Tok.Pos
		syntax.Mark(&f.Node, "argument", pos)
		f.Decide = conf.Decision{Kind: word, Arg: p.Str("the text of " + word)}
		if code := missingCode[word]; code != "" && !p.Bad && codeless(f.Decide.Arg) {
			p.Diags.Warnf(pos, "the reply of %s has no code: %s goes before it", word, code)
			f.Decide.Arg = code + " " + f.Decide.Arg
		}
	case word == "greylist":
		p.greylist(f)
	case slices.Contains(condsRcpt, word):
		p.Fail(p.Tok.Pos, "make two filters, and a chain of them", "a filter has one condition")
	default:
		p.Unexpected("a decision: bypass, disconnect, greylist, junk, reject, report or rewrite")
	}
}

// greylist reads GREYLIST and its times.
func (p *parser) greylist(f *conf.Filter) {
	if f.Phase != "rcpt-to" {
		p.Fail(p.Tok.Pos, "greylist in phase rcpt-to", "greylist needs a recipient, which phase %s has not", f.Phase)
		return
	}
	p.Advance()
	f.Decide.Kind, f.Decide.Grey = "greylist", conf.UsualGrey()
	for p.More() {
		pos, word := p.Tok.Pos, p.Tok.Text
		switch {
		case p.Skip("delay"):
			f.Decide.Grey.Delay = p.Delay("the delay")
		case p.Skip("expire"):
			f.Decide.Grey.Expire = p.Delay("the time in which a client must come again")
		case p.Skip("whitelist"):
			f.Decide.Grey.Whitelist = p.Delay("how long a network passes")
		default:
			p.UnknownOption("greylist", []string{"delay", "expire", "whitelist"})
			return
		}
		p.Once(&f.Node, word, pos)
	}
}

// proc reads PROC NAME COMMAND options.
func (p *parser) proc(n conf.Node) *conf.Node {
	c := &conf.Proc{Node: n}
	c.Name = p.Name(&c.Node, "the name of the proc")
	if p.Bad {
		return nil
	}
	p.Cfg.Procs = append(p.Cfg.Procs, c)
	syntax.Mark(&c.Node, "command", p.Tok.Pos)
	c.Command = p.Str("a command")
	p.procOptions(&c.Node, c)
	return &c.Node
}

func (p *parser) procOptions(n *conf.Node, c *conf.Proc) {
	for p.More() {
		pos, word := p.Tok.Pos, p.Tok.Text
		if !p.procOption(c) {
			p.UnknownOption("a filter program", []string{"user", "group", "chroot"})
			return
		}
		p.Once(n, word, pos)
	}
}

// procOption reads one option of a program.
func (p *parser) procOption(c *conf.Proc) bool {
	switch {
	case p.Skip("user"):
		c.User = p.Str("the name of a user")
	case p.Skip("group"):
		c.Group = p.Str("the name of a group")
	case p.Skip("chroot"):
		c.Chroot = p.Str("a directory")
	default:
		return false
	}
	return true
}

// filterOptions reads what may follow proc and proc-exec; the options of a
// program only where it is started.
func (p *parser) filterOptions(f *conf.Filter) {
	for p.More() {
		pos, word := p.Tok.Pos, p.Tok.Text
		switch {
		case p.Skip("on-failure"):
			p.onFailure(f)
		case f.Kind == conf.FilterProcExec && p.procOption(f.Proc):
		case f.Kind == conf.FilterProcExec:
			p.UnknownOption("a filter program", []string{"user", "group", "chroot", "on-failure"})
			return
		default:
			p.UnknownOption("a filter of a proc", []string{"on-failure"})
			return
		}
		p.Once(&f.Node, word, pos)
	}
}

func (p *parser) onFailure(f *conf.Filter) {
	switch {
	case p.Skip("bypass"):
		f.OnFailure = conf.Bypass
	case p.Skip("tempfail"):
	default:
		p.Unexpected("bypass or tempfail")
	}
}
