package regress

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/regress/daemon"
)

// scripts are said to OpenSMTPD and to us, each in a session of its own. What
// stands behind "~" is sent as it is, without waiting for more than one reply.
var scripts = []string{
	"MAIL FROM:<a@b.test>|RCPT TO:<a@far.test>|DATA|NOOP|QUIT",
	"STARTTLS|AUTH PLAIN AGEAYg==|HELP|QUIT",
	"RSET|NOOP|QUIT",
	"VRFY a|NOOP|QUIT",
	"EXPN a|NOOP|QUIT",
	"UNKNOWN||NOOP|QUIT now|QUIT",
	"HELO|HELO -|EHLO|HELO x.test|MAIL FROM:<>|QUIT",
	"EHLO [192.0.2.1]|RSET|RSET now|HELP me|QUIT",
	"EHLO [IPv6:2001:db8::1]|NOOP|QUIT",
	"EHLO x.test|EHLO y.test|NOOP|QUIT",
	"EHLO x.test|RCPT TO:<a@far.test>|DATA|MAIL|QUIT",
	"EHLO x.test|AUTH PLAIN AGEAYg==|STARTTLS|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|MAIL FROM:<a@b.test>|DATA|RCPT TO:<a@far.test>|DATA now|RSET|DATA|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<>|RCPT TO:<a@far.test>|RCPT TO:<a@elsewhere.test>|RCPT TO:a@far.test|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<a@far.test> NOTIFY=NEVER|RCPT TO:<a@far.test> NOTIFY=FAILURE ORCPT=rfc822;a@b.test|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<a@far.test> X=1|QUIT",
	"EHLO x.test|mail from:<a@b.test>|rcpt to: <a@far.test>|rset|quit",
	"EHLO x.test|MAIL FROM: <a@b.test> SIZE=1000 BODY=8BITMIME|RSET|MAIL FROM:<> RET=HDRS ENVID=1 BODY=7BIT|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test> X=1|NOOP|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test> BODY=BINARYMIME|NOOP|QUIT",
	"EHLO x.test|MAIL FROM:<a b@c.test>|MAIL FROM:<a@-.test>|MAIL FROM:a@b.test|RSET|QUIT",
	"EHLO x.test|MAIL FROM:<@x.test:a@b.test>|RSET|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test> SMTPUTF8|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test> SIZE=99999999|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<a@far.test>|BDAT 0 LAST|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<a@far.test>|DATA|~Subject: x\r\n\r\n..\r\n.\r\n|DATA|MAIL FROM:<a@b.test>|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<a@far.test>|DATA|~" + strings.Repeat("Received: x\r\n", 101) + "\r\n.\r\n|NOOP|QUIT",
	"EHLO x.test|MAIL FROM:<a@b.test>|RCPT TO:<a@far.test>|DATA|~Subject: x\r\n\r\na\nb\r\n.\r\n|NOOP|QUIT",
	"EHLO x.test|~NOOP\r\nNOOP\r\n",
}

// differences are where we answer otherwise on purpose, by script and step (from
// 0), with words that smtpd(8) has for it under DEVIATIONS.
var differences = map[[2]int]struct{ theirs, ours, says string }{
	{2, 0}:  {"503 5.5.1", "250 2.0.0", "RSET is accepted before the"},
	{3, 0}:  {"500 5.5.1", "252 2.5.2", "VRFY is answered with 252"},
	{4, 0}:  {"500 5.5.1", "502 5.5.1", "EXPN with 502"},
	{7, 3}:  {"500 5.5.4", "214 2.0.0", "HELP may have an argument"},
	{9, 1}:  {"503 5.5.1", "250", "A second HELO or EHLO is accepted"},
	{13, 4}: {"550", "550 5.1.1", "whom no rule accepts with 550 5.1.1"},
	{14, 3}: {"553", "250 2.1.5", "What NOTIFY says of one recipient is not added"},
	{15, 2}: {"503", "555 5.5.4", "An unknown parameter of MAIL or RCPT is refused with 555 5.5.4"},
	{18, 1}: {"503 5.5.4", "555 5.5.4", "An unknown parameter of MAIL or RCPT is refused with 555 5.5.4"},
	{19, 1}: {"503 5.5.4", "555 5.5.4", "without BINARYMIME"},
	{22, 1}: {"503 5.5.4", "250 2.0.0", "SMTPUTF8 is offered"},
	{23, 1}: {"250 2.0.0", "552 5.3.4", "at MAIL that is above the limit is refused there"},
	{24, 3}: {"500 5.5.1", "250 2.0.0", "So are CHUNKING"},
	{27, 4}: {"250 2.0.0", "550 5.6.11", "A bare line feed or carriage return"},
	{28, 1}: {"500 5.5.1", "250 2.0.0", "PIPELINING is offered"},
}

