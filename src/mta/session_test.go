package mta

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/queue/envelope"
)

// far is a world in which far.example has one server, which follows a script.
func far(t *testing.T, s *script) *world {
	t.Helper()
	w := newWorld(t, false, nil)
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	w.server("192.0.2.1:25", s.serve)
	return w
}

func TestDelivered(t *testing.T) {
	for _, ehlo := range []string{"", "250 far.example", "250-far.example\r\n250 PIPELINING", "502 what?"} {
		s := &script{say: map[string]string{}}
		if ehlo != "" {
			s.say["EHLO"] = ehlo
		}
		w := far(t, s)
		res := w.send(w.task("b@far.example", "c@far.example"))
		if got := outcomes(res); got != "ok 250 2.0.0 taken\nok 250 2.0.0 taken\n" {
			t.Errorf("%q: %s", ehlo, got)
		}
		if m := s.got(); len(m) != 1 || m[0] != crlf(testBody) {
			t.Errorf("%q: the server got %q", ehlo, m)
		}
		if len(w.taken) != 1 {
			t.Errorf("taken: %v", w.taken)
		}
		want := `from=<sender@here.example> to=<b@far.example> rcpt=<-> source="127.0.0.1" relay="192.0.2.1 (host.example)" delay=0s result="Ok" stat="250 2.0.0 taken"`
		if l := w.log.With("mta delivery evpid=0000000"); len(l) != 2 || !strings.HasSuffix(l[0], want) {
			t.Errorf("logged %q", l)
		}
		if l := w.log.With("mta connecting"); len(l) != 1 || !strings.HasSuffix(l[0], "address=smtp://192.0.2.1:25 host=host.example") {
			t.Errorf("logged %q", l)
		}
	}
}

// Fields of the log are never empty: a server without a name goes by its address.
func TestServerWithoutName(t *testing.T) {
	w := newWorld(t, false, nil)
	w.domain("far.example", "10 mx.far.example "+nameless)
	w.server(nameless+":25", (&script{}).serve)
	if got := outcomes(w.send(w.task("b@far.example"))); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	if l := w.log.With("mta connecting"); len(l) != 1 || !strings.HasSuffix(l[0], " host="+nameless) {
		t.Errorf("logged %q", l)
	}
	if l := w.log.With("mta delivery"); len(l) != 1 || !strings.Contains(l[0], `relay="`+nameless+" ("+nameless+`)"`) {
		t.Errorf("logged %q", l)
	}
}

