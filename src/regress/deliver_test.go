package regress

import (
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// me is the user who runs the test, to whom alone an unprivileged smtpd delivers.
func me(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// send sends a small message over SMTP, which must be acknowledged.
func send(t testing.TB, d *daemon.Daemon, subject string, rcpts ...string) {
	t.Helper()
	c := d.Dial()
	text := "Subject: " + subject + "\r\n\r\nbody of " + subject + "\r\n"
	if err := c.Send("sender@example.org", rcpts, text, false); err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}

func TestMailIntoMaildir(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	rcpt := me(t) + "@localhost"
	send(t, d, "first", rcpt)
	for _, text := range d.AwaitMail(1) {
		for _, want := range []string{
			`(?m)^Return-Path: <sender@example\.org>\r?$`,
			`(?m)^Delivered-To: ` + regexp.QuoteMeta(rcpt) + `\r?$`,
			`(?m)^Received: from client\.localhost `,
			`(?m)^Subject: first\r?$`,
			`(?m)^body of first\r?$`,
		} {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
	}
	m := d.AwaitLog(`([0-9a-f]{16}) smtp message msgid=[0-9a-f]{8} size=\d+ nrcpt=1 proto=ESMTP`)
	d.AwaitLog(m[1] + ` smtp connected address=127\.0\.0\.1 host=\S+`)
	d.AwaitLog(`mda delivery evpid=[0-9a-f]{16} from=<sender@example.org> to=<` + rcpt + `> .*result=Ok stat=Delivered`)
	if st := d.Stop(); st != 0 {
		t.Errorf("smtpd ended with status %d", st)
	}
}

func TestManyRecipientsOneBad(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic+"table people { "+people(t, 999)+" }\naction \"v\" maildir $box virtual <people>\nmatch for domain \"v.test\" action \"v\"\n").Start()
	c := d.Dial()
	if _, err := fmt.Fprint(c, "MAIL FROM:<a@example.org>\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := reply(t, c); !strings.HasPrefix(got, "250 ") {
		t.Fatalf("MAIL: %s", got)
	}
	bad := 0
	for i := range 1000 {
		fmt.Fprintf(c, "RCPT TO:<p%03d@v.test>\r\n", i)
		switch got := reply(t, c); {
		case i == 999 && strings.HasPrefix(got, "5"):
			bad++
		case !strings.HasPrefix(got, "250 "):
			t.Fatalf("recipient %d: %s", i, got)
		}
	}
	if bad != 1 {
		t.Fatal("the unknown recipient was accepted")
	}
	fmt.Fprint(c, "DATA\r\n")
	if got := reply(t, c); !strings.HasPrefix(got, "354 ") {
		t.Fatalf("DATA: %s", got)
	}
	fmt.Fprint(c, "Subject: many\r\n\r\nx\r\n.\r\n")
	if got := reply(t, c); !strings.HasPrefix(got, "250 ") {
		t.Fatalf("end of data: %s", got)
	}
	d.AwaitMail(999)
}

func people(t testing.TB, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\"p%03d@v.test\" = %s, ", i, me(t))
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// reply reads one reply of any number of lines and returns the last.
func reply(t testing.TB, c interface{ Read([]byte) (int, error) }) string {
	t.Helper()
	var all []byte
	one := make([]byte, 1)
	for {
		n, err := c.Read(one)
		if err != nil {
			t.Fatalf("reading a reply after %q: %v", all, err)
		}
		all = append(all, one[:n]...)
		if n == 1 && one[0] == '\n' {
			if len(all) < 5 || all[3] != '-' {
				return strings.TrimSpace(string(all))
			}
			all = all[:0]
		}
	}
}

func TestMDAEnvironmentAndFailure(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	// The command writes nothing before a file named "open" exists, so that the
	// first try fails and a later one succeeds.
	script := d.Path("agent.sh")
	body := `#!/bin/sh
test -e ` + d.Path("open") + ` || { echo "mailbox closed for lunch"; exit 75; }
env | LC_ALL=C sort > ` + d.Path("env") + `
cat > ` + d.Path("got.tmp") + ` && mv ` + d.Path("got.tmp") + ` ` + d.Path("got") + `
`
	if err := os.WriteFile(script, []byte(body), 0o700); err != nil {
		t.Fatal(err)
	}
	d.Configure("listen on 127.0.0.1 port $port\naction \"local\" mda \"" + script + "\"\nmatch for local action \"local\"\n")
	d.Start()
	send(t, d, "through a command", me(t)+"+ext@localhost")
	m := d.AwaitLog(`mda delivery evpid=([0-9a-f]{16}) .*result=TempFail stat=.*mailbox closed for lunch`)
	if q := d.Ctl("show", "queue"); !strings.Contains(q, m[1]) {
		t.Errorf("show queue lacks %s:\n%s", m[1], q)
	}
	// The envelope survives a restart.
	if st := d.Stop(); st != 0 {
		t.Fatalf("status %d", st)
	}
	// Meanwhile it can be looked at on the disk.
	want := m[1] + "|inet4|mda||sender@example.org|" + me(t) + "+ext@localhost|" + me(t) + "+ext@localhost|"
	if q := d.Ctl("show", "queue"); !strings.HasPrefix(q, want) || !strings.Contains(q, "|offline||") {
		t.Errorf("without a daemon show queue says %s", q)
	}
	if q := d.Ctl("-j", "show", "queue", m[1][:8]); !strings.Contains(q, `"state":"offline"`) || d.Ctl("show", "queue", "00000001") != "" {
		t.Errorf("without a daemon show queue of a message says %s", q)
	}
	if e, b := d.Ctl("show", "envelope", m[1]), d.Ctl("show", "message", m[1]); !strings.Contains(e, "sender: sender@example.org\n") || !strings.Contains(b, "Subject: through a command\n") {
		t.Errorf("without a daemon the envelope is %s, the message %s", e, b)
	}
	if err := os.WriteFile(d.Path("open"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Start("-P", "mda")
	if q := d.Ctl("show", "queue"); !strings.Contains(q, m[1]) {
		t.Errorf("after a restart show queue lacks %s:\n%s", m[1], q)
	}
	d.Ctl("schedule", m[1])
	d.Ctl("resume", "mda")
	d.Await("the command's output", func() bool { _, err := os.Stat(d.Path("got")); return err == nil })
	env, err := os.ReadFile(d.Path("env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"EXTENSION=ext", "SENDER=sender@example.org", "ORIGINAL_RECIPIENT=" + me(t) + "+ext@localhost",
		"LOGNAME=" + me(t), "USER=" + me(t), "SHELL=/bin/sh",
	} {
		if !strings.Contains("\n"+string(env), "\n"+want+"\n") {
			t.Errorf("environment lacks %s:\n%s", want, env)
		}
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}

func TestSendmailAndAliases(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	aliases := d.Path("aliases")
	if err := os.WriteFile(aliases, []byte("# people\nwebmaster: "+me(t)+"\nloop: pool\npool: loop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Configure("table aliases file:" + aliases + `
listen on 127.0.0.1 port $port
action "local" maildir $box alias <aliases>
match for local action "local"
`)
	d.Start()
	out, errs, st := d.Run("To: webmaster\nBcc: "+me(t)+"\nSubject: by program\n\n.\nlast line\n", "sendmail", "-t", "-f", "cron@example.org", "-F", "Cron Daemon")
	if st != 0 {
		t.Fatalf("sendmail: status %d: %s%s", st, out, errs)
	}
	for _, text := range d.AwaitMail(2) {
		for _, want := range []string{"Return-Path: <cron@example.org>", "Message-ID: <", "Date: ", "From: ", "\n.\n"} {
			if !strings.Contains(strings.ReplaceAll(text, "\r\n", "\n"), want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		if strings.Contains(text, "Bcc:") {
			t.Errorf("Bcc was kept:\n%s", text)
		}
	}
	c := d.Dial()
	if err := c.Send("a@example.org", []string{"loop@localhost"}, "x\r\n", false); err == nil {
		t.Error("an alias loop was accepted")
	}
}
