package regress

import (
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// TestCVE_2013_2125_StalledClients: clients that stop anywhere, or do not read,
// keep nobody else waiting.
func TestCVE_2013_2125_StalledClients(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	script := "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<" + me(t) + "@localhost>\r\n"
	for i := range 200 {
		c, err := load.Dial(t.Context(), d.Addr, daemon.Wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		stalled := []string{script[:i%len(script)], script + "DATA\r\nSubject: x\r\n", script + "BDAT 1000\r\nSubject: x\r\n", strings.Repeat("HELP\r\n", 20)}[i%4]
		if _, err := c.Write([]byte(stalled)); err != nil {
			t.Fatal(err)
		}
	}
	alive(t, d)
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}

// TestChunkSmuggling: what is inside a chunk is never a command, whatever was
// said to BDAT, and what is behind it is no part of it.
func TestChunkSmuggling(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	inner := "\r\n.\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<" + me(t) + "@localhost>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
	bdat := func(text, last string) string { return fmt.Sprintf("BDAT %d%s\r\n%s", len(text), last, text) }

	c := d.Dial()
	for range 3 { // no transaction, no recipient, refused for a bare CR
		wants(t, c, bdat(inner, ""), "503")
	}
	wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
	wants(t, c, bdat(inner, " LAST"), "503")
	wants(t, c, "RCPT TO:<"+me(t)+"@localhost>\r\n", "250")
	wants(t, c, bdat("Subject: x\r\n\r\na\rb"+inner, ""), "550 5.6.11")
	wants(t, c, bdat(inner, " LAST"), "503")
	wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
	wants(t, c, "RCPT TO:<"+me(t)+"@localhost>\r\n", "250")
	wants(t, c, bdat("Subject: outer\r\n\r\nx"+inner, " LAST"), "250 2.0.0")
	wants(t, c, "NOOP\r\n", "250")
	for _, text := range d.AwaitMail(1) {
		if text = strings.ReplaceAll(text, "\r", ""); !strings.Contains(text, "\n\nx\n.\nMAIL FROM:<evil@example.org>\n") {
			t.Errorf("message:\n%s", text)
		}
	}
}

// TestLoopOfHundredReceived: a message that has been everywhere goes no further.
func TestLoopOfHundredReceived(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	err := c.Send("a@example.org", []string{me(t) + "@localhost"}, strings.Repeat("Received: from x by y\r\n", 100)+"\r\n", false)
	if err == nil || !strings.Contains(err.Error(), "500 5.4.6 Routing loop detected") {
		t.Errorf("100 Received lines: %v", err)
	}
	alive(t, d)
}

// TestEnumerationByVRFY: nobody learns who exists without offering mail.
func TestEnumerationByVRFY(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	known, unknown := say(t, c, "VRFY "+me(t)+"\r\n"), say(t, c, "VRFY nobodyhere\r\n")
	if known != unknown || !strings.HasPrefix(known, "252") {
		t.Errorf("VRFY: %q and %q", known, unknown)
	}
	wants(t, c, "EXPN "+me(t)+"\r\n", "502")
}

// TestDSNAbuseAtTheDoor: nothing is sent to the null sender or about NEVER, and parameters
// of DSN bring nothing into a report but what they say.
func TestDSNAbuseAtTheDoor(t *testing.T) {
	t.Parallel()
	p := newPeer(t, map[string]string{"RCPT": "550 5.1.1 no"})
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr)).Start()
	c := d.Dial()
	for _, bad := range []string{"ENVID=a\tb", "ENVID=+0", "ENVID=a+0d", "ENVID=" + strings.Repeat("x", 101), "RET=ALL", "RET=HDRS RET=FULL"} {
		wants(t, c, "MAIL FROM:<a@example.org> "+bad+"\r\n", "501 5.5.4")
	}
	c = d.Dial()
	wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
	for _, bad := range []string{"ORCPT=rfc822", "ORCPT=rfc822;", "ORCPT=rf c822;a", "ORCPT=rfc822;a+0", "NOTIFY=NEVER,SUCCESS"} {
		if got := say(t, c, "RCPT TO:<b@far.test> "+bad+"\r\n"); got[0] != '5' {
			t.Errorf("%s: %q", bad, got)
		}
	}
	c = d.Dial()
	body := "DATA\r\nSubject: secret\r\n\r\nthe body\r\n.\r\n"
	for _, tc := range []struct{ from, mail, rcpt string }{
		{"", "", ""},
		{me(t) + "@localhost", "", " NOTIFY=NEVER"},
		{me(t) + "@localhost", "", " NOTIFY=SUCCESS"},
		{me(t) + "@localhost", " RET=HDRS ENVID=id+0D+0AX-Evil:+20yes", " ORCPT=rfc822;x+0D+0AAction:+20delivered"},
	} {
		wants(t, c, "MAIL FROM:<"+tc.from+">"+tc.mail+"\r\n", "250")
		wants(t, c, "RCPT TO:<b@far.test>"+tc.rcpt+"\r\n", "250")
		if got := say(t, c, body[:6]); !strings.HasPrefix(got, "354") {
			t.Fatal(got)
		}
		wants(t, c, body[6:], "250")
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	for _, text := range d.AwaitMail(1) {
		text = strings.ReplaceAll(text, "\r", "")
		if strings.Contains(text, "the body") || !strings.Contains(text, "Subject: secret") {
			t.Errorf("RET=HDRS:\n%s", text)
		}
		for _, evil := range []string{"\nX-Evil", "\nAction: delivered"} {
			if strings.Contains(text, evil) {
				t.Errorf("%q was injected:\n%s", evil, text)
			}
		}
	}
}

// TestExpansionOverflow2012: the longest addresses in every form of an mda
// command.
func TestExpansionOverflow2012(t *testing.T) {
	t.Parallel()
	var forms []string
	for _, f := range []string{"sender", "sender.user", "sender.domain", "rcpt", "rcpt.user", "dest", "dest.user:lowercase", "dest.user[0]", "dest.user[-200:]", "user.username", "sender:strip", "sender:raw"} {
		forms = append(forms, "%{"+f+"}")
	}
	d := daemon.New(t, "listen on 127.0.0.1 port $port\naction \"a\" mda \"cat >/dev/null; true "+strings.Join(forms, " ")+"\" virtual { \"@v.test\" = "+me(t)+" }\n"+
		"action \"local\" maildir $box\nmatch for domain \"v.test\" action \"a\"\nmatch for local action \"local\"\n").Start()
	c := d.Dial()
	long := strings.Repeat("a", 255)
	domain := strings.Repeat(strings.Repeat("d", 60)+".", 4) + "test"
	wants(t, c, "MAIL FROM:<"+long+"@"+domain+">\r\n", "250")
	wants(t, c, "RCPT TO:<"+strings.ToUpper(long)+"@v.test>\r\n", "250")
	wants(t, c, "DATA\r\n", "354")
	wants(t, c, "Subject: long\r\n\r\n.\r\n", "250")
	d.AwaitLog(`mda delivery .*result=Ok`)
	wants(t, c, "MAIL FROM:<"+long+"a@"+domain+">\r\n", "553")
	alive(t, d)
}
