package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/smtp"
)

// scripted is a Filter that decides by a table and writes down what it hears.
type scripted struct {
	verdicts map[string]Verdict // by phase and parameter
	lines    bool               // it wants to see messages

	mu    sync.Mutex // sessions of a listener share it
	heard []string
}

func (f *scripted) hear(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, text)
}

func (f *scripted) Phase(_ context.Context, s *Session, p Phase, param string) Verdict {
	f.hear(fmt.Sprintf("ask %d %s", p, param))
	return f.verdicts[fmt.Sprintf("%d %s", p, param)]
}

func (f *scripted) Report(s *Session, e Event) {
	f.hear(strings.TrimSpace(fmt.Sprintf("tell %s %s", kinds[e.Kind], e.Text)))
}

var kinds = [...]string{
	LinkConnect: "connect", LinkGreeting: "greeting", LinkIdentify: "identify", LinkTLS: "tls", LinkAuth: "auth", LinkDisconnect: "disconnect",
	TxBegin: "begin", TxMail: "mail", TxRcpt: "rcpt", TxEnvelope: "envelope", TxData: "data", TxCommit: "commit",
	TxRollback: "rollback", TxReset: "reset", ProtocolClient: "<", ProtocolServer: ">", FilterResponse: "response", Timeout: "timeout",
}

// Lines passes lines on in capitals, later ones first when they say so.
func (f *scripted) Lines(_ context.Context, _ *Session, next func([]byte)) LineFilter {
	if !f.lines {
		return nil
	}
	return &capitals{next: next}
}

type capitals struct {
	next func([]byte)
	held []string
}

func (c *capitals) Line(line []byte) {
	if strings.HasPrefix(string(line), "X-Drop") {
		return
	}
	c.held = append(c.held, strings.ToUpper(string(line)))
}

func (c *capitals) End() error {
	for _, line := range c.held {
		c.next([]byte(line))
	}
	return nil
}

