package filter

import (
	"context"
	"errors"
	"fmt"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mlog"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// Set is the filters of one generation.
type Set struct {
	o    Options
	conf *project.DispatcherConf
}

// Options are what filters need.
type Options struct {
	Clock    clock.Clock
	Log      *mlog.Logger
	Tables   Tables
	Programs map[string]*Program // of this generation, by name
	Greylist Greylist
}

// New returns the filters of a generation.
func New(o Options, d *project.DispatcherConf) *Set { return &Set{o, d} }

// Inbound returns what a listener asks that names a filter.
func (t *Set) Inbound(name string) (server.Filter, error) {
	c := &chain{o: &t.o}
	list := t.conf.Members(name)
	if len(list) == 0 {
		return nil, fmt.Errorf("no filter %s", name)
	}
	for _, f := range list {
		e := element{name: f.Name, bypass: f.OnFailure == conf.Bypass}
		var err error
		switch f.Kind {
		case conf.FilterBuiltin:
			e.builtin, err = newBuiltin(f)
		case conf.FilterProc, conf.FilterProcExec:
			e.program, err = c.program(t.o.Programs[f.Proc])
		case conf.FilterChain:
			err = errors.New("a chain in a chain")
		}
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.Name, err)
		}
		c.elements = append(c.elements, e)
	}
	return c, nil
}

// chain is the filters of a listener. It implements server.Filter.
type chain struct {
	o        *Options
	elements []element
	programs []*Program // each once
}

// element is one filter of a chain.
type element struct {
	name    string
	builtin *builtin // nil: it is a program
	program int      // index in chain.programs
	bypass  bool     // is not asked while the program is gone
}

// program returns the place of a program in the chain.
func (c *chain) program(g *Program) (int, error) {
	if g == nil {
		return 0, errors.New("its program is not there")
	}
	for i, have := range c.programs {
		if have == g {
			return i, nil
		}
	}
	c.programs = append(c.programs, g)
	return len(c.programs) - 1, nil
}

// tempFail is the answer when it cannot be found out what a filter would say.
var tempFail = server.Verdict{Action: server.Disconnect, Reply: smtp.Fail(421, 3, 0, "Temporary failure")}

// temporary is the answer when a built-in filter cannot tell.
func temporary() server.Verdict {
	return server.Verdict{Action: server.Reject, Reply: smtp.Fail(451, 3, 0, "Temporary failure")}
}

// Phase implements server.Filter.
func (c *chain) Phase(ctx context.Context, s *server.Session, p server.Phase, param string) server.Verdict {
	st := of(s)
	st.phase = p
	q := question{ctx: ctx, s: s, st: st, phase: p, param: stripped(p, param)}
	for i := range c.elements {
		var over bool
		if e := &c.elements[i]; e.builtin != nil {
			over = c.judge(e, &q)
		} else {
			over = c.consult(e, &q)
		}
		if over {
			break
		}
	}
	v := q.verdict
	if v.Marked && (v.Action == server.Proceed || v.Action == server.Report) {
		v.Action = server.Junk
	}
	return v
}

// question is what is decided about, and what the answer is so far.
type question struct {
	ctx     context.Context
	s       *server.Session
	st      *state
	phase   server.Phase
	param   string
	verdict server.Verdict
}

// refuse makes the verdict one after which nobody is asked.
func (q *question) refuse(v server.Verdict) bool {
	q.verdict = v
	return true
}

func (q *question) rewrite(param string) {
	q.verdict.Action, q.verdict.Param = server.Rewrite, param
	q.param = stripped(q.phase, param)
}

// judge lets a built-in filter decide; it is true when nobody else is asked.
func (c *chain) judge(e *element, q *question) bool {
	b := e.builtin
	switch {
	case b.phase == q.phase:
	case b.decide == grey && q.phase == server.PhaseData:
		return c.greyed(q)
	default:
		return false
	}
	yes, err := b.matches(q.ctx, c.o.Tables, q.s, q.param)
	if err != nil {
		c.o.Log.FilterTable(q.s.ID, err)
		return q.refuse(temporary())
	}
	if !yes {
		return false
	}
	switch b.decide {
	case bypass:
		return true
	case reject:
		return q.refuse(server.Verdict{Action: server.Reject, Reply: b.reply})
	case disconnect:
		return q.refuse(server.Verdict{Action: server.Disconnect, Reply: b.reply})
	case junk:
		q.verdict.Marked = true
	case rewrite:
		q.rewrite(b.arg)
	case grey:
		return c.greylist(b, q)
	case report:
		c.say(q, "builtin", b.name, b.arg)
	}
	return false
}