const theirConf = `listen on 127.0.0.1 port %s hostname mx.test
action out relay host smtp://127.0.0.1:1
match from any for domain far.test action out
`

// TestDifferential compares the replies of Debian's OpenSMTPD (6.8 in Debian 12
// and 13) with ours, by code and enhanced code.
func TestDifferential(t *testing.T) {
	privileged(t)
	d := daemon.New(t, fmt.Sprintf(theirConf, "$port")).Start()
	theirs := debianOpenSMTPD(t, d)
	manual, err := os.ReadFile("../../man/smtpd.8")
	if err != nil {
		t.Fatal(err)
	}
	_, deviations, _ := strings.Cut(string(manual), ".Sh DEVIATIONS")
	met := 0
	for i, script := range scripts {
		steps := strings.Split(script, "|")
		its, our := replies(t, theirs, steps), replies(t, d.Addr, steps)
		for j := range steps {
			diff, listed := differences[[2]int{i, j}]
			switch {
			case !listed && its[j] != our[j]:
				t.Errorf("script %d, step %d, %.80q: OpenSMTPD %q, we %q", i, j, steps[j], its[j], our[j])
			case listed && (its[j] != diff.theirs || our[j] != diff.ours):
				t.Errorf("script %d, step %d, %.80q: OpenSMTPD %q, we %q; listed are %q and %q", i, j, steps[j], its[j], our[j], diff.theirs, diff.ours)
			case listed && !strings.Contains(deviations, diff.says):
				t.Errorf("smtpd(8) does not say %q", diff.says)
			case listed:
				met++
			}
		}
	}
	if met != len(differences) {
		t.Errorf("%d of %d differences were met", met, len(differences))
	}
}

// debianOpenSMTPD starts that server and returns where it listens.
func debianOpenSMTPD(t *testing.T, d *daemon.Daemon) string {
	t.Helper()
	root := debian(t, d.Path("debian"), "opensmtpd")
	port := freePort(t)
	conf := d.Path("their.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, theirConf, port), 0o644); err != nil {
		t.Fatal(err)
	}
	line := accountsOf("opensmtpd:7301", "opensmtpq:7302") + `
mount -t tmpfs tmpfs /var/spool
mkdir -p /var/lib/opensmtpd && mount -t tmpfs -o mode=755 tmpfs /var/lib/opensmtpd && mkdir /var/lib/opensmtpd/empty
echo mx.test >/etc/mailname
exec /usr/sbin/smtpd -d -f ` + conf
	foreign(t, d, root, line)
	n := neighbour{name: "OpenSMTPD", addr: "127.0.0.1:" + port}
	n.greets(t, d)
	return n.addr
}

var replyCode = regexp.MustCompile(`^\d{3}[ -](\d\.\d{1,3}\.\d{1,3} )?`)

// replies says the steps of a script and returns the codes of the replies;
// "closed" where there is none.
func replies(t *testing.T, addr string, steps []string) []string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, daemon.Wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(daemon.Wait)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	codes := []string{}
	for i := -1; i < len(steps); i++ {
		if i >= 0 {
			text, raw := strings.CutPrefix(steps[i], "~")
			if !raw {
				text += "\r\n"
			}
			_, _ = c.Write([]byte(text)) // what it hung up on is seen below
		}
		code := "closed"
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			if len(line) > 3 && line[3] == ' ' {
				code = strings.TrimSpace(replyCode.FindString(line))
				break
			}
		}
		if i >= 0 {
			codes = append(codes, code)
		}
	}
	return codes
}