// What a server says to each command, and what becomes of the mail.
func TestReplies(t *testing.T) {
	for _, tc := range []struct{ verb, reply, want string }{
		{"MAIL", "451 4.7.1 later", "temporary 4.7.1 451 4.7.1 later"},
		{"MAIL", "550 no", "permanent 5.7.1 550 no"},
		{"MAIL", "550-5.7.1 you\r\n550 5.7.1 are bad", "permanent 5.7.1 550 5.7.1 you are bad"},
		{"MAIL", "354 what?", "temporary 4.5.0 354 what?"},
		{"RCPT", "450 busy", "temporary 4.2.0 450 busy"},
		{"RCPT", "550 nobody", "permanent 5.1.1 550 nobody"},
		{"RCPT", "552 full", "permanent 5.2.2 552 full"},
		{"RCPT", "550 4.1.1 wrong class", "permanent 5.1.1 550 wrong class"},
		{"DATA", "451 4.3.0 no disk", "temporary 4.3.0 451 4.3.0 no disk"},
		{"DATA", "554 no", "permanent 5.0.0 554 no"},
		{"DATA", "250 what?", "temporary 4.5.0 250 what?"},
		{"END", "452 4.3.1 full", "temporary 4.3.1 452 4.3.1 full"},
		{"END", "550 5.7.1 spam", "permanent 5.7.1 550 5.7.1 spam"},
		{"END", "554", "permanent 5.0.0 554"},
		{"END", "354 what?", "temporary 4.5.0 354 what?"},
		{"MAIL", "", "temporary 4.4.2 Connection closed unexpectedly"},
		{"RCPT", "", "temporary 4.4.2 Connection closed unexpectedly"},
		{"DATA", "", "temporary 4.4.2 Connection closed unexpectedly"},
		{"END", "", "temporary 4.4.2 Connection closed unexpectedly"},
		{"MAIL", "999 what?", "temporary 4.4.2 Bad response: no valid code"},
		{"MAIL", "25", "temporary 4.4.2 Bad response: no valid code"},
		{"MAIL", "250-a\r\n251 b", "temporary 4.4.2 Bad response: codes differ within a reply"},
		{"END", "550 " + strings.Repeat("x", 5000), "temporary 4.4.2 Bad response: line too long"},
		{"END", strings.Repeat("550-x\r\n", 2500) + "550 x", "temporary 4.4.2 Bad response: too many lines"},
		{"END", "550 a\x00b\x1b[2Jc", "permanent 5.7.1 550 a b [2Jc"},
		// CVE-2020-8794: a reply that would like to be an envelope.
		{"END", "553-\r\n553", "permanent 5.1.3 553"},
		{"END", "553-\r\n553-type: mda\r\n553-mda-exec: id\r\n553 dispatcher: local_mail",
			"permanent 5.1.3 553 type: mda mda-exec: id dispatcher: local_mail"},
		{"END", "451-" + strings.Repeat("y", 900) + "\r\n451 " + strings.Repeat("z", 900),
			"temporary 4.3.0 451 " + strings.Repeat("y", 900) + " " + strings.Repeat("z", 99)},
	} {
		for _, ehlo := range []string{"250 far.example", "250-far.example\r\n250-PIPELINING\r\n250 DSN"} {
			s := &script{say: map[string]string{tc.verb: tc.reply, "EHLO": ehlo}}
			w := far(t, s)
			res := w.send(w.task("b@far.example"))
			if got := outcomes(res); got != tc.want+"\n" {
				t.Errorf("%s %.40q:\n got %.200q\nwant %.200q", tc.verb, tc.reply, got, tc.want)
			}
			if o := res.Results[0]; strings.ContainsAny(o.Line, "\r\n\x00") || res.Unreachable {
				t.Errorf("%s %.40q: %+v", tc.verb, tc.reply, res)
			}
		}
	}
}

// Before the first message a server that is no good is not used: the mail fails
// for now, with the reason.
func TestNoSession(t *testing.T) {
	for _, tc := range []struct{ verb, reply, want string }{
		{"BANNER", "554 go away", "BANNER rejected: 554 go away"},
		{"BANNER", "421 4.3.2 busy", "BANNER rejected: 421 4.3.2 busy"},
		{"BANNER", "", "Connection closed unexpectedly"},
		{"BANNER", "SSH-2.0-OpenSSH", "Bad response: no valid code"},
		{"BANNER", "220 a\r\n220 b", "Remote host sent too much data"},
		{"BANNER", "220 mx.here.example", "Mail loops back: the server calls itself mx.here.example, as we do"},
		{"EHLO", "421 4.3.2 busy", "EHLO rejected: 421 4.3.2 busy"},
		{"EHLO", "", "Connection closed unexpectedly"},
		{"EHLO", "250-a\r\n25", "Bad response: no valid code"},
	} {
		s := &script{say: map[string]string{tc.verb: tc.reply}}
		w := far(t, s)
		res := w.send(w.task("b@far.example"))
		want := fmt.Sprintf("temporary 4.4.1 Network error on destination MXs (%s)\n", tc.want)
		if got := outcomes(res); got != want || !res.Unreachable {
			t.Errorf("%s %q:\n got %s\nwant %s", tc.verb, tc.reply, got, want)
		}
		if l := w.log.With("mta error reason="); len(l) != 1 || !strings.HasSuffix(l[0], "reason="+tc.want) {
			t.Errorf("%s %q: logged %q", tc.verb, tc.reply, l)
		}
	}
}

// recorded is what a server says to one message, whole.
const recorded = "220 far.example\r\n" +
	"250-far.example\r\n250-PIPELINING\r\n250 DSN\r\n" +
	"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n" +
	"250 2.0.0 taken\r\n"