// say reports what a filter has to report.
func (c *chain) say(q *question, kind, name, text string) {
	if q.st.talk == nil {
		return
	}
	q.st.talk.tell(filterReport, c.o.Clock.Now(), func(b []byte) []byte { return appendReport(b, kind, name, text) })
}

// consult asks a program; it is true when nobody else is asked.
func (c *chain) consult(e *element, q *question) bool {
	l := q.st.talk.all()[e.program]
	if l == nil || l.process.isDead() && l.process.hooks.wants(q.phase) {
		return !e.bypass && q.refuse(tempFail)
	}
	if !l.process.hooks.wants(q.phase) {
		return false
	}
	head := appendHead(nil, "filter", c.o.Clock.Now(), smtpIn, phaseName(q.phase), q.s.ID)
	m, err := l.ask(q.ctx, head, func(b []byte) []byte {
		if q.phase == server.PhaseConnect {
			b = appendField(b, q.s.Host())
		}
		return appendLast(b, q.param)
	})
	switch {
	case err == nil && m.verb == "junk" && q.phase == server.PhaseCommit:
		l.process.fail(errCommit)
		return q.refuse(tempFail)
	case err == nil:
		return c.obey(e, q, &m)
	case l.process.isDead() && e.bypass:
		return false
	}
	c.o.Log.FilterFailed(q.s.ID, e.name, err)
	return q.refuse(tempFail)
}

var errCommit = errors.New("junk at commit, when the header is written")

// obey does what a program has decided.
func (c *chain) obey(e *element, q *question, m *said) bool {
	text := string(m.text)
	switch m.verb {
	case "reject", "disconnect":
		v := server.Verdict{Action: server.Reject}
		if m.verb == "disconnect" {
			v.Action = server.Disconnect
		}
		v.Reply, _ = smtp.ParseReply(text) // what is no reply becomes 421
		return q.refuse(v)
	case "junk":
		q.verdict.Marked = true
	case "rewrite":
		q.rewrite(text)
	case "report":
		c.say(q, "proc", e.name, text)
		if q.verdict.Action == server.Proceed {
			q.verdict.Action, q.verdict.Param = server.Report, text
		}
	}
	return false
}

func phaseName(p server.Phase) string {
	switch p {
	case server.PhaseConnect:
		return "connect"
	case server.PhaseStartTLS:
		return "starttls"
	}
	return responsePhases[p]
}

// Lines implements server.Filter.
func (c *chain) Lines(ctx context.Context, s *server.Session, next func([]byte)) server.LineFilter {
	st := of(s)
	if st.talk == nil {
		return nil
	}
	var links []*link
	broken := false
	all := st.talk.all()
	for i := range c.elements {
		e := &c.elements[i]
		if e.builtin != nil {
			continue
		}
		l := all[e.program]
		switch {
		case l == nil || l.process.isDead():
			broken = broken || !e.bypass && (l == nil || l.process.hooks.lines)
		case l.process.hooks.lines && !contains(links, l):
			links = append(links, l)
		}
	}
	if len(links) == 0 && !broken {
		return nil
	}
	p := newPassage(ctx, c.o.Clock, st.talk, links, next)
	if broken {
		p.err = errDead
	}
	return p
}

func contains(links []*link, l *link) bool {
	for _, have := range links {
		if have == l {
			return true
		}
	}
	return false
}

// Report implements server.Filter.
func (c *chain) Report(s *server.Session, e server.Event) {
	st := of(s)
	if e.Kind == server.LinkConnect && len(c.programs) > 0 {
		st.talk = newTalk(s.ID, smtpIn)
		st.talk.connect(c.programs)
	}
	if st.talk == nil {
		return
	}
	st.talk.tell(e.Kind, c.o.Clock.Now(), func(b []byte) []byte { return appendEvent(b, s, &e) })
	if e.Kind == server.LinkDisconnect {
		st.talk.end()
		st.talk = nil
	}
}
