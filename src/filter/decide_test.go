package filter

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/smtp/server"
)

// at makes a program decide at one phase.
func at(phase, decision string) func(string) []string {
	return func(line string) []string {
		if f := strings.SplitN(line, "|", 8); f[0] == "filter" && f[4] == phase {
			return []string{answerTo(line, decision)}
		}
		return nil
	}
}

// What programs decide, and the reply at which the session shows it.
func TestProgramDecides(t *testing.T) {
	for _, tc := range []struct {
		phase, decision string
		at              int
		want            string
		event           string
		body            string
	}{
		{"connect", "reject|554 no", 0, "554 no", "connected|reject|554 no", ""},
		{"connect", "disconnect|550 5.7.1 a|b", 0, "550 5.7.1 a|b", "connected|disconnect|550 5.7.1 a|b", ""},
		{"connect", "junk", 5, "250", "connected|junk", "X-Spam: Yes\n"},
		{"ehlo", "reject|421 later", 1, "421 later", "ehlo|disconnect|421 later", ""},
		{"ehlo", "rewrite|other.example.org", 5, "250", "ehlo|rewrite|other.example.org", "Received: from other.example.org ("},
		{"ehlo", "rewrite|not a host", 1, "501", "ehlo|rewrite|not a host", ""},
		{"mail-from", "reject|nonsense", 2, "421 Internal server error", "mail-from|disconnect|421 Internal server error", ""},
		{"mail-from", "reject|250 fine", 2, "421 Internal server error", "", ""},
		{"mail-from", "junk", 5, "250", "mail-from|junk", "X-Spam: Yes\n"},
		{"mail-from", "report|seen it", 5, "250", "filter-report|0000000000000011|proc|f|seen it", "Received: "},
		{"rcpt-to", "rewrite|<carl@example.com>", 3, "250", "rcpt-to|rewrite|<carl@example.com>", ""},
		{"rcpt-to", "rewrite|carl", 3, "501", "", ""},
		{"rcpt-to", "junk", 5, "250", "rcpt-to|junk", "X-Spam: Yes\n"},
		{"data", "reject|451 later", 4, "451 later", "", ""},
		{"data", "junk", 5, "250", "", "X-Spam: Yes\n"},
		{"commit", "reject|550 spam", 5, "550 spam", "commit|reject|550 spam", ""},
		{"commit", "disconnect|421 4.7.0 spam", 5, "421 4.7.0 spam", "commit|disconnect|421 4.7.0 spam", ""},
	} {
		t.Run(tc.phase+" "+tc.decision, func(t *testing.T) {
			r := newRig(t)
			s := &script{register: []string{"register|filter|smtp-in|" + tc.phase, "register|report|smtp-in|*"}, react: at(tc.phase, tc.decision)}
			r.program("p", s)
			r.filter(progFilter("f", "p", conf.TempFail))
			c := r.dial()
			if got := c.play(session[:tc.at]...); !strings.HasPrefix(got[tc.at], tc.want) {
				t.Errorf("reply %d is %q, want %q", tc.at, got[tc.at], tc.want)
			}
			r.close(c)
			s.await("link-disconnect")
			if all := strings.Join(s.said(), "\n"); !strings.Contains(all, tc.event) {
				t.Errorf("no event %q in\n%s", tc.event, all)
			}
			if tc.body != "" && (len(r.mem.kept) != 1 || !strings.HasPrefix(r.mem.kept[0], tc.body)) {
				t.Errorf("kept %q", r.mem.kept)
			}
			if len(r.ended) > 0 {
				t.Error("the program was given up")
			}
		})
	}
}

// A program that breaks the protocol is given up, and the session that waits for
// it is told to come again. CVE-2020-35680: state of a filter that goes while it
// is asked. Nothing that a program says harms anybody else.
func TestProgramViolatesCVE2020_35680(t *testing.T) {
	long := strings.Repeat("x", maxSaid)
	for name, react := range map[string]func(line string) []string{
		"rubbish":          func(string) []string { return []string{"rubbish"} },
		"empty line":       func(string) []string { return []string{""} },
		"unknown kind":     func(string) []string { return []string{"filter-what|1|2|3"} },
		"no token":         func(string) []string { return []string{"filter-result|1"} },
		"no number":        func(string) []string { return []string{"filter-result|xyz|1|proceed"} },
		"long number":      func(string) []string { return []string{"filter-result|00000000000000000|1|proceed"} },
		"unknown decision": func(l string) []string { return []string{answerTo(l, "dance")} },
		"no parameter":     func(l string) []string { return []string{answerTo(l, "reject")} },
		"unknown token":    func(l string) []string { return []string{"filter-result|" + strings.Split(l, "|")[5] + "|0|proceed"} },
		"twice":            func(l string) []string { return []string{answerTo(l, "proceed"), answerTo(l, "proceed")} },
		"twice, no":        func(l string) []string { return []string{answerTo(l, "junk"), answerTo(l, "reject|550 no")} },
		"a line too early": func(l string) []string { return []string{strings.Replace(answerTo(l, "x"), "result", "dataline", 1)} },
		"late register":    func(string) []string { return []string{"register|report|smtp-in|tx-mail"} },
		"bad report":       func(string) []string { return []string{"report|1|smtp-in"} },
		"too long":         func(string) []string { return []string{"report|1|smtp-in|1|" + long} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := &script{register: []string{"register|filter|smtp-in|mail-from", "register|filter|smtp-in|rcpt-to"}}
			s.react = func(line string) []string {
				if strings.Contains(line, "|mail-from|") {
					return react(line)
				}
				return nil
			}
			r.program("p", s)
			r.filter(progFilter("f", "p", conf.TempFail))
			c := r.dial()
			got := c.play(session[:3]...)
			// The second of two answers may come after the first was obeyed.
			if !strings.HasPrefix(got[2], "421 4.3.0") && !strings.HasPrefix(got[3], "421 4.3.0") {
				t.Errorf("replies %q", got)
			}
			if id := <-r.ended; id != "id:p" {
				t.Errorf("%q was given up", id)
			}
			r.close(c)
		})
	}
}

