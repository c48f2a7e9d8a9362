package hcl

import (
	"slices"
	"strings"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
)

type filterField = field[*conf.Filter]

// The conditions that a phase may look at: what the session has told by then;
// all in the order of the session. Never written.
var (
	condWords = []string{"fcrdns", "rdns", "src", "helo", "auth", "mail-from", "rcpt-to"}
	phases    = map[string]int{ // how many of the words, from the first
		"connect": 3, "helo": 4, "ehlo": 4, "starttls": 4, "auth": 5, "mail-from": 6, "rcpt-to": 7, "data": 6, "commit": 6,
	}
	phaseWords    = []string{"connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "commit"}
	decisionWords = []string{"bypass", "disconnect", "greylist", "junk", "reject", "report", "rewrite"}
	formWords     = []string{"chain", "proc", "proc-exec", "phase"}
)

// filter reads filter "NAME" { … } in one of its four forms.
func (p *parser) filter(b *hclsyntax.Block) {
	f := &conf.Filter{Node: p.declaration(b)}
	f.Name = p.label(b, &f.Node)
	p.cfg.Filters = append(p.cfg.Filters, f)
	p.keep(&f.Node, b.Range())
	form := ""
	for _, a := range attributes(b.Body) {
		switch {
		case !slices.Contains(formWords, a.Name):
		case form != "":
			p.fail(a.NameRange, "", "%s and %s are mutually exclusive", form, a.Name)
		default:
			form = a.Name
			p.mark(&f.Node, "kind", a.NameRange)
		}
	}
	if p.bad {
		f.Bad = true
		return
	}
	what := "filter … " + form
	switch form {
	case "chain":
		f.Kind = conf.FilterChain
		fields(p, what, b.Body, f, []filterField{{form, (*parser).filterChain}})
	case "proc":
		f.Kind = conf.FilterProc
		fields(p, what, b.Body, f, []filterField{{form, func(p *parser, f *conf.Filter, a *hclsyntax.Attribute) {
			p.mark(&f.Node, "proc", a.Expr.Range())
			f.Proc = &conf.Proc{Name: p.refTo(a.Expr, "proc")}
		}}, onFailure()})
	case "proc-exec":
		f.Kind = conf.FilterProcExec
		f.Proc = &conf.Proc{}
		table := []filterField{onFailure()}
		for _, c := range procFields(form, &f.Node) {
			table = append(table, filterField{c.word, func(p *parser, f *conf.Filter, a *hclsyntax.Attribute) { c.read(p, f.Proc, a) }})
		}
		fields(p, what, b.Body, f, table)
	case "phase":
		p.builtin(f, b)
	default:
		p.fail(b.TypeRange, "add chain = […], proc = proc.NAME, proc-exec = COMMAND, or phase, a condition and a decision",
			"filter %s says nothing to do", f.Name)
	}
	f.Bad = p.bad
}

func (p *parser) filterChain(f *conf.Filter, a *hclsyntax.Attribute) {
	list := p.refsTo(a.Expr, "filter", func(name string, r hcl2.Range) {
		p.mark(&f.Node, conf.ChainPart(len(f.Chain)), r)
		f.Chain = append(f.Chain, name)
	})
	if !list && !p.bad {
		p.fail(a.Expr.Range(), "in brackets it is a list", "a chain is a list of filters")
	}
}

// onFailure is what becomes of sessions while the program is gone.
func onFailure() filterField {
	return filterField{"on-failure", func(p *parser, f *conf.Filter, a *hclsyntax.Attribute) {
		if p.oneOf(a.Expr, "bypass", "tempfail") == "bypass" {
			f.OnFailure = conf.Bypass
		}
	}}
}

// procFields are the parts of a program.
func procFields(command string, n *conf.Node) []field[*conf.Proc] {
	text := func(word, part, want string, to func(*conf.Proc) *string) field[*conf.Proc] {
		return field[*conf.Proc]{word, func(p *parser, c *conf.Proc, a *hclsyntax.Attribute) {
			p.mark(n, part, a.Expr.Range())
			*to(c) = p.word(a.Expr, want)
		}}
	}
	return []field[*conf.Proc]{
		text(command, "command", "a command", func(c *conf.Proc) *string { return &c.Command }),
		text("user", "user", "the name of a user", func(c *conf.Proc) *string { return &c.User }),
		text("group", "group", "the name of a group", func(c *conf.Proc) *string { return &c.Group }),
		text("chroot", "chroot", "a directory", func(c *conf.Proc) *string { return &c.Chroot }),
	}
}

// proc reads proc "NAME" { … }.
func (p *parser) proc(b *hclsyntax.Block) {
	c := &conf.Proc{Node: p.declaration(b)}
	c.Name = p.label(b, &c.Node)
	p.cfg.Procs = append(p.cfg.Procs, c)
	p.keep(&c.Node, b.Range())
	fields(p, "proc", b.Body, c, procFields("command", &c.Node))
	p.need(b, "command", `"…"`)
	c.Bad = p.bad
}

// greyTimes are the times of greylist.
func greyTimes() []filterField {
	one := func(word string, to func(*conf.Grey) *time.Duration) filterField {
		return filterField{word, func(p *parser, f *conf.Filter, a *hclsyntax.Attribute) {
			p.mark(&f.Node, word, a.Expr.Range())
			*to(&f.Decide.Grey) = p.delay(a.Expr)
		}}
	}
	return []filterField{
		one("delay", func(g *conf.Grey) *time.Duration { return &g.Delay }),
		one("expire", func(g *conf.Grey) *time.Duration { return &g.Expire }),
		one("whitelist", func(g *conf.Grey) *time.Duration { return &g.Whitelist }),
	}
}

// builtin reads a phase, one condition and one decision.
func (p *parser) builtin(f *conf.Filter, b *hclsyntax.Block) {
	if a := b.Body.Attributes["phase"]; a != nil { // conditions depend on it
		p.mark(&f.Node, "phase", a.Expr.Range())
		f.Phase = p.oneOf(a.Expr, phaseWords...)
	}
	if b.Body.Attributes["greylist"] != nil { // what is not said is as usual
		f.Decide.Grey = conf.UsualGrey()
	}
	table := []filterField{{"phase", func(*parser, *conf.Filter, *hclsyntax.Attribute) {}}}
	for _, word := range condWords {
		table = append(table, filterField{word, (*parser).filterCond})
	}
	for _, word := range decisionWords {
		table = append(table, filterField{word, (*parser).decision})
	}
	table = append(table, greyTimes()...)
	fields(p, "filter … phase", b.Body, f, table)
	switch {
	case p.bad:
	case len(f.Conds) == 0:
		p.fail(b.TypeRange, "conditions: "+strings.Join(condWords[:phases[f.Phase]], ", "), "filter %s has no condition", f.Name)
	case f.Decide.Kind == "":
		p.fail(b.TypeRange, "decisions: "+strings.Join(decisionWords, ", "), "filter %s has no decision", f.Name)
	case f.Decide.Kind != "greylist" && f.Decide.Grey != conf.Grey{}:
		p.fail(b.TypeRange, "", "delay, expire and whitelist are of greylist alone")
	case f.Decide.Kind == "greylist" && f.Phase != "rcpt-to":
		p.fail(b.TypeRange, "greylist in phase rcpt-to", "greylist needs a recipient, which phase %s has not", f.Phase)
	}
}

func (p *parser) filterCond(f *conf.Filter, a *hclsyntax.Attribute) {
	if f.Phase == "" {
		return // reported
	}
	if known := condWords[:phases[f.Phase]]; !slices.Contains(known, a.Name) {
		p.fail(a.NameRange, "conditions of this phase: "+strings.Join(known, ", "),
			"%q is not known yet in phase %s", a.Name, f.Phase)
		return
	}
	if len(f.Conds) > 0 {
		p.fail(a.NameRange, "make two filters, and a chain of them", "a filter has one condition")
		return
	}
	c := conf.FilterCond{Pos: p.pos(a.NameRange), Kind: a.Name}
	if a.Name == "fcrdns" {
		c.Not = !p.flag(a.Expr)
	} else {
		in := p.cond(&f.Node, a.Name, a, a.Name == "rdns" || a.Name == "auth")
		c.Not, c.Regex, c.Table = in.Not, in.Regex, in.Table
	}
	f.Conds = append(f.Conds, c)
}

func (p *parser) decision(f *conf.Filter, a *hclsyntax.Attribute) {
	if f.Decide.Kind != "" {
		p.fail(a.NameRange, "", "%s and %s are mutually exclusive", f.Decide.Kind, a.Name)
		return
	}
	p.mark(&f.Node, "decision", a.NameRange)
	f.Decide.Kind = a.Name
	if a.Name != "junk" && a.Name != "bypass" && a.Name != "greylist" {
		p.mark(&f.Node, "argument", a.Expr.Range())
		f.Decide.Arg = p.word(a.Expr, "the text of "+a.Name)
		return
	}
	switch on := p.flag(a.Expr); {
	case p.bad:
	case !on:
		p.fail(a.Expr.Range(), "write "+a.Name+" = true", "%s = false decides nothing", a.Name)
	case f.Phase == "commit" && a.Name != "greylist":
		p.fail(a.NameRange, "take the decision in an earlier phase", "%s is too late in phase commit", a.Name)
	}
}