// A server that falls silent, or falls over, at any byte: one result, no more.
func TestCloseAtEachByte(t *testing.T) {
	for n := range len(recorded) + 1 {
		w := newWorld(t, false, nil)
		w.domain("far.example", "10 mx.far.example 192.0.2.1")
		w.server("192.0.2.1:25", func(c net.Conn) {
			play(c, recorded[:n])
		})
		got := outcomes(w.send(w.task("b@far.example")))
		switch {
		case n == len(recorded):
			if got != "ok 250 2.0.0 taken\n" {
				t.Errorf("all of it: %s", got)
			}
		case !strings.HasPrefix(got, "temporary 4.4.") || strings.Count(got, "\n") != 1:
			t.Errorf("after %d bytes: %s", n, got)
		}
	}
}

// play says its text one reply after the other, byte by byte, each when the
// client has said something.
func play(c net.Conn, text string) {
	buf := make([]byte, 64<<10)
	first := true
	for len(text) > 0 {
		if !first {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
		first = false
		end := len(text)
		for _, stop := range []string{"220 far.example\r\n", "250 DSN\r\n", "354 go\r\n"} {
			if i := strings.Index(text, stop); i >= 0 {
				end = min(end, i+len(stop))
			}
		}
		for i := range end {
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
		}
		text = text[end:]
	}
}

// More recipients are refused than taken; each gets his own result.
func TestSomeRefused(t *testing.T) {
	for _, ehlo := range []string{"250 far.example", "250-far.example\r\n250 PIPELINING"} {
		s := &script{say: map[string]string{"EHLO": ehlo, "RCPT": "550 5.1.1 nobody", "RCPT good": "250 ok", "RCPT slow": "451 4.2.1 later"}}
		w := far(t, s)
		res := w.send(w.task("x@far.example", "good@far.example", "y@far.example", "slow@far.example"))
		want := "permanent 5.1.1 550 5.1.1 nobody\nok 250 2.0.0 taken\npermanent 5.1.1 550 5.1.1 nobody\ntemporary 4.2.1 451 4.2.1 later\n"
		if got := outcomes(res); got != want {
			t.Errorf("%q: %s", ehlo, got)
		}
		if n := len(s.got()); n != 1 {
			t.Errorf("%d messages", n)
		}
	}
}

// All are refused: nothing is sent but, where DATA was pipelined and agreed to,
// an empty message, and the session goes on.
func TestAllRefused(t *testing.T) {
	for _, ehlo := range []string{"250 far.example", "250-far.example\r\n250 PIPELINING"} {
		s := &script{say: map[string]string{"EHLO": ehlo, "RCPT bad": "550 5.1.1 nobody"}}
		w := far(t, s)
		if got := outcomes(w.send(w.task("bad@far.example"))); got != "permanent 5.1.1 550 5.1.1 nobody\n" {
			t.Errorf("%q: %s", ehlo, got)
		}
		w.rested(t)
		if got := outcomes(w.send(w.task("good@far.example"))); got != "ok 250 2.0.0 taken\n" {
			t.Errorf("%q: %s", ehlo, got)
		}
		if s.connections() != 1 || len(s.said("RSET")) != 1 {
			t.Errorf("%q: %d connections, said %q", ehlo, s.connections(), s.heard)
		}
	}
}

func TestManyRecipients(t *testing.T) {
	s := &script{}
	w := far(t, s)
	var to []string
	for i := range 500 {
		to = append(to, fmt.Sprintf("somebody-with-a-long-name-%d@far.example", i))
	}
	if got := outcomes(w.send(w.task(to...))); strings.Count(got, "ok ") != 500 {
		t.Errorf("%s", got)
	}
	if n := len(s.said("RCPT")); n != 500 {
		t.Errorf("%d recipients named", n)
	}
}

// Parameters go to servers that have offered them, and to no others.
func TestParameters(t *testing.T) {
	for ehlo, want := range map[string][]string{
		"250 far.example": {"MAIL FROM:<sender@here.example>", "RCPT TO:<b@far.example>", "RCPT TO:<\"c d\"@far.example>"},
		"250-x\r\n250-DSN\r\n250-8BITMIME\r\n250 SIZE": {
			"MAIL FROM:<sender@here.example> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=id+2B1",
			"RCPT TO:<b@far.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B@x", "RCPT TO:<\"c d\"@far.example> NOTIFY=NEVER",
		},
	} {
		s := &script{say: map[string]string{"EHLO": ehlo}}
		w := far(t, s)
		task := w.task("b@far.example", "c d@far.example")
		task.Body = []byte("x\n\xe9\n..\n")
		task.Size = uint64(len(task.Body))
		e := task.Envelopes
		e[0].DSNRet, e[0].DSNEnvID = envelope.ReturnHeaders, "id+2B1"
		e[0].DSNNotify, e[0].DSNORcpt = envelope.NotifySuccess|envelope.NotifyDelay, "rfc822;B@x"
		e[1].DSNNotify = envelope.NotifyNever
		if res := w.send(task); res.Results[0].NoDSN == strings.Contains(ehlo, "DSN") {
			t.Errorf("%q: %+v", ehlo, res)
		}
		if got := append(s.said("MAIL"), s.said("RCPT")...); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q:\n got %q\nwant %q", ehlo, got, want)
		}
	}
}

