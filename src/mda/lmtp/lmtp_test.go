package lmtp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mailerr"
)

const (
	hangUp  = "hang up"
	silence = "silence"
)

// script is what a server says: the greeting, then a reply to each command, then
// one to the message for each recipient. What is missing is said as usual.
type script struct {
	greeting, lhlo, mail string
	rcpt                 []string
	data                 string
	done                 []string
	silent               chan struct{} // if there is one, told of a silence
}

// heard is what the server got.
type heard struct {
	commands []string
	body     string
	whole    bool // the body ended with its dot
}

func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("/tmp", "lmtp")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve answers one client; what it heard comes when the client has gone.
func (s script) serve(t testing.TB, l net.Listener) <-chan heard {
	got := make(chan heard, 1)
	go func() {
		var h heard
		defer func() { got <- h }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		s.talk(c, &h)
	}()
	return got
}

// say sends a reply, and tells whether to go on.
func (s script) say(c net.Conn, r *bufio.Reader, reply, usual string) bool {
	if reply == "" {
		reply = usual
	}
	switch reply {
	case hangUp:
		return false
	case silence:
		if s.silent != nil {
			close(s.silent)
		}
		io.Copy(io.Discard, r) // until the client is tired of it
		return false
	}
	_, err := io.WriteString(c, reply+"\r\n")
	return err == nil
}

func (s script) talk(c net.Conn, h *heard) {
	r := bufio.NewReader(c)
	for ok := s.say(c, r, s.greeting, "220 server LMTP"); ok; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		h.commands = append(h.commands, line)
		verb, _, _ := strings.Cut(line, " ")
		switch verb {
		case "LHLO":
			ok = s.say(c, r, s.lhlo, "250-server\r\n250-PIPELINING\r\n250 8BITMIME")
		case "MAIL":
			ok = s.say(c, r, s.mail, "250 2.1.0 fine")
		case "RCPT":
			ok = s.say(c, r, pop(&s.rcpt), "250 2.1.5 fine")
		case "DATA":
			if ok = s.say(c, r, s.data, "354 go on"); ok && (s.data == "" || strings.HasPrefix(s.data, "354")) {
				ok = s.message(c, r, h)
			}
		case "QUIT":
			s.say(c, r, "", "221 bye")
			return
		default:
			ok = s.say(c, r, "", "500 5.5.1 what?")
		}
	}
}

func pop(list *[]string) (first string) {
	if len(*list) > 0 {
		first, *list = (*list)[0], (*list)[1:]
	}
	return first
}

func (s script) message(c net.Conn, r *bufio.Reader, h *heard) bool {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			h.body += line
			return false
		}
		if line == ".\r\n" {
			break
		}
		h.body += line
	}
	h.whole = true
	if len(s.done) == 0 {
		return s.say(c, r, "", "250 2.0.0 saved")
	}
	for _, reply := range s.done {
		if !s.say(c, r, reply, "") {
			return false
		}
	}
	return true
}

func deliver(t testing.TB, l net.Listener, m Message) []*mailerr.Error {
	t.Helper()
	m.Destination = l.Addr().String()
	m.Timeout = time.Minute
	if m.Rcpts == nil {
		m.Rcpts = []string{"eve"}
	}
	if m.Body == nil {
		m.Body = strings.NewReader("Subject: x\n\nx\n")
	}
	return Deliver(t.Context(), clock.NewFake(time.Unix(0, 0)), m)
}

func TestDelivered(t *testing.T) {
	long := strings.Repeat("0123456789", 20000)
	for _, network := range []string{"unix", "tcp"} {
		l := listen(t, network)
		got := script{}.serve(t, l)
		body := "Subject: x\n\n.\n..\n.x\ncrlf\r\nbare\rcr\n" + long + "\n.\nno end"
		errs := deliver(t, l, Message{Sender: "bob@example.org", Body: strings.NewReader(body)})
		if len(errs) != 1 || errs[0] != nil {
			t.Errorf("%s: %v", network, errs)
		}
		h := <-got
		want := "LHLO localhost|MAIL FROM:<bob@example.org> BODY=8BITMIME|RCPT TO:<eve>|DATA|QUIT"
		if s := strings.Join(h.commands, "|"); s != want {
			t.Errorf("%s: %s", network, s)
		}
		wire := "Subject: x\r\n\r\n..\r\n...\r\n..x\r\ncrlf\r\nbare\rcr\r\n" + long + "\r\n..\r\nno end\r\n"
		if h.body != wire {
			t.Errorf("%s: body of %d bytes: %.80q", network, len(h.body), h.body)
		}
	}
}

func TestNullSenderAndName(t *testing.T) {
	l := listen(t, "tcp")
	got := script{lhlo: "250 bare", mail: "251 odd"}.serve(t, l)
	if errs := deliver(t, l, Message{Hello: "mx.example.org", Rcpts: []string{"eve+x@example.org"}}); errs[0] != nil {
		t.Error(errs[0])
	}
	want := "LHLO mx.example.org|MAIL FROM:<>|RCPT TO:<eve+x@example.org>|DATA|QUIT"
	if s := strings.Join((<-got).commands, "|"); s != want {
		t.Error(s)
	}
}