// An answer about a session that has gone is nobody's fault; nor is one that was
// waited for in vain, once, by a program that answers others.
func TestProgramAnswersLateCVE2020_35680(t *testing.T) {
	r := newRig(t)
	held := make(chan string, 1)
	s := &script{register: []string{"register|filter|smtp-in|ehlo", "register|filter|smtp-in|helo"}}
	s.react = func(line string) []string {
		if strings.Contains(line, "|ehlo|") {
			held <- line
			return []string{}
		}
		if strings.HasSuffix(line, "|late") {
			return []string{answerTo(<-held, "proceed"), "filter-dataline|77|77|x", answerTo(line, "proceed")}
		}
		return nil
	}
	r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	slow := r.dial()
	slow.reply()
	r.clk.BlockWhile(1) // the handshake is over
	fmt.Fprint(slow.nc, "EHLO x\r\n")
	s.await("|ehlo|")
	// The sweep of the server, its own wait and that of the filter.
	r.clk.BlockUntil(2)
	for _, name := range []string{"meanwhile", "late"} {
		if name == "late" {
			r.clk.Advance(requestTime)
			if got := slow.reply(); !strings.HasPrefix(got, "421 4.3.0") {
				t.Errorf("after its time the client is told %q", got)
			}
			r.close(slow)
		}
		c := r.dial()
		if got := c.play("HELO " + name); !strings.HasPrefix(got[1], "250") {
			t.Errorf("%s the next client is told %q", name, got)
		}
		r.close(c)
	}
	if len(r.ended) > 0 {
		t.Errorf("it was given up: %s", r.log)
	}
}

// A program that answers nobody any more is given up with the first who has waited
// in vain: in its next life it may be well.
func TestProgramHangs(t *testing.T) {
	for at, phase := range []string{"connect", "ehlo", "mail-from", "rcpt-to", "data", "data-line", "commit"} {
		for _, f := range []conf.OnFailure{conf.TempFail, conf.Bypass} {
			t.Run(fmt.Sprintf("%s %d", phase, f), func(t *testing.T) {
				r := newRig(t)
				s := &script{register: everything()}
				s.react = func(line string) []string {
					if strings.HasPrefix(line, "filter|") && strings.Contains(line, "|smtp-in|"+phase+"|") {
						return []string{}
					}
					return nil
				}
				r.program("p", s)
				r.filter(progFilter("f", "p", f))
				c := r.dial()
				at := min(at, 5)
				if at > 0 {
					c.play(session[:at-1]...)
					fmt.Fprint(c.nc, session[at-1]+"\r\n")
				}
				s.await("|smtp-in|" + phase + "|")
				r.clk.BlockUntil(2) // the sweep of the server, and who waits for the answer
				r.clk.Advance(requestTime)
				got := c.reply()
				want := "421 4.3.0"
				if f == conf.Bypass && phase != "data-line" { // of which half may be lost
					want = []string{"220", "250", "250", "250", "354", "250"}[at]
				}
				if !strings.HasPrefix(got, want) {
					t.Errorf("the client is told %q, want %q", got, want)
				}
				if id := <-r.ended; id != "id:p" {
					t.Errorf("%q was given up", id)
				}
				r.close(c)
			})
		}
	}
}

// One that ends in the middle of a line has not said it.
func TestProgramHalfLine(t *testing.T) {
	r := newRig(t)
	s := &script{register: []string{"register|filter|smtp-in|ehlo"}}
	s.react = func(line string) []string {
		fmt.Fprint(s.nc, answerTo(line, "proceed"))
		s.nc.Close()
		return []string{}
	}
	r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	c := r.dial()
	if got := c.play(session[:1]...); !strings.HasPrefix(got[1], "421 4.3.0") {
		t.Errorf("the client is told %q", got)
	}
	<-r.ended
	r.close(c)
}