// What of SMTPUTF8 a message needs is what its client has said, and its addresses:
// a header beyond ASCII that came without goes to every server as it is, as with
// OpenSMTPD and Postfix, and never makes the next server believe that it needs more.
func TestHeaderBeyondASCII(t *testing.T) {
	const all, none = "250-x\r\n250-8BITMIME\r\n250 SMTPUTF8", "250-x\r\n250 8BITMIME"
	const utf8 = " BODY=8BITMIME SMTPUTF8"
	for _, tc := range []struct {
		name    string
		flags   envelope.Flags
		subject string
		ehlo    string
		mail    string // behind MAIL FROM:<…>; "-": it is returned
	}{
		{"without", 0, "Grüße", none, " BODY=8BITMIME"},
		{"without, 8BITMIME neither", 0, "Grüße", "250 x", ""},
		{"without, to who offers it", 0, "Grüße", all, " BODY=8BITMIME"},
		{"latin1", 0, "Gr\xfc\xdfe", none, " BODY=8BITMIME"},
		{"with", envelope.SMTPUTF8, "Grüße", all, utf8},
		{"with, to who lacks it", envelope.SMTPUTF8, "Grüße", none, "-"},
		{"with, needless", envelope.SMTPUTF8, "greetings", none, ""},
	} {
		s := &script{say: map[string]string{"EHLO": tc.ehlo}}
		w := far(t, s)
		task := w.task("b@far.example")
		task.Envelopes[0].Flags = tc.flags
		task.Body = []byte("Subject: " + tc.subject + "\n\nx\n")
		task.Size = uint64(len(task.Body))
		got := outcomes(w.send(task))
		if tc.mail == "-" {
			if !strings.HasPrefix(got, "permanent 5.6.7 ") || len(s.said("MAIL")) != 0 {
				t.Errorf("%s: %s, said %q", tc.name, got, s.said("MAIL"))
			}
			continue
		}
		if said := s.said("MAIL"); got != delivered || len(said) != 1 || said[0] != "MAIL FROM:<sender@here.example>"+tc.mail {
			t.Errorf("%s: %s, said %q", tc.name, got, said)
		}
		if m := s.got(); len(m) != 1 || m[0] != crlf(string(task.Body)) {
			t.Errorf("%s: the server got %q", tc.name, m)
		}
	}
}

func TestUnfit(t *testing.T) {
	s := &script{say: map[string]string{"EHLO": "250-x\r\n250 SIZE 100"}}
	w := far(t, s)
	task := w.task("b@far.example")
	task.Size = 101
	if got := outcomes(w.send(task)); got != "permanent 5.3.4 message too large for peer\n" {
		t.Error(got)
	}
	w.rested(t)
	if got := outcomes(w.send(w.task("bü@far.example"))); got != "permanent 5.6.7 peer does not offer SMTPUTF8, which the message needs\n" {
		t.Error(got)
	}
	w.rested(t)
	if got := outcomes(w.send(w.task("b@far.example"))); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	if s.connections() != 1 || len(s.said("MAIL")) != 1 {
		t.Errorf("said %q", s.heard)
	}
}

