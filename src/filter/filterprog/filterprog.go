// Package filterprog is for those who write filter programs for smtpd: it speaks
// smtpd-filters(7), and leaves to the program what is to be decided.
//
// A program registers functions for what it wants to hear of and to decide, and
// then calls Run, which returns when smtpd closes its input. The functions are
// called one after the other. One that has to wait for something, such as the
// answer of another server, should keep the Request and answer it later, from
// another goroutine: smtpd asks on behalf of many sessions at the same time.
//
// What the program writes to its standard error stands in smtpd's log.
//
// A program outside of smtpd's source has the package by a replacement in its
// go.mod:
//
//	go mod edit -require opensmtpd@v0.0.0 -replace opensmtpd=/path/to/the/source
package filterprog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Session is one connection between smtpd and a client.
type Session struct {
	ID string
	// Data is for the program to keep what it knows of the session.
	Data any

	token string // of the message whose lines come in
}

// Event is something that has happened in a session.
type Event struct {
	Name      string   // "link-connect", …
	Subsystem string   // "smtp-in" or "smtp-out"
	Time      string   // seconds since 1970, with six digits behind a point
	Params    []string // as smtpd-filters(7) lists them; a bar may be in the last
}

// Program is a filter program.
type Program struct {
	in   *bufio.Reader
	mu   sync.Mutex // guards what follows
	out  *bufio.Writer
	idle bool // Run waits for smtpd: who answers must see to it that it is written

	config   map[string]string
	reports  map[string]func(*Session, Event)
	requests map[string]func(*Request)
	lines    func(*Session, []byte, func([]byte))
	seen     *Session     // whose line was seen last
	say      func([]byte) // next, made once
	sessions map[string]*Session
}

// New returns a program that talks to smtpd by its standard input and output.
func New(stdin io.Reader, stdout io.Writer) *Program {
	p := &Program{
		in: bufio.NewReaderSize(stdin, 128<<10), out: bufio.NewWriterSize(stdout, 128<<10),
		config: make(map[string]string), reports: make(map[string]func(*Session, Event)),
		requests: make(map[string]func(*Request)), sessions: make(map[string]*Session),
	}
	p.say = p.next
	return p
}

// Config is what smtpd has told about itself, such as "smtpd-version" and "admd".
// It is complete once the first function is called.
func (p *Program) Config(key string) string { return p.config[key] }

// OnReport has f called for an event, "smtp-in|link-connect" for example;
// "smtp-in|*" is for those of a subsystem that have no function of their own.
func (p *Program) OnReport(event string, f func(*Session, Event)) { p.reports[event] = f }

// OnRequest has f called to decide at a phase, "mail-from" for example.
func (p *Program) OnRequest(phase string, f func(*Request)) { p.requests[phase] = f }

// OnLine has f called for every line of a message, dots escaped as in SMTP, and
// at last for the line ".". The message goes on as what f gives to out, with the
// line "." at its end; f need not do so at once, but out must be called from f.
func (p *Program) OnLine(f func(s *Session, line []byte, out func(line []byte))) { p.lines = f }

// Run talks to smtpd until that closes the program's input.
func (p *Program) Run() error {
	if err := p.greet(); err != nil {
		return err
	}
	for {
		line, err := p.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = p.take(line)
		}
		if err != nil {
			return err
		}
	}
}

