package regress

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/regress/daemon"
)

// scripts are said to OpenSMTPD and to us, each in a session of its own, in clear
// and in TLS. What stands behind "~" is sent as it is, without waiting for more
// than one reply.
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

// theirConf has a listener without TLS, one with STARTTLS and one of SMTPS.
const theirConf = `pki mx.test cert "%s" key "%s"
listen on 127.0.0.1 port %s hostname mx.test
listen on 127.0.0.1 port %s hostname mx.test tls pki mx.test
listen on 127.0.0.1 port %s hostname mx.test smtps pki mx.test
action out relay host smtp://127.0.0.1:1
match from any for domain far.test action out
`

// TestDifferential compares the replies of Debian's OpenSMTPD (6.8 in Debian 12
// and 13) with ours, by code and enhanced code.
func TestDifferential(t *testing.T) {
	privileged(t)
	d := daemon.New(t, "")
	cert, key := d.Path("mx.crt"), d.Path("mx.key")
	certPEM, keyPEM := pkitest.New(t).Issue(pkitest.RSA, "mx.test")
	for name, text := range map[string][]byte{cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ourDoors := [3]string{d.Port(), daemon.FreePort(t), daemon.FreePort(t)}
	d.Configure(fmt.Sprintf(theirConf, cert, key, ourDoors[0], ourDoors[1], ourDoors[2]))
	d.Start()
	theirDoors := debianOpenSMTPD(t, d, cert, key)
	manual, err := os.ReadFile("../../man/smtpd.8")
	if err != nil {
		t.Fatal(err)
	}
	_, deviations, _ := strings.Cut(string(manual), ".Sh DEVIATIONS")
	for mode, enter := range [3]func(*testing.T, string) net.Conn{inClear, inSTARTTLS, inSMTPS} {
		t.Run([3]string{"clear", "STARTTLS", "SMTPS"}[mode], func(t *testing.T) {
			its := func() net.Conn { return enter(t, theirDoors[mode]) }
			if replies(its(), []string{"NOOP"})[0] == "closed" {
				// So it is with OpenSSL 3.0.22; it has one list of commands for both.
				t.Log("that OpenSMTPD makes no handshake: what it says in clear is the measure")
				its = func() net.Conn { return inClear(t, theirDoors[0]) }
			}
			met := 0
			for i, script := range scripts {
				steps := strings.Split(script, "|")
				its, our := replies(its(), steps), replies(enter(t, ourDoors[mode]), steps)
				met += compare(t, i, steps, its, our, deviations)
			}
			if met != len(differences) {
				t.Errorf("%d of %d differences were met", met, len(differences))
			}
		})
	}
	t.Run("before STARTTLS", func(t *testing.T) {
		for _, script := range []string{
			"STARTTLS|QUIT", "EHLO x.test|STARTTLS now|NOOP|STARTTLS", "HELO x.test|STARTTLS",
			"EHLO x.test|MAIL FROM:<a@b.test>|STARTTLS|RSET|STARTTLS",
		} {
			steps := strings.Split(script, "|")
			its, our := replies(inClear(t, theirDoors[1]), steps), replies(inClear(t, ourDoors[1]), steps)
			compare(t, -1, steps, its, our, deviations)
		}
	})
}

// compare holds what both have answered to the steps of script i against each
// other, and returns how many of the listed differences there were.
func compare(t *testing.T, i int, steps, its, our []string, deviations string) (met int) {
	t.Helper()
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
	return met
}

// inClear begins a session, to where commands are awaited; inSTARTTLS and inSMTPS
// do so in TLS.
func inClear(t *testing.T, port string) net.Conn {
	t.Helper()
	nc := connected(t, port)
	greeted(t, nc)
	return nc
}

func inSMTPS(t *testing.T, port string) net.Conn {
	t.Helper()
	nc := tls.Client(connected(t, port), &tls.Config{InsecureSkipVerify: true})
	if nc.Handshake() == nil {
		greeted(t, nc)
	}
	return nc
}

func inSTARTTLS(t *testing.T, port string) net.Conn {
	t.Helper()
	nc := inClear(t, port)
	if got := replies(nc, []string{"EHLO x.test", "STARTTLS"}); got[1] != "220 2.0.0" {
		t.Fatalf("STARTTLS: %q", got)
	}
	return tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
}

func connected(t *testing.T, port string) net.Conn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", "127.0.0.1:"+port, daemon.Wait)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(daemon.Wait)); err != nil {
		t.Fatal(err)
	}
	return nc
}

func greeted(t *testing.T, nc net.Conn) {
	t.Helper()
	if got := reply(t, nc); !strings.HasPrefix(got, "220 ") {
		t.Fatalf("greeting %q", got)
	}
}

// debianOpenSMTPD starts that server and returns the ports of theirConf.
func debianOpenSMTPD(t *testing.T, d *daemon.Daemon, cert, key string) [3]string {
	t.Helper()
	root := debian(t, d.Path("debian"), "opensmtpd")
	doors := [3]string{daemon.FreePort(t), daemon.FreePort(t), daemon.FreePort(t)}
	conf := d.Path("their.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, theirConf, cert, key, doors[0], doors[1], doors[2]), 0o644); err != nil {
		t.Fatal(err)
	}
	line := accountsOf("opensmtpd:7301", "opensmtpq:7302") + `
mount -t tmpfs tmpfs /var/spool
mkdir -p /var/lib/opensmtpd && mount -t tmpfs -o mode=755 tmpfs /var/lib/opensmtpd && mkdir /var/lib/opensmtpd/empty
echo mx.test >/etc/mailname
exec /usr/sbin/smtpd -d -f ` + conf
	foreign(t, d, root, line)
	n := neighbour{name: "OpenSMTPD", addr: "127.0.0.1:" + doors[0]}
	n.greets(t, d)
	return doors
}

var replyCode = regexp.MustCompile(`^\d{3}[ -](\d\.\d{1,3}\.\d{1,3} )?`)

// replies says the steps of a script and returns the codes of the replies; "closed"
// where there is none.
func replies(nc net.Conn, steps []string) []string {
	in := bufio.NewReader(nc)
	codes := []string{}
	for _, step := range steps {
		text, raw := strings.CutPrefix(step, "~")
		if !raw {
			text += "\r\n"
		}
		_, _ = nc.Write([]byte(text)) // what it hung up on is seen below
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
		codes = append(codes, code)
	}
	return codes
}