// A body that is fetched in pieces arrives whole.
func TestLargeBody(t *testing.T) {
	s := &script{say: map[string]string{"EHLO": "250 x"}}
	w := far(t, s)
	task := w.task("b@far.example")
	body := strings.Repeat("0123456789\n.begins with a dot\n", 50_000)
	task.Inline, task.Body, task.Size = false, nil, uint64(len(body))
	w.bodies[task.Task] = []byte(body)
	if got := outcomes(w.send(task)); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	if m := s.got(); len(m) != 1 || m[0] != crlf(body) {
		t.Errorf("%d messages, not the one that was sent", len(m))
	}
	lost := w.task("b@far.example")
	lost.Inline, lost.Body = false, nil
	if got := outcomes(w.send(lost)); got != "temporary 4.3.0 Cannot read message\n" {
		t.Error(got)
	}
}

// A body that ends too early must not arrive as if it were whole.
func TestShortBody(t *testing.T) {
	s := &script{say: map[string]string{"EHLO": "250 x"}}
	w := far(t, s)
	task := w.task("b@far.example")
	task.Inline, task.Body, task.Size = false, nil, 1_000_000
	w.bodies[task.Task] = make([]byte, 900_000)
	if got := outcomes(w.send(task)); !strings.HasPrefix(got, "temporary 4.4.2 Cannot read message") {
		t.Error(got)
	}
	if len(s.got()) != 0 {
		t.Error("the server took a message without its end")
	}
}

// A connection that the server closed while it was idle costs nobody a try.
func TestClosedWhileIdle(t *testing.T) {
	closed := make(chan struct{})
	w := newWorld(t, false, nil)
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	w.server("192.0.2.1:25", func(c net.Conn) {
		play(c, recorded)
		c.Close()
		closed <- struct{}{}
	})
	for range 3 {
		if got := outcomes(w.send(w.task("b@far.example"))); got != "ok 250 2.0.0 taken\n" {
			t.Error(got)
		}
		<-closed
	}
}

func TestSessionLimits(t *testing.T) {
	s := &script{say: map[string]string{"RCPT bad": "550 5.1.1 no"}}
	w := newWorld(t, false, func(p *project.DispatcherConf) {
		p.MTALimits[0].SessionMailMax = 2
		p.MTALimits[0].MaxFailuresPerSession = 1
	})
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	w.server("192.0.2.1:25", s.serve)
	for range 4 {
		w.send(w.task("b@far.example"))
		w.rested(t)
	}
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections for 4 messages", n)
	}
	w.send(w.task("bad@far.example"))
	w.rested(t)
	w.send(w.task("b@far.example"))
	if n := s.connections(); n != 4 {
		t.Errorf("%d connections after a failure", n)
	}
}

// A server that says how many messages a session may have gets no more (RFC 9422),
// so that none is refused for it.
func TestServerLimits(t *testing.T) {
	for limits, want := range map[string]int{
		"LIMITS RCPTMAX=5 MAILMAX=2": 2, "limits mailmax=1": 4, "LIMITS MAILMAX=0 MAILMAX=x MAILMAX RCPTMAX=1": 1, "LIMITS": 1,
	} {
		s := &script{say: map[string]string{"EHLO": "250-x\r\n250 " + limits}}
		w := far(t, s)
		for range 4 {
			if got := outcomes(w.send(w.task("b@far.example"))); got != delivered {
				t.Errorf("%s: %s", limits, got)
			}
			w.rested(t)
		}
		if n := s.connections(); n != want {
			t.Errorf("%s: %d connections for 4 messages, want %d", limits, n, want)
		}
	}
}

func TestSender(t *testing.T) {
	for from, want := range map[string]string{
		"": "a@b.example", "x@y.example": "x@y.example", "@y.example": "a@y.example", "x": "x@b.example",
	} {
		act := &Action{from: senderParts(from)}
		if got := act.sender(addr.Cut("a@b.example")).SMTP(); got != want {
			t.Errorf("mail-from %q: %q, want %q", from, got, want)
		}
		if !act.sender(addr.Address{}).IsZero() {
			t.Errorf("mail-from %q changes the null sender", from)
		}
	}
}