// read returns the next line; what was said is written before it waits.
func (p *Program) read() ([]byte, error) {
	wait := p.in.Buffered() == 0
	if wait {
		if err := p.rest(); err != nil {
			return nil, err
		}
	}
	line, err := p.in.ReadSlice('\n')
	if wait {
		p.mu.Lock()
		p.idle = false
		p.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

// rest writes what was said, before Run waits.
func (p *Program) rest() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = true
	return p.out.Flush()
}

// greet does the handshake.
func (p *Program) greet() error {
	for {
		line, err := p.read()
		if err != nil {
			return err
		}
		f := strings.SplitN(string(line), "|", 3)
		if f[0] != "config" || len(f) < 2 {
			return fmt.Errorf("%q in the handshake", line)
		}
		if f[1] == "ready" {
			break
		}
		if len(f) == 3 {
			p.config[f[1]] = f[2]
		}
	}
	for _, event := range p.events() {
		fmt.Fprintf(p.out, "register|report|%s\n", event)
	}
	for _, phase := range sorted(p.requests) {
		fmt.Fprintf(p.out, "register|filter|smtp-in|%s\n", phase)
	}
	if p.lines != nil {
		fmt.Fprint(p.out, "register|filter|smtp-in|data-line\n")
	}
	_, err := p.out.WriteString("register|ready\n")
	return err
}

// events returns what to register: what there are functions for, each event once,
// and the ends of sessions, to forget them.
func (p *Program) events() []string {
	want := make(map[string]bool)
	for event := range p.reports {
		subsystem, _, _ := strings.Cut(event, "|")
		if all := subsystem + "|*"; p.reports[all] != nil {
			event = all
		} else {
			want[subsystem+end] = true
		}
		want[event] = true
	}
	if p.reports["smtp-in|*"] == nil {
		want["smtp-in"+end] = true // requests are of its sessions
	}
	return sorted(want)
}

// end is the last event of a session, behind its subsystem.
const end = "|link-disconnect"

func sorted[T any](m map[string]T) []string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// head is the beginning of every line, up to the session.
type head struct{ stream, time, subsystem, what, session []byte }

func cutHead(line []byte) (h head, rest []byte, ok bool) {
	var version []byte
	for _, f := range []*[]byte{&h.stream, &version, &h.time, &h.subsystem, &h.what} {
		if *f, line, ok = bytes.Cut(line, bar); !ok {
			return h, nil, false
		}
	}
	h.session, rest, _ = bytes.Cut(line, bar)
	return h, rest, true
}

var bar = []byte{'|'}

// take does what a line of smtpd asks for.
func (p *Program) take(line []byte) error {
	h, rest, ok := cutHead(line)
	if !ok {
		return fmt.Errorf("%q is not a line of smtpd", line)
	}
	s := p.sessions[string(h.session)]
	if s == nil {
		s = &Session{ID: string(h.session)}
		p.sessions[s.ID] = s
	}
	switch {
	case string(h.stream) == "report":
		p.report(s, h, string(rest))
		return nil
	case string(h.what) == "data-line":
		return p.line(s, rest)
	}
	token, params, _ := strings.Cut(string(rest), "|")
	r := &Request{Session: s, Phase: string(h.what), Params: strings.SplitN(params, "|", 2), program: p, token: token}
	if f := p.requests[r.Phase]; f != nil {
		f(r)
		return nil
	}
	return r.Proceed()
}

// fields is how many parameters an event has, when it is more than one. Never
// written.
var fields = map[string]int{
	"link-connect": 4, "link-identify": 2, "link-auth": 2, "tx-mail": 3, "tx-rcpt": 3, "tx-envelope": 2, "tx-data": 2,
	"tx-commit": 2, "filter-report": 3, "filter-response": 3,
}

func (p *Program) report(s *Session, h head, rest string) {
	name := string(h.what)
	f := p.reports[string(h.subsystem)+"|"+name]
	if f == nil {
		f = p.reports[string(h.subsystem)+"|*"]
	}
	if f != nil {
		f(s, Event{Name: name, Subsystem: string(h.subsystem), Time: string(h.time), Params: strings.SplitN(rest, "|", max(1, fields[name]))})
	}
	if name == "link-disconnect" {
		delete(p.sessions, s.ID)
	}
}

// line hands on a line of a message.
func (p *Program) line(s *Session, rest []byte) error {
	token, text, ok := bytes.Cut(rest, bar)
	if !ok {
		return errors.New("a line of a message without a token")
	}
	if s.token != string(token) {
		s.token = string(token)
	}
	p.seen = s
	p.lines(s, text, p.say)
	return nil
}

// next says a line of the message of which one was seen. An error stays with the
// writer.
func (p *Program) next(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.WriteString("filter-dataline|")
	p.out.WriteString(p.seen.ID)
	p.out.WriteByte('|')
	p.out.WriteString(p.seen.token)
	p.out.WriteByte('|')
	p.out.Write(line)
	p.out.WriteByte('\n')
}

// Request asks for a decision. Exactly one of its methods must be called, once.
type Request struct {
	Session *Session
	Phase   string
	Params  []string // at connect: name and address; else one

	program *Program
	token   string
}

// Proceed lets the session go on, or the next filter decide.
func (r *Request) Proceed() error { return r.answer("proceed") }

// Junk lets it go on too, and marks the message, or up to MAIL the session.
func (r *Request) Junk() error { return r.answer("junk") }

// Rewrite lets it go on with another parameter; an address must be in <>.
func (r *Request) Rewrite(param string) error { return r.answer("rewrite|" + param) }

// Reject refuses with a reply, such as "550 5.7.1 no".
func (r *Request) Reject(reply string) error { return r.answer("reject|" + reply) }

// Disconnect refuses and closes the connection.
func (r *Request) Disconnect(reply string) error { return r.answer("disconnect|" + reply) }

// Report lets it go on and tells all filters of the session a text.
func (r *Request) Report(text string) error { return r.answer("report|" + text) }

var errText = errors.New("an answer is one line")

func (r *Request) answer(text string) error {
	if strings.ContainsAny(text, "\r\n\x00") {
		return errText
	}
	p := r.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintf(p.out, "filter-result|%s|%s|%s\n", r.Session.ID, r.token, text); err != nil {
		return err
	}
	if p.idle {
		return p.out.Flush()
	}
	return nil // Run does before it waits
}
