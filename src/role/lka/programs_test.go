package lka

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

const programs = `
table people "proc:/bin/people"
action "local" maildir virtual <people>
match for domain "v.test" action "local"
-- /bin/people --
x
-- users --
bob:1000:1000:/home/bob
eve:1001:1001:/home/eve
`

// played is a table program whose one answer to every lookup is a user.
type played struct {
	t     *testing.T
	ours  *os.File // for the role
	them  *os.File
	ended chan struct{} // closed when the role has let it go
}

func play(t *testing.T, user string) *played { return serve(t, "alias", user) }

// serve is play for another service than aliases.
func serve(t *testing.T, service, user string) *played {
	t.Helper()
	ours, theirs, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	p := &played{t, ours, theirs, make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer theirs.Close()
		in := bufio.NewScanner(theirs)
		for in.Scan() {
			f := strings.SplitN(in.Text(), "|", 8)
			switch {
			case in.Text() == "config|ready":
				fmt.Fprintf(theirs, "register|%s\nregister|ready\n", service)
			case f[0] == "table" && user == "":
				fmt.Fprint(theirs, "rubbish\n")
			case f[0] == "table" && f[4] == "update":
				fmt.Fprintf(theirs, "update-result|%s|error|no such luck\n", f[5])
			case f[0] == "table" && f[4] == "check":
				fmt.Fprintf(theirs, "check-result|%s|found\n", f[6])
			case f[0] == "table":
				fmt.Fprintf(theirs, "lookup-result|%s|found|%s\n", f[6], user)
			}
		}
	}()
	return p
}

// file hands the program over with a configuration.
func (p *played) file() proc.File {
	return proc.File{Identity: "table:people:proc:/bin/people", File: p.ours}
}

// handed is a request that brings a descriptor.
type handed struct {
	request
	file *os.File
}

func (h *handed) File() *os.File { return h.file }

// restart hands a program over as parent does that has started it again.
func (p *played) restart(r *Role) {
	p.t.Helper()
	for _, h := range r.Handlers() {
		if h.From == proc.Parent && h.Type == msg.TypeProgram {
			q := &handed{request{from: proc.Parent, body: &msg.Program{Identity: p.file().Identity}}, p.ours}
			h.Do(p.t.Context(), q)
			if q.fail != nil {
				p.t.Fatal(q.fail)
			}
		}
	}
}

// TestPrograms sees a program through restarts and generations.
func TestPrograms(t *testing.T) {
	s := newSystem(t, programs)
	s.told = make(chan msg.Message, 4)
	first := play(t, "bob")
	env := s.env(false)
	env.Conf.Files = append(env.Conf.Files, first.file())
	r, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	s.run(r)
	gets := func(gen mail.Gen, want string) {
		t.Helper()
		if got := to(t, s, r, gen, "x@v.test"); !strings.Contains(got, want) {
			t.Errorf("%s, not %s", got, want)
		}
	}
	gets(1, "user=bob")
	_, fail := ask(t, t.Context(), r, proc.Control, &msg.Control{Verb: msg.VerbUpdateTable, Args: []string{"people"}})
	if fail == nil || !strings.Contains(fail.Text, "no such luck") {
		t.Errorf("update: %v", fail)
	}

	// A program that dies is asked no more, and parent is told; another follows.
	first.them.Close()
	<-s.told
	gets(1, "424 ")
	play(t, "").restart(r)
	gets(1, "424 ")
	if m, ok := (<-s.told).(*msg.ProgramEnd); !ok || m.Identity != first.file().Identity {
		t.Errorf("parent was told %+v", m)
	}
	third := play(t, "eve")
	third.restart(r)
	gets(1, "user=eve")

	// It serves the next generation too, which brings no descriptor of it.
	if err := r.Prepare(t.Context(), s.conf(2, true)); err != nil {
		t.Fatal(err)
	}
	r.Commit(2)
	gets(2, "user=eve")

	// A generation without it leaves it to those before, as long as they are known.
	s.files["smtpd.conf"] = "action \"local\" maildir\nmatch for local action \"local\"\n"
	for gen := mail.Gen(3); gen <= 2+kept; gen++ {
		if err := r.Prepare(t.Context(), s.conf(gen, true)); err != nil {
			t.Fatal(err)
		}
		r.Commit(gen)
	}
	gets(2, "user=eve")
	if err := r.Prepare(t.Context(), s.conf(3+kept, true)); err != nil {
		t.Fatal(err)
	}
	r.Commit(3 + kept)
	<-third.ended
	late := play(t, "bob")
	late.restart(r) // nobody has it any more
	<-late.ended
	select {
	case m := <-s.told:
		t.Errorf("parent was told %+v", m)
	default:
	}
}

// TestProgramAborted holds that a generation that is given up takes its program
// with it, and that one without a descriptor is refused.
func TestProgramAborted(t *testing.T) {
	s := newSystem(t, strings.Replace(programs, "x\n-- users", "-- users", 1))
	if _, err := New(s.env(false)); err == nil || !strings.Contains(err.Error(), "no descriptor for the program") {
		t.Errorf("a start without the program: %v", err)
	}
	good := s.files["smtpd.conf"]
	s.files["smtpd.conf"] = "action \"local\" maildir\nmatch for local action \"local\"\n"
	r := s.role()
	s.files["smtpd.conf"] = good
	p := play(t, "bob")
	c := s.conf(2, true)
	c.Files = append(c.Files, p.file())
	if err := r.Prepare(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r.Abort(2)
	<-p.ended
	if _, err := io.WriteString(p.them, "x"); err == nil {
		t.Error("the program is still there")
	}
}

// TestPatienceWithPrograms holds that a slow program cannot make an expansion
// last longer than dispatcher waits for it: every answer comes in its time, but
// there are many questions.
func TestPatienceWithPrograms(t *testing.T) {
	s := newSystem(t, programs)
	ours, theirs, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	const slowly = patience * 3 / 8
	go func() {
		defer theirs.Close()
		in := bufio.NewScanner(theirs)
		for took := time.Duration(0); in.Scan(); {
			f := strings.SplitN(in.Text(), "|", 8)
			switch {
			case in.Text() == "config|ready":
				fmt.Fprint(theirs, "register|alias\nregister|ready\n")
			case f[0] == "table":
				took += slowly
				s.clock.Advance(slowly)
				if took < patience {
					fmt.Fprintf(theirs, "lookup-result|%s|not-found\n", f[6])
				}
			}
		}
	}()
	env := s.env(false)
	env.Conf.Files = append(env.Conf.Files, proc.File{Identity: "table:people:proc:/bin/people", File: ours})
	r, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	s.run(r)
	if x := expandOne(t, r, question(t, "to=x+y@v.test")); x.Err == nil || x.Err.Code/100 != 4 {
		t.Errorf("%+v", x)
	}
}

// A filter asks whether a user is one of a table, which may know users by their
// passwords alone.
func TestQueryCredentials(t *testing.T) {
	for service, want := range map[string]bool{"credentials": true, "string": true, "alias": false} {
		s := newSystem(t, programs)
		env := s.env(false)
		env.Conf.Files = append(env.Conf.Files, serve(t, service, "bob:$2b$10$secret").file())
		r, err := New(env)
		if err != nil {
			t.Fatal(err)
		}
		s.run(r)
		m, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.Query{Gen: 1, Service: uint8(table.String), Match: true, Table: "people", Key: "bob"})
		if fail != nil {
			t.Fatal(fail)
		}
		if a := m.(*msg.Answer); a.Found != want || (a.Err == nil) != want || a.Value != "" {
			t.Errorf("a table that serves %s says %+v", service, a)
		}
	}
}