// A client that hangs up in any phase while a filter thinks about it.
func TestDisconnectWhileAskedCVE2020_35679(t *testing.T) {
	for at, phase := range []string{"connect", "ehlo", "mail-from", "rcpt-to", "data", "commit"} {
		r := newRig(t)
		asked, goOn := make(chan struct{}), make(chan struct{})
		s := &script{register: everything()}
		s.react = func(line string) []string {
			if strings.HasPrefix(line, "filter|") && strings.Contains(line, "|smtp-in|"+phase+"|") {
				close(asked)
				<-goOn
				s.react = nil
			}
			return nil
		}
		r.program("p", s)
		r.filter(progFilter("f", "p", conf.TempFail))
		c := r.dial()
		if at > 0 {
			c.play(session[:at-1]...)
			fmt.Fprint(c.nc, session[at-1]+"\r\n")
		}
		<-asked
		c.nc.Close()
		close(goOn)
		<-r.mem.over
		s.await("link-disconnect")
		if len(r.ended) > 0 {
			t.Errorf("%s: the program was given up: %s", phase, r.log)
		}
	}
}

// What a client says cannot make another line for a program (errata 032 of 7.8),
// nor shift fields (link-auth in 7.4).
func TestErrata78_032AndLinkAuth74(t *testing.T) {
	for _, tc := range []struct {
		event server.Event
		want  string
	}{
		{server.Event{Kind: server.LinkAuth, Text: "pass|a|pass"}, "|pass|a|pass\n"},
		{server.Event{Kind: server.LinkAuth, Text: "fail|a\nreport|x"}, "|fail|a?report|x\n"},
		{server.Event{Kind: server.ProtocolClient, Text: "NOOP a\x00b\rc\nd|e"}, "|NOOP a?b?c?d|e\n"},
		{server.Event{Kind: server.ProtocolClient, Text: "AUTH PLAIN AGV2ZQBzZWNyZXQ="}, "|AUTH PLAIN ********\n"},
		{server.Event{Kind: server.ProtocolClient, Text: "auth  login ZXZl"}, "|auth login ********\n"},
		{server.Event{Kind: server.ProtocolClient, Text: "AUTH PLAIN"}, "|AUTH PLAIN\n"},
		{server.Event{Kind: server.TxMail, Code: 451, Message: 1, Text: "a|b"}, "|00000001|tempfail|a|b\n"},
		{server.Event{Kind: server.TxData, Code: 354, Message: 1}, "|00000001|ok\n"},
		{server.Event{Kind: server.LinkTLS, Text: "TLSv1.3:X:256"}, "|TLSv1.3:X:256\n"},
		{server.Event{Kind: server.Timeout}, "\n"},
		{server.Event{Kind: server.FilterResponse, Phase: server.PhaseStartTLS, Text: "proceed"}, "|tls|proceed\n"},
	} {
		if got := string(appendEvent(nil, nil, &tc.event)); got != tc.want {
			t.Errorf("%+v is %q, want %q", tc.event, got, tc.want)
		}
	}
	if got := stripped(server.PhaseNoop, "x"); got != "" {
		t.Errorf("NOOP has %q", got)
	}
	if got := string(appendReport(nil, "proc", "a|b\n", "c|d\r")); got != "|proc|a?b?|c|d?\n" {
		t.Errorf("a report is %q", got)
	}
	for param, want := range map[string]string{
		"<a@b> SIZE=1": "a@b", "<>": "", `<"a>b"@c>`: `"a>b"@c`, `<"a\">b"@c> X`: `"a\">b"@c`, "<a": "<a", "a": "a",
	} {
		if got := stripped(server.PhaseMailFrom, param); got != want {
			t.Errorf("%q is stripped to %q, want %q", param, got, want)
		}
	}
}

func TestPortText(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:25": "192.0.2.1:25", "[::ffff:192.0.2.1]:25": "192.0.2.1:25", "[2001:db8::1]:587": "[2001:db8::1]:587",
		"[fe80::1%eth0]:25": "[fe80::1%eth0]:25", "": "unknown",
	} {
		var a netip.AddrPort
		if text != "" {
			a = netip.MustParseAddrPort(text)
		}
		if got := portText(a); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func TestRegister(t *testing.T) {
	for _, text := range []string{
		"report|smtp-in|tx-unknown", "report|smtp-side|tx-mail", "filter|smtp-out|connect", "filter|smtp-in|nowhere",
		"filter|smtp-in|*", "dance|smtp-in|connect", "", "ready|", "report",
	} {
		var h hooks
		if done, err := h.register(text); err == nil || done {
			t.Errorf("%q was taken", text)
		}
	}
	r := newRig(t)
	s := &script{register: []string{"register|filter|smtp-in|nowhere"}}
	r.program("p", s)
	if id := <-r.ended; id != "id:p" {
		t.Errorf("%q was given up", id)
	}
}