// played runs a session under f and returns the replies.
func played(t *testing.T, f *scripted, send ...string) (*rig, []string) {
	t.Helper()
	r := newRig(t)
	r.ln.Filter = f
	nc := r.dial(t)
	in := bufio.NewReader(nc)
	replies := []string{answer(t, in)}
	for _, line := range send {
		if _, err := io.WriteString(nc, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		replies = append(replies, answer(t, in))
	}
	nc.Close()
	<-r.mem.done
	return r, replies
}

func TestFilterHearsAll(t *testing.T) {
	f := &scripted{}
	played(t, f, "HELO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "RSET",
		"MAIL FROM:<c@example.org>", "RCPT TO:<d@example.com>", "DATA", ".", "QUIT")
	want := strings.Split(strings.TrimSpace(`
tell connect
ask 1 192.0.2.7
tell response proceed
tell > 220 mx.example.com ESMTP OpenSMTPD
tell greeting
tell < HELO x
ask 2 x
tell response proceed
tell identify HELO
tell > 250 mx.example.com Hello x [192.0.2.7], pleased to meet you
tell < MAIL FROM:<a@example.org>
ask 6 <a@example.org>
tell response proceed
tell > 250 2.0.0 Ok
tell begin
tell mail a@example.org
tell < RCPT TO:<b@example.com>
ask 7 <b@example.com>
tell response proceed
tell envelope
tell > 250 2.1.5 Destination address valid: Recipient ok
tell rcpt b@example.com
tell < RSET
ask 12
tell response proceed
tell > 250 2.0.0 Reset state
tell rollback
tell reset
tell < MAIL FROM:<c@example.org>
ask 6 <c@example.org>
tell response proceed
tell > 250 2.0.0 Ok
tell begin
tell mail c@example.org
tell < RCPT TO:<d@example.com>
ask 7 <d@example.com>
tell response proceed
tell envelope
tell > 250 2.1.5 Destination address valid: Recipient ok
tell rcpt d@example.com
tell < DATA
ask 8
tell response proceed
tell > 354 Enter mail, end with "." on a line by itself
tell data
tell < .
ask 9
tell response proceed
tell > 250 2.0.0 10000002 Message accepted for delivery
tell commit
tell reset
tell < QUIT
ask 11
tell response proceed
tell > 221 2.0.0 Bye
tell disconnect`), "\n")
	var got []string
	for _, line := range f.heard {
		got = append(got, strings.TrimSpace(line))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFilterDecides(t *testing.T) {
	no := smtp.Fail(550, 7, 1, "no")
	for _, tc := range []struct {
		name string
		v    map[string]Verdict
		send []string
		want []string
	}{
		{"reject", map[string]Verdict{"6 <a@example.org>": {Action: Reject, Reply: no}},
			[]string{"HELO x", "MAIL FROM:<a@example.org>", "NOOP"}, []string{"220", "250", "550 5.7.1 no", "250"}},
		{"reject with 421", map[string]Verdict{"2 x": {Action: Reject, Reply: smtp.Fail(421, 7, 1, "go")}},
			[]string{"HELO x"}, []string{"220", "421 4.7.1 go"}},
		{"disconnect", map[string]Verdict{"1 192.0.2.7": {Action: Disconnect, Reply: smtp.Fail(554, 7, 1, "away")}},
			nil, []string{"554 5.7.1 away"}},
		{"not SMTP", map[string]Verdict{"2 x": {Action: Reject, Reply: smtp.OK(250, 0, 0, "ok")}},
			[]string{"HELO x"}, []string{"220", "421 Internal server error"}},
		{"rewrite", map[string]Verdict{"7 <b@example.com>": {Action: Rewrite, Param: "<nobody@example.com>"}},
			[]string{"HELO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"}, []string{"220", "250", "250", "550 Invalid recipient: <nobody@example.com>"}},
		{"rewrite to rubbish", map[string]Verdict{"7 <b@example.com>": {Action: Rewrite, Param: "b"}},
			[]string{"HELO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"}, []string{"220", "250", "250", "501"}},
		{"at commit", map[string]Verdict{"9 ": {Action: Reject, Reply: no}},
			[]string{"HELO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA", ".", "DATA"}, []string{"220", "250", "250", "250", "354", "550 5.7.1 no", "503"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, got := played(t, &scripted{verdicts: tc.v}, tc.send...)
			for i, want := range tc.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("reply %d is %q, want %q", i, got[i], want)
				}
			}
			if len(r.mem.accepted()) != 0 || r.mem.pending() != 0 {
				t.Error("a message is left")
			}
		})
	}
}

func TestFilterJunk(t *testing.T) {
	for phase, sticks := range map[string]bool{"1 192.0.2.7": true, "6 <a@example.org>": true, "7 <b@example.com>": false} {
		f := &scripted{verdicts: map[string]Verdict{phase: {Action: Junk}}}
		r, _ := played(t, f, "HELO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA", "\r\n.",
			"MAIL FROM:<c@example.org>", "RCPT TO:<d@example.com>", "DATA", "\r\n.")
		all := r.mem.accepted()
		if first := strings.HasPrefix(all[0].body.String(), "X-Spam: Yes\nReceived: "); !first {
			t.Errorf("%s: not marked: %q", phase, all[0].body.String())
		}
		if second := strings.HasPrefix(all[1].body.String(), "X-Spam: Yes\n"); second != sticks {
			t.Errorf("%s: the second message is marked: %v", phase, second)
		}
	}
}

func TestFilterLines(t *testing.T) {
	f := &scripted{lines: true}
	r, got := played(t, f, "HELO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA",
		"Subject: quiet\r\nX-Drop: me\r\nBcc: secret\r\n\r\nhello\r\n.")
	if last := got[len(got)-1]; !strings.HasPrefix(last, "250") {
		t.Fatal(last)
	}
	body := r.mem.accepted()[0].body.String()
	if !strings.HasPrefix(body, "RECEIVED: FROM X (CLIENT.EXAMPLE.ORG [192.0.2.7])\n\tBY MX.EXAMPLE.COM") ||
		!strings.HasSuffix(body, "\nSUBJECT: QUIET\n\nHELLO\n") {
		t.Errorf("kept %q", body)
	}
}
