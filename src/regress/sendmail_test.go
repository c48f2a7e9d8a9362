package regress

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// TestSendmailCallers submits mail as programs do that know sendmail alone.
func TestSendmailCallers(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	user := me(t)
	for _, tc := range []struct {
		name  string
		args  string // words
		stdin string
		n     int      // messages that arrive; the same is wanted of each
		has   []string // regular expressions
		lacks []string
	}{
		{
			"Debian's cron", "-FCronDaemon -i -B8BITMIME -oem " + user,
			"From: root (Cron Daemon)\nTo: " + user + "\nSubject: Cron <x@y> job\nContent-Type: text/plain; charset=UTF-8\nAuto-Submitted: auto-generated\n\nline\n.\nafter the dot\n", 1,
			[]string{`(?m)^From: root@\S+ \(Cron Daemon\)$|^From: root \(Cron Daemon\)$`, `(?m)^Auto-Submitted: auto-generated$`, `\n\nline\n\.\nafter the dot\n$`, `(?m)^Date: `, `(?m)^Message-ID: <\S+>$`},
			nil,
		},
		{
			"Vixie's cron", "-FCronDaemon -odi -oem -oi -t",
			"From: root\nTo: " + user + "\nSubject: Cron\n\nout\n", 1,
			[]string{`(?m)^To: ` + user, `\n\nout\n$`}, nil,
		},
		{
			"mutt", "-oem -oi -B8BITMIME -f me@example.org -- " + user + "@localhost",
			"Date: Mon, 2 Nov 2026 10:00:00 +0000\nFrom: Me <me@example.org>\nTo: " + user + "@localhost\nSubject: =?utf-8?Q?gr=C3=BC=C3=9Fe?=\nMessage-ID: <mine@example.org>\nMIME-Version: 1.0\n\nhallo\n", 1,
			[]string{`(?m)^Return-Path: <me@example\.org>$`, `(?m)^Message-ID: <mine@example\.org>$`, `(?m)^Date: Mon, 2 Nov 2026 10:00:00 \+0000$`, `(?m)^From: Me <me@example\.org>$`},
			[]string{`Message-ID: <mine@example\.org>(?s:.*)Message-ID:`},
		},
		{
			"mutt with DSN", "-N failure,delay -R hdrs -V id1 -oi -f me@example.org " + user,
			"From: me@example.org\nTo: x@example.net\nSubject: dsn\n\nx\n", 1,
			[]string{`(?m)^To: x@example\.net$`}, nil,
		},
		{
			"PHP", "-t -i",
			"To: " + user + "@localhost\r\nSubject: Password reset\r\nX-PHP-Originating-Script: 33:mail.php\r\nFrom: app@example.org\r\n\r\nclick\r\n.\r\nhere\r\n", 1,
			[]string{`(?m)^X-PHP-Originating-Script: 33:mail\.php$`, `\n\nclick\n\.\nhere\n$`}, []string{"\r"},
		},
		{
			"PHP with mixed line ends", "-t -i -fapp@example.org",
			"To: " + user + "@localhost\r\nSubject: mixed\r\nFrom: App <app@example.org>\n\r\nunix\nand not\r\n", 1,
			[]string{`(?m)^Return-Path: <app@example\.org>$`, `\n\nunix\nand not\n$`}, []string{"\r"},
		},
		{
			"Bcc and Cc", "-t",
			"From: a@example.org\nTo: " + user + "@localhost\nCc: " + user + "+cc@localhost\nBcc: " + user + "+one@localhost,\n\t" + user + "+two@localhost\nSubject: copies\n\nx\n", 4,
			[]string{`(?m)^Cc: ` + user + `\+cc@localhost$`, `(?m)^Subject: copies$`}, []string{`(?i)\nbcc:`, `\+two@localhost,?\n?.*\nSubject`},
		},
		{
			"-t and a recipient", "-t " + user + "+arg@localhost",
			"To: " + user + "@localhost\nSubject: both\n\nx\n", 2,
			[]string{`(?m)^Subject: both$`}, nil,
		},
		{
			"no header", "-F Full_Name -f robot@example.org " + user,
			"\njust text\n", 1,
			[]string{`(?m)^From: "?Full_Name"? <robot@example\.org>$`, `(?m)^Date: `, `(?m)^Message-ID: <\S+>$`, `\n\njust text\n$`}, nil,
		},
		{
			"empty", user, "", 1,
			[]string{`(?m)^From: `, `(?m)^Date: `, `(?m)^Message-ID: `}, nil,
		},
		{
			"no line end", "-f a@example.org " + user, "Subject: short\n\nno end", 1,
			[]string{`\n\nno end\n$`}, nil,
		},
		{
			"null sender", "-f <> " + user, "From: a@example.org\nSubject: bounce\n\nx\n", 1,
			[]string{`(?m)^Return-Path: <>$`}, nil,
		},
	} {
		out, errs, status := d.Run(tc.stdin, "sendmail", strings.Fields(tc.args)...)
		if status != 0 || out != "" || errs != "" {
			t.Errorf("%s: status %d, %s%s", tc.name, status, out, errs)
			continue
		}
		for _, text := range d.AwaitMail(tc.n) {
			for _, want := range tc.has {
				if !regexp.MustCompile(want).MatchString(text) {
					t.Errorf("%s: no %s in\n%s", tc.name, want, text)
				}
			}
			for _, bad := range tc.lacks {
				if regexp.MustCompile(bad).MatchString(text) {
					t.Errorf("%s: there is %q in\n%q", tc.name, bad, text)
				}
			}
		}
		// Until then the agent may be at work in the directory.
		d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
		if err := os.RemoveAll(d.Path("Maildir", "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(d.Path("Maildir", "new"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSendmailStatus(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic)
	user := me(t)
	for _, tc := range []struct {
		name, args, stdin string
		status            int
		says              string
		up                bool // the daemon runs
	}{
		{"no daemon", user, "Subject: x\n\nx\n", 75, "", false},
		{"nobody", "-i", "Subject: x\n\nx\n", 64, "no recipients", false},
		{"no such option", "-Z " + user, "", 64, "usage:", false},
		{"no recipient in the header", "-t", "Subject: x\n\nx\n", 64, "", true},
		{"unknown user", "nobodyhere@localhost", "Subject: x\n\nx\n", 67, "550 5.1.1", true},
		{"no relay", "a@example.net", "Subject: x\n\nx\n", 67, "550", true},
		{"verbose", "-v -f a@example.org " + user, "Subject: x\n\nx\n", 0, "RCPT TO:<" + user + "@", true},
	} {
		if tc.up && !d.Alive() {
			d.Start()
		}
		out, errs, status := d.Run(tc.stdin, "sendmail", strings.Fields(tc.args)...)
		if status != tc.status || !strings.Contains(out+errs, tc.says) || tc.status != 0 && errs == "" {
			t.Errorf("%s: status %d, want %d; %s%s", tc.name, status, tc.status, out, errs)
		}
	}
}
