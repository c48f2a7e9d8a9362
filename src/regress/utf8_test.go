package regress

import (
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// beyondASCII is a configuration with a domain in letters, whose people a virtual
// table names, and a relay for all else.
const beyondASCII = `listen on 127.0.0.1 port $port
listen on socket
table people { "jürgen" = %s, "weiter@bücher.example" = "用户@例子.example" }
action "people" maildir $box virtual <people>
action "out" relay host smtp://%s
match from any for domain "bücher.example" action "people"
match from local for local action "people"
match from any for any action "out"
`

// TestSMTPUTF8Delivery: a message of SMTPUTF8 arrives, for a domain in either of
// its forms, over a restart.
func TestSMTPUTF8Delivery(t *testing.T) {
	t.Parallel()
	_, at := takeAll(t)
	d := daemon.New(t, fmt.Sprintf(beyondASCII, me(t), at)).Start()
	d.Ctl("pause", "mda")
	c := d.Dial()
	for _, rcpt := range []string{"jürgen@bücher.example", "jürgen@xn--bcher-kva.example"} {
		wants(t, c, "MAIL FROM:<алиса@пример.example> SMTPUTF8\r\n", "250")
		wants(t, c, "RCPT TO:<"+rcpt+">\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		wants(t, c, "Subject: Grüße\r\n\r\nx\r\n.\r\n", "250")
	}
	wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
	wants(t, c, "RCPT TO:<jürgen@bücher.example>\r\n", "553 5.6.7")
	if q := d.Ctl("show", "queue"); strings.Count(q, "smtputf8") != 2 {
		t.Errorf("queue:\n%s", q)
	}
	d.Stop()
	d.Restart()
	for _, text := range d.AwaitMail(2) {
		for _, want := range []string{"Return-Path: <алиса@пример.example>\n", "with UTF8SMTP id ", "Subject: Grüße\n", "Delivered-To: jürgen@"} {
			if !strings.Contains(strings.ReplaceAll(text, "\r", ""), want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
}

// TestSMTPUTF8Relay: a server without SMTPUTF8 gets what it can take, and of the
// rest the sender hears, in his own letters.
func TestSMTPUTF8Relay(t *testing.T) {
	t.Parallel()
	p := newPeer(t, map[string]string{"EHLO": "250-peer.example\r\n250 8BITMIME"})
	d := daemon.New(t, fmt.Sprintf(beyondASCII, me(t), p.addr)).Start()
	c := d.Dial()
	ask := func(rcpt, subject string) {
		t.Helper()
		wants(t, c, "MAIL FROM:<jürgen@bücher.example> SMTPUTF8\r\n", "250")
		wants(t, c, "RCPT TO:<"+rcpt+">\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		wants(t, c, "Subject: "+subject+"\r\n\r\nx\r\n.\r\n", "250")
	}
	ask("bob@far.test", "plain")
	for _, text := range d.AwaitMail(1) {
		for _, want := range []string{"To: jürgen@bücher.example\n", "Content-Type: message/global-delivery-status\n", "Status: 5.6.7\n", "Final-Recipient: rfc822; bob@far.test\n"} {
			if !strings.Contains(strings.ReplaceAll(text, "\r", ""), want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	// With an ASCII sender: a plain message goes, one with a header in letters does not.
	for subject, code := range map[string]string{"plain": "result=\"Ok\"", "Grüße": "result=\"PermFail\""} {
		wants(t, c, "MAIL FROM:<"+me(t)+"@localhost> SMTPUTF8\r\n", "250")
		wants(t, c, "RCPT TO:<"+subject[:2]+"@far.test>\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		wants(t, c, "Subject: "+subject+"\r\n\r\nGrüße\r\n.\r\n", "250")
		d.AwaitLog(`to=<` + subject[:2] + `@far.test> .*` + code)
	}
	// A server that offers it is told so.
	p.set(map[string]string{"EHLO": "250-peer.example\r\n250-SMTPUTF8\r\n250 8BITMIME"})
	d.Ctl("show", "routes")
	d.Stop()
	d.Restart()
	c = d.Dial()
	ask("weiter@bücher.example", "Grüße")
	d.AwaitLog(`to=<用户@例子.example> .*result="Ok"`)
	if got := p.got(); len(got) != 2 || !strings.Contains(got[1], "Subject: Grüße") {
		t.Errorf("the server got %q", got)
	}
}