// TestParameterInjection: a local part can hold what ends a path; it stays one.
func TestParameterInjection(t *testing.T) {
	l := listen(t, "tcp")
	got := script{}.serve(t, l)
	m := Message{Sender: "bob> SIZE=1 <@x", Rcpts: []string{"root@other> ORCPT=rfc822;x <@example.org"}}
	if errs := deliver(t, l, m); errs[0] != nil {
		t.Errorf("%+v", errs[0])
	}
	want := []string{"LHLO localhost", `MAIL FROM:<"bob> SIZE=1 <"@x> BODY=8BITMIME`, `RCPT TO:<"root@other> ORCPT=rfc822;x <"@example.org>`}
	if h := <-got; !slices.Equal(h.commands[:3], want) {
		t.Errorf("the server heard %q", h.commands)
	}
}

func TestUTF8(t *testing.T) {
	l := listen(t, "tcp")
	got := script{lhlo: "250-x\r\n250 SMTPUTF8"}.serve(t, l)
	if errs := deliver(t, l, Message{Rcpts: []string{"jürgen@example.org"}}); errs[0] != nil {
		t.Error(errs[0])
	}
	if h := <-got; h.commands[1] != "MAIL FROM:<> SMTPUTF8" {
		t.Error(h.commands)
	}
}

// TestFailures has each way to fail at each step. Once the server has answered
// to the message for a recipient, nothing undoes it.
func TestFailures(t *testing.T) {
	steps := map[string]func(reply string) script{
		"greeting": func(r string) script { return script{greeting: r} },
		"LHLO":     func(r string) script { return script{lhlo: r} },
		"MAIL":     func(r string) script { return script{mail: r} },
		"RCPT":     func(r string) script { return script{rcpt: []string{r}} },
		"DATA":     func(r string) script { return script{data: r} },
		"message":  func(r string) script { return script{done: []string{r}} },
	}
	for step, with := range steps {
		for _, tc := range []struct {
			reply string
			class mailerr.Class
			enh   mailerr.Enhanced
			text  string
		}{
			{"451 4.3.2 come later", mailerr.Temp, mailerr.Enhanced{4, 3, 2}, "LMTP server error: 451 4.3.2 come later"},
			{"421 closing", mailerr.Temp, mailerr.Enhanced{4, 0, 0}, "LMTP server error: 421 closing"},
			{"450-4.2.0 first\r\n450 4.2.0 second", mailerr.Temp, mailerr.Enhanced{4, 2, 0}, "LMTP server error: 450 4.2.0 first second"},
			{"550 5.1.1 no \x1b[2Jeve\xff", mailerr.Perm, mailerr.Enhanced{5, 1, 1}, "LMTP server error: 550 5.1.1 no ?[2Jeve?"},
			{"500 what?", mailerr.Perm, mailerr.Enhanced{5, 0, 0}, "LMTP server error: 500 what?"},
			{"502 4.4.4 mixed", mailerr.Perm, mailerr.Enhanced{5, 0, 0}, "LMTP server error: 502 4.4.4 mixed"},
			{"552 5.70000.1 far", mailerr.Perm, mailerr.Enhanced{5, 0, 0}, "LMTP server error: 552 5.70000.1 far"},
			{"331 who are you", mailerr.Temp, mailerr.Enhanced{4, 5, 0}, "LMTP server error: 331 who are you"},
			{"rubbish", mailerr.Temp, mailerr.Enhanced{4, 5, 0}, "LMTP server sent an invalid reply"},
			{"250", mailerr.Temp, mailerr.Enhanced{4, 5, 0}, "LMTP server sent an invalid reply"},
			{"250 " + strings.Repeat("x", 3000), mailerr.Temp, mailerr.Enhanced{4, 5, 0}, "LMTP server sent an invalid reply"},
			{strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 1200), mailerr.Temp, mailerr.Enhanced{4, 5, 0}, "LMTP server sent an invalid reply"},
			{hangUp, mailerr.Temp, mailerr.Enhanced{4, 4, 2}, "LMTP server closed the connection"},
		} {
			if len(tc.reply) > 10 && step == "LHLO" && (tc.reply[:3] == "500" || tc.reply[:3] == "502") {
				// go-smtp drops these; the text is taken from the wire.
				tc.text = "LMTP server error: " + tc.reply
			}
			l := listen(t, "unix")
			got := with(tc.reply).serve(t, l)
			e := deliver(t, l, Message{})[0]
			l.Close()
			h := <-got
			if e == nil || e.Class != tc.class || e.Enhanced != tc.enh || e.Text != tc.text {
				t.Errorf("%s %.40q: %v, want %v %v %s", step, tc.reply, e, tc.class, tc.enh, tc.text)
			}
			if (h.body != "") != (step == "message") {
				t.Errorf("%s %.40q: body %q", step, tc.reply, h.body)
			}
			for _, c := range h.commands {
				if strings.HasPrefix(c, "HELO") {
					t.Errorf("%s %.40q: fell back to %s", step, tc.reply, c)
				}
			}
		}
	}
}

