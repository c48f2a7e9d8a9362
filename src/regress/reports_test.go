package regress

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// TestCVE_2020_8794: a reply that would like to be the text of an envelope stays
// one line of it, over a restart too.
func TestCVE_2020_8794(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 1900 {
		fmt.Fprintf(&b, "451-%s\r\n", []string{"", "type: mda", "mda-exec: id", "dispatcher: local", "\x00evpid: 1", "mda-user: root\r"}[i%6])
	}
	p := newPeer(t, map[string]string{"RCPT": b.String() + "451"})
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr)).Start()
	submit(t, d, "joe@here.example", "a@far.example")
	id := d.AwaitLog(`mta delivery evpid=([0-9a-f]{16}) .*to=<a@far.example> .*result="TempFail" stat="451 type: mda mda-exec: id `)[1]
	var before string
	d.Await("the envelope to wait", func() bool {
		before = d.Ctl("show", "envelope", id)
		return strings.Contains(before, "errorline: ")
	})
	seen := make(map[string]bool)
	for line := range strings.Lines(before) {
		field, _, ok := strings.Cut(line, ": ")
		if !ok || seen[field] || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\r\x00") {
			t.Errorf("the envelope has the line %q", line)
		}
		seen[field] = true
	}
	for _, want := range []string{"type: mta\n", "dispatcher: out\n"} {
		if !strings.Contains(before, want) {
			t.Errorf("no %q in\n%s", want, before)
		}
	}
	if seen["mda-exec"] || seen["mda-user"] {
		t.Errorf("the reply became part of the envelope:\n%s", before)
	}
	d.Stop()
	d.Start()
	if after := d.Ctl("show", "envelope", id); after != before {
		t.Errorf("after a restart the envelope is\n%s\nbefore it was\n%s", after, before)
	}
	p.set(nil)
	d.Ctl("schedule", "all")
	d.AwaitLog(`mta delivery evpid=` + id + ` .*result="Ok"`)
}

// TestDSNAbuse: a report goes to nobody without an address, holds no more than
// was asked for, and cannot be made to say what its sender wants.
func TestDSNAbuse(t *testing.T) {
	t.Parallel()
	p := newPeer(t, map[string]string{"RCPT": "550 5.1.1 nobody"})
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr)).Start()
	user := me(t)
	c := d.Dial()
	// Strict xtext (RFC 3461 section 4): no way to another line or parameter.
	for _, bad := range []string{
		"ENVID=a+0g", "ENVID=a=b", "ENVID=", "ENVID=" + strings.Repeat("x", 101), "RET=ALL", "RET=SOME", "RET=",
	} {
		line := "MAIL FROM:<" + user + "@localhost> RET=HDRS " + bad + "\r\n"
		if strings.HasPrefix(bad, "RET=S") || bad == "RET=" {
			line = "MAIL FROM:<" + user + "@localhost> " + bad + "\r\n"
		}
		if got := say(t, c, line); !strings.HasPrefix(got, "5") {
			t.Errorf("%q was answered %q", line, got)
			wants(t, c, "RSET\r\n", "250")
		}
		c.Close()
		c = d.Dial()
	}
	for _, bad := range []string{
		"NOTIFY=NEVER,SUCCESS", "NOTIFY=ALWAYS", "NOTIFY=", "ORCPT=rfc822", "ORCPT=rfc822;a+0", "ORCPT=;a",
	} {
		wants(t, c, "MAIL FROM:<"+user+"@localhost>\r\n", "250")
		wants(t, c, "RCPT TO:<a@far.example> "+bad+"\r\n", "5")
		c.Close()
		c = d.Dial()
	}

	const secret = "the body is nobody's business"
	mail := func(from, rcpt string) {
		t.Helper()
		wants(t, c, "MAIL FROM:"+from+"\r\n", "250")
		wants(t, c, "RCPT TO:"+rcpt+"\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		wants(t, c, "Subject: once\r\n\r\n"+secret+"\r\n.\r\n", "250")
	}
	mail("<>", "<null@far.example>")
	d.AwaitLog(`to=<null@far.example> .*result="PermFail"`)
	mail("<"+user+"@localhost>", "<never@far.example> NOTIFY=NEVER")
	d.AwaitLog(`to=<never@far.example> .*result="PermFail"`)
	mail("<"+user+"@localhost> RET=HDRS ENVID=QQ+2B314+0D+0AX-Forged:+20a", "<told@far.example> NOTIFY=FAILURE ORCPT=rfc822;first+2Bone@far.example+0AX-Forged:+20b")
	var report string
	for _, text := range d.AwaitMail(1) {
		report = text
	}
	for _, want := range []string{
		`(?m)^Original-Envelope-Id: QQ\+314`, `(?m)^Original-Recipient: rfc822; ?first\+one@far\.example`,
		`(?m)^Final-Recipient: rfc822; told@far\.example$`, `(?m)^Content-Type: text/rfc822-headers`, `(?m)^Subject: once$`,
	} {
		if !regexp.MustCompile(want).MatchString(strings.ReplaceAll(report, "\r", "")) {
			t.Errorf("no %s in\n%s", want, report)
		}
	}
	if regexp.MustCompile(`(?m)^X-Forged`).MatchString(report) {
		t.Errorf("a line of the sender's own in\n%s", report)
	}
	if strings.Contains(report, secret) {
		t.Errorf("RET=HDRS, and yet the body is in\n%s", report)
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	d.AwaitMail(1)
}
