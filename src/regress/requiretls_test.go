package regress

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/pki/pkitest"
)

// TestRequireTLS: mail with REQUIRETLS goes to a daemon like ours, and the sender
// is told at once, with the header alone, that a server without TLS may not have
// it. What says TLS-Required: No is known as such in the queue.
func TestRequireTLS(t *testing.T) {
	t.Parallel()
	to := newTLS(t, "", "", pkitest.RSA+":localhost")
	to.append("match from any for any action \"local\"\n")
	to.Start()
	bare := newPeer(t, nil)
	d := newTLS(t, "", "", pkitest.ECDSA+":mx.example.org")
	d.append(fmt.Sprintf(`listen on socket
ca other cert %q
action "good" relay host smtp://localhost:%s ca other
action "bare" relay host smtp://%s
match from any for domain "good.example" action "good"
match from any for any action "bare"
`, to.Path("ca.pem"), to.Port(), bare.addr))
	d.Start()
	nc, err := tls.Dial("tcp", d.smtps, d.ca.Client("mx.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := reply(t, nc); !strings.HasPrefix(got, "220 ") {
		t.Fatal(got)
	}
	ask := func(line, want string) {
		t.Helper()
		if _, err := nc.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if got := reply(t, nc); !strings.HasPrefix(got, want) {
			t.Errorf("%.60q was answered %q", line, got)
		}
	}
	ask("EHLO client.example.org\r\n", "250")
	hand := func(param, rcpt, header string) {
		t.Helper()
		ask("MAIL FROM:<"+me(t)+"@localhost>"+param+"\r\n", "250")
		ask("RCPT TO:<"+rcpt+">\r\n", "250")
		ask("DATA\r\n", "354")
		ask(header+"\r\nthe body\r\n.\r\n", "250")
	}
	hand(" REQUIRETLS", me(t)+"@localhost", "Subject: here\r\n")
	d.AwaitMail(1)

	to.Ctl("pause", "mda")
	hand(" REQUIRETLS", me(t)+"@good.example", "Subject: there\r\n")
	d.AwaitLog(`to=<` + me(t) + `@good.example> .*result="Ok"`)
	if q := to.Ctl("show", "queue"); !strings.Contains(q, "|mda|requiretls") {
		t.Errorf("queue of the other: %s", q)
	}

	hand(" REQUIRETLS RET=FULL", "bob@bare.example", "Subject: nowhere\r\n")
	d.AwaitLog(`to=<bob@bare.example> .*result="PermFail" stat="Encryption needed: TLS required but not supported by remote host"`)
	report := ""
	for _, text := range d.AwaitMail(2) {
		if strings.Contains(text, "multipart/report") {
			report = text
		}
	}
	if !strings.Contains(report, "\nStatus: 5.7.10\n") || !strings.Contains(report, "\nSubject: nowhere\n") || strings.Contains(report, "the body") {
		t.Errorf("report:\n%s", report)
	}

	d.Ctl("pause", "mta")
	hand("", "bob@bare.example", "TLS-Required: No\r\n")
	if q := d.Ctl("show", "queue"); !strings.Contains(q, "|mta|tlsoptional") {
		t.Errorf("queue: %s", q)
	}
	d.Ctl("resume", "mta")
	d.AwaitLog(`to=<bob@bare.example> .*result="Ok"`)
	if got := bare.got(); len(got) != 1 || !strings.Contains(got[0], "TLS-Required: No\r\n") {
		t.Errorf("the server without TLS got %q", got)
	}
}