func TestTimeout(t *testing.T) {
	for name, s := range map[string]script{
		"greeting": {greeting: silence}, "LHLO": {lhlo: silence}, "MAIL": {mail: silence},
		"RCPT": {rcpt: []string{silence}}, "DATA": {data: silence}, "message": {done: []string{silence}},
	} {
		l := listen(t, "tcp")
		s.silent = make(chan struct{})
		got := s.serve(t, l)
		c := clock.NewFake(time.Unix(0, 0))
		result := make(chan *mailerr.Error, 1)
		go func() {
			m := Message{Destination: l.Addr().String(), Rcpts: []string{"eve"}, Body: strings.NewReader("x\n"), Timeout: 300 * time.Second}
			result <- Deliver(t.Context(), c, m)[0]
		}()
		<-s.silent
		c.BlockUntil(1)
		c.Advance(300 * time.Second)
		if e := <-result; e == nil || e.Class != mailerr.Temp || e.Text != "LMTP server timed out" {
			t.Errorf("%s: %v", name, e)
		}
		l.Close()
		<-got
	}
}

func TestCancelled(t *testing.T) {
	l := listen(t, "tcp")
	silent := make(chan struct{})
	got := script{mail: silence, silent: silent}.serve(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan *mailerr.Error, 1)
	go func() {
		m := Message{Destination: l.Addr().String(), Rcpts: []string{"eve"}, Body: strings.NewReader("x\n"), Timeout: time.Minute}
		result <- Deliver(ctx, clock.NewFake(time.Unix(0, 0)), m)[0]
	}()
	<-silent
	cancel()
	if e := <-result; e == nil || e.Class != mailerr.Temp || e.Text != "Shutting down" {
		t.Error(e)
	}
	l.Close()
	<-got
}

func TestNobodyListens(t *testing.T) {
	l := listen(t, "tcp")
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	for _, to := range []string{address, dir + "/none", "[::1", "127.0.0.1:none"} {
		m := Message{Destination: to, Rcpts: []string{"a", "b"}, Body: strings.NewReader("x\n"), Timeout: time.Minute}
		for _, e := range Deliver(t.Context(), clock.NewFake(time.Unix(0, 0)), m) {
			if e == nil || e.Class != mailerr.Temp || e.Text != "cannot connect to the LMTP server" || e.Cause == nil {
				t.Errorf("%s: %v", to, e)
			}
		}
	}
}

func TestPerRecipient(t *testing.T) {
	rcpts := []string{"taken", "unknown", "full", "never", "lost"}
	l := listen(t, "unix")
	got := script{
		rcpt: []string{"250 ok", "550 5.1.1 no such user", "250 ok", "250 ok", "250 ok"},
		done: []string{"250 2.0.0 saved", "452 4.2.2 full", "554 5.6.0 never", hangUp},
	}.serve(t, l)
	errs := deliver(t, l, Message{Rcpts: rcpts})
	if h := <-got; !h.whole {
		t.Error("the message did not come")
	}
	for i, want := range []string{"", "550 5.1.1 LMTP server error: 550 5.1.1 no such user", "452 4.2.2 LMTP server error: 452 4.2.2 full",
		"554 5.6.0 LMTP server error: 554 5.6.0 never", "451 4.4.2 LMTP server closed the connection"} {
		if s := ""; errs[i] != nil && errs[i].Error() != want || errs[i] == nil && want != s {
			t.Errorf("%s: %v, want %q", rcpts[i], errs[i], want)
		}
	}
}

// breaking is a body that cannot be read to its end.
type breaking struct{ r io.Reader }

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		err = errors.New("disk on fire")
	}
	return n, err
}

// TestHalfMessage: what could not be read whole must not be stored as if it were.
func TestHalfMessage(t *testing.T) {
	l := listen(t, "unix")
	got := script{}.serve(t, l)
	body := strings.Repeat("x\n", 10000)
	e := deliver(t, l, Message{Body: breaking{strings.NewReader(body)}})[0]
	if e == nil || e.Class != mailerr.Temp || e.Cause == nil {
		t.Error(e)
	}
	if h := <-got; h.whole {
		t.Error("the server was told that the message is whole")
	}
}

// TestLateGoodbye: after the last 250 nothing the server does undoes it.
func TestLateGoodbye(t *testing.T) {
	l := listen(t, "unix")
	got := script{done: []string{"250 saved", hangUp}}.serve(t, l)
	if e := deliver(t, l, Message{})[0]; e != nil {
		t.Error(e)
	}
	<-got
}

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{
		"localhost": "localhost|25", "host:24": "host|24", "[::1]:24": "::1|24", "[::1]": "::1|25",
		"[IPv6:2001:db8::1]:24": "2001:db8::1|24", "[127.0.0.1]:2003": "127.0.0.1|2003", "host:": "host|25",
	} {
		host, port := split(in)
		if got := host + "|" + port; got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
