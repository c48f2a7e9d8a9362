package filter

import (
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/conf"
)

// dataline takes a request for a line apart: what begins the answer, and the
// line.
func dataline(line string) (head, text string, ok bool) {
	f := strings.SplitN(line, "|", 8)
	if len(f) < 8 || f[4] != "data-line" {
		return "", "", false
	}
	return "filter-dataline|" + f[5] + "|" + f[6] + "|", f[7], true
}

// The scripts of programs that change messages.
var editors = map[string]func() func(string) []string{
	"same": func() func(string) []string { return func(string) []string { return nil } },
	"edits": func() func(string) []string {
		return func(line string) []string {
			head, text, ok := dataline(line)
			switch {
			case !ok:
				return nil
			case strings.HasPrefix(text, "X-Drop"):
				return []string{}
			case text == "":
				return []string{head + "X-Added: yes\r", head, head + "..first"}
			}
			return nil
		}
	},
	"unix": func() func(string) []string { // as one whose lines end in CR LF, and have a CR within
		return func(line string) []string {
			if head, text, ok := dataline(line); ok {
				return []string{head + strings.Replace(text, "e", "\re", 1) + "\r"}
			}
			return nil
		}
	},
	"holds": func() func(string) []string { // as one that signs does
		held := make(map[string][]string) // by session
		return func(line string) []string {
			head, text, ok := dataline(line)
			if !ok {
				return nil
			}
			held[head] = append(held[head], head+text)
			if text != "." {
				return []string{}
			}
			out := append([]string{head + "X-Signed: yes"}, held[head]...)
			delete(held, head)
			return out
		}
	},
	"early": func() func(string) []string { // has said all before the client has
		first := true
		return func(line string) []string {
			head, text, ok := dataline(line)
			switch {
			case !ok:
				return nil
			case first:
				first = false
				return []string{head + "Subject: mine", head, head + "short", head + "."}
			case text == ".":
				first = true
			}
			return []string{}
		}
	},
}

// Programs change messages, one after the other in a chain.
func TestLines(t *testing.T) {
	const sent = "Subject: x\r\nX-Drop: me\r\n\r\n..dot\r\nhello\x00\xff|\r\n."
	for _, tc := range []struct {
		chain, want string
	}{
		{"same", "\nSubject: x\nX-Drop: me\n\n.dot\nhello\x00\xff|\n"},
		{"edits", "\nSubject: x\nX-Added: yes\n\n.first\n.dot\nhello\x00\xff|\n"},
		{"holds", "\nSubject: x\nX-Drop: me\n\n.dot\nhello\x00\xff|\n"},
		{"unix", "\nSubject: x\nX-Drop: me\n\n.dot\nhello\x00\xff|\n"},
		{"unix edits", "\nSubject: x\nX-Added: yes\n\n.first\n.dot\nhello\x00\xff|\n"},
		{"holds edits", "\nSubject: x\nX-Added: yes\n\n.first\n.dot\nhello\x00\xff|\n"},
		{"edits holds same", "\nSubject: x\nX-Added: yes\n\n.first\n.dot\nhello\x00\xff|\n"},
		{"early", "Subject: mine\n\nshort\n"},
		{"early holds", "X-Signed: yes\nSubject: mine\n\nshort\n"},
	} {
		t.Run(tc.chain, func(t *testing.T) {
			r := newRig(t)
			r.chain(tc.chain)
			c := r.dial()
			send := append(session[:4:4], sent)
			for i, got := range c.play(append(send, append(session[1:4:4], sent)...)...) {
				if got == "" || got[0] > '3' {
					t.Fatalf("reply %d is %q\n%s", i, got, r.log)
				}
			}
			r.close(c)
			if len(r.mem.kept) != 2 {
				t.Fatalf("%d messages", len(r.mem.kept))
			}
			for _, body := range r.mem.kept {
				if !strings.HasSuffix(body, tc.want) || strings.Contains(tc.chain, "holds") != strings.Contains(body, "X-Signed") {
					t.Errorf("kept %q", body)
				}
			}
		})
	}
}

// chain sets the filters to programs of editors.
func (r *rig) chain(names string) {
	r.t.Helper()
	f := &chain{o: &Options{Clock: r.clk}}
	for i, name := range strings.Fields(names) {
		s := &script{register: []string{"register|filter|smtp-in|data-line"}, react: editors[name](), deaf: true}
		g := r.program(fmt.Sprint(name, i), s)
		f.programs = append(f.programs, g)
		f.elements = append(f.elements, element{name: name, program: i})
	}
	r.ln.Filter = f
}

// Messages much larger than all queues pass through programs that hold them, in
// several sessions at once, without any waiting for another for ever.
func TestLinesLarge(t *testing.T) {
	const size = 3 << 20
	line := strings.Repeat("x", 700) + "\r\n"
	body := "Subject: x\r\n\r\n" + strings.Repeat(line, size/len(line)) + "."
	for _, names := range []string{"same same", "holds holds", "same holds"} {
		t.Run(names, func(t *testing.T) {
			r := newRig(t)
			r.chain(names)
			var clients []*client
			for range 3 {
				clients = append(clients, r.dial())
			}
			done := make(chan string, len(clients))
			for _, c := range clients {
				go func() {
					got := c.play(append(session[:4:4], body)...)
					done <- got[len(got)-1]
				}()
			}
			for range clients {
				if got := <-done; !strings.HasPrefix(got, "250") {
					t.Errorf("a message is answered %q", got)
				}
			}
			for _, c := range clients {
				r.close(c)
			}
		})
	}
}

// A program that dies while a message passes it costs that message; the daemon
// lives, the next life of the program serves the next session.
func TestProgramDies(t *testing.T) {
	for _, phase := range []string{"connect", "ehlo", "mail-from", "rcpt-to", "data", "data-line", "commit", "quit"} {
		for _, f := range []conf.OnFailure{conf.TempFail, conf.Bypass} {
			t.Run(fmt.Sprintf("%s %d", phase, f), func(t *testing.T) {
				r := newRig(t)
				s := &script{register: everything()}
				s.react = func(line string) []string {
					if strings.HasPrefix(line, "filter|") && strings.Contains(line, "|smtp-in|"+phase+"|") {
						s.nc.Close()
					}
					return nil
				}
				g := r.program("p", s)
				r.filter(progFilter("f", "p", f))
				c := r.dial()
				got := strings.Join(c.play(append(session[:5:5], "QUIT")...), "\n")
				fails := f == conf.TempFail || phase == "data-line" // of which half is lost
				if strings.Contains(got, "421 4.3.0 Temporary failure") != fails {
					t.Errorf("%s", got)
				}
				r.close(c)
				if kept := len(r.mem.kept); (kept == 1) != (!fails || phase == "quit") {
					t.Errorf("%d messages are kept", kept)
				}
				if id := <-r.ended; id != "id:p" {
					t.Errorf("%q was given up", id)
				}
				// Nobody is there until parent has started it again.
				c = r.dial()
				if got := c.play()[0]; strings.HasPrefix(got, "421") != (f == conf.TempFail) {
					t.Errorf("without the program the greeting is %q", got)
				}
				r.close(c)
				r.life(g, &script{register: everything()})
				c = r.dial()
				if got := c.play(session...); !strings.HasPrefix(got[5], "250") {
					t.Errorf("in its next life: %q", got)
				}
				r.close(c)
			})
		}
	}
}

// A session does not talk to a later life of a program than it began with.
func TestProgramNextLife(t *testing.T) {
	r := newRig(t)
	s := &script{register: everything()}
	g := r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	c := r.dial()
	c.play(session[:1]...)
	s.nc.Close()
	<-r.ended
	next := &script{register: everything()}
	r.life(g, next)
	next.await("config|ready")
	fmt.Fprint(c.nc, session[1]+"\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "421") {
		t.Errorf("the session goes on: %q", got)
	}
	r.close(c)
	other := r.dial()
	other.play(session[:1]...)
	r.close(other)
	next.await("|link-disconnect|0000000000000012")
	if all := strings.Join(next.said(), "\n"); strings.Contains(all, "0000000000000011") {
		t.Errorf("the next life heard of the old session:\n%s", all)
	}
}

// A program that a reload drops serves its sessions to their end, and hears of it.
func TestProgramDropped(t *testing.T) {
	r := newRig(t)
	s := &script{register: everything()}
	r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	c := r.dial()
	c.play(session[:1]...)
	r.programs.Commit(nil)
	fmt.Fprint(c.nc, session[1]+"\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "250") {
		t.Errorf("the session is told %q", got)
	}
	r.close(c)
	<-s.over
	if all := s.said(); !strings.Contains(all[len(all)-1], "|link-disconnect|") {
		t.Errorf("the last that it heard is %q", all[len(all)-1])
	}
	if len(r.ended) > 0 {
		t.Error("it was given up")
	}
}

// A program that does not read any more makes its sessions wait, and is given up
// when their patience ends.
func TestProgramStandsStill(t *testing.T) {
	r := newRig(t)
	stop := make(chan struct{})
	s := &script{register: []string{"register|filter|smtp-in|data-line"}}
	s.react = func(line string) []string {
		if _, text, ok := dataline(line); ok && text == "Subject: x" {
			<-stop
		}
		return nil
	}
	r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	c := r.dial()
	c.play(session[:4]...)
	r.clk.BlockWhile(1)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		line := strings.Repeat("x", 998) + "\r\n"
		fmt.Fprint(c.nc, "Subject: x\r\n\r\n"+strings.Repeat(line, 3*queueSize/1000)+".\r\n")
	}()
	r.clk.BlockUntil(2) // the sweep of the server, and who waits for the queue
	r.clk.Advance(requestTime)
	if id := <-r.ended; id != "id:p" {
		t.Errorf("%q was given up", id)
	}
	if got := c.reply(); !strings.HasPrefix(got, "421") {
		t.Errorf("the message is answered %q", got)
	}
	close(stop)
	<-sent
	r.close(c)
}

// One that does not say what it wants to be told is given up.
func TestProgramHandshake(t *testing.T) {
	r := newRig(t)
	g := &Program{owner: r.programs, identity: "id:p", name: "p"}
	r.programs.list["id:p"] = g
	r.named["p"] = g
	ours, theirs := r.pair()
	defer theirs.Close()
	g.begin(ours)
	r.filter(progFilter("f", "p", conf.TempFail))
	c := r.dial()
	r.clk.BlockUntil(2) // the sweep of the server, and the handshake
	r.clk.Advance(handshakeTime)
	if got := c.reply(); !strings.HasPrefix(got, "421") {
		t.Errorf("the greeting is %q", got)
	}
	if id := <-r.ended; id != "id:p" {
		t.Errorf("%q was given up", id)
	}
	r.close(c)
}
