package regress

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/regress/daemon"
)

// What TestFilterBuiltin says in each phase after the first, a session from its
// greeting to its message; "helo" and "ehlo" are said by turns.
var builtinPhases = []string{"connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "commit"}

// builtinCase is a filter of TestFilterBuiltin, and what a session shows of it.
type builtinCase struct {
	phase, decision string
	arg             string
	reply           string // at the phase; "": that all is well
	ends            bool   // the session is over then
	marked          bool   // the message bears X-Spam
	has             string // the message has
}

func builtinCases() (list []builtinCase) {
	rewrites := map[string]builtinCase{
		"connect": {arg: "x"}, "data": {arg: "x"}, "commit": {arg: "x"}, "starttls": {arg: "x", reply: "501 5.5.4"},
		"helo": {arg: "rewritten.test", has: "Received: from rewritten.test ("}, "ehlo": {arg: "rewritten.test", has: "Received: from rewritten.test ("},
		"auth":      {arg: "PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00carol\x00other")), has: " user=carol"},
		"mail-from": {arg: "<rewritten@example.org>", has: "Return-Path: <rewritten@example.org>"},
		"rcpt-to":   {arg: "<nobody@nowhere.test>", reply: "550 5.1.1 Invalid recipient: <nobody@nowhere.test>"},
	}
	for _, p := range builtinPhases {
		list = append(list,
			builtinCase{phase: p, decision: "reject", arg: "550 5.7.1 no " + p, reply: "550 5.7.1 no " + p},
			builtinCase{phase: p, decision: "disconnect", arg: "554 5.7.1 bye " + p, reply: "554 5.7.1 bye " + p, ends: true},
			builtinCase{phase: p, decision: "report", arg: "seen " + p})
		if p != "commit" {
			list = append(list, builtinCase{phase: p, decision: "junk", marked: true}, builtinCase{phase: p, decision: "bypass"})
		}
		c := rewrites[p]
		c.phase, c.decision = p, "rewrite"
		list = append(list, c)
	}
	return list
}

// quickHash begins the hashes of bob's "secret" and carol's "other".
const quickHash = "$5$rounds=1000$filters$"

func (c *builtinCase) name() string { return c.phase + "-" + c.decision }

// TestFilterBuiltin: every decision in every phase. A filter knows its session by
// the name that the client gives, or, as long as there is none, by the listener.
func TestFilterBuiltin(t *testing.T) {
	t.Parallel()
	d := newTLS(t, "", "", "ecdsa:mail.example.org")
	script, heard := hearing(t, d.Daemon, "smtp-in")
	var conf strings.Builder
	fmt.Fprintf(&conf, "pki p cert %q key %q\ntable users { bob = %q, carol = %q }\nfilter hear proc-exec %q\n",
		d.Path("mail.example.org.crt"), d.Path("mail.example.org.key"), quickHash+"sPS6HaDIFbyw9/KLcpWPeJZpWL/MtQbVmCoD8Jn1mI2", quickHash+"t3BjsvZxvnyFrJ5ndfe.QGfx0NZf9B.8llAfjrF0YM8", script)
	cases := builtinCases()
	ports := make(map[string]string)
	chain := []string{}
	for i := range cases {
		c := &cases[i]
		when := fmt.Sprintf("helo { %q }", c.name()+".test")
		if c.phase == "connect" {
			when = "src { 127.0.0.0/8 }"
		}
		own := []string{c.name()}
		arg := ""
		if c.arg != "" {
			arg = fmt.Sprintf(" %q", c.arg)
		}
		fmt.Fprintf(&conf, "filter %s phase %s match %s %s%s\n", c.name(), c.phase, when, c.decision, arg)
		if c.decision == "bypass" {
			own = append(own, c.name()+"-not")
			fmt.Fprintf(&conf, "filter %s-not phase %s match %s reject \"550 not bypassed\"\n", c.name(), c.phase, when)
		}
		if c.phase != "connect" {
			chain = append(chain, own...)
			continue
		}
		ports[c.name()] = daemon.FreePort(t)
		fmt.Fprintf(&conf, "listen on 127.0.0.1 port %s tls pki p auth-optional <users> received-auth filter { %s, hear }\n", ports[c.name()], strings.Join(own, ", "))
	}
	fmt.Fprintf(&conf, "listen on 127.0.0.1 port $port tls pki p auth-optional <users> received-auth filter { %s, hear }\n", strings.Join(chain, ", "))
	conf.WriteString("action here maildir $box\nmatch from any for local action here\nmatch auth from any for local action here\n")
	d.Configure(conf.String())
	d.Start()
	kept := make(map[string]*builtinCase)
	for i := range cases {
		c := &cases[i]
		addr := d.Addr
		if port := ports[c.name()]; port != "" {
			addr = "127.0.0.1:" + port
		}
		s := &builtinSession{t: t, tls: d.ca.Client("mail.example.org"), c: c}
		if s.play(addr, me(t)) {
			kept[c.name()] = c
		}
	}
	for _, text := range d.AwaitMail(len(kept)) {
		_, subject, _ := strings.Cut(text, "\nSubject: ")
		name, _, _ := strings.Cut(subject, "\n")
		c := kept[name]
		if c == nil {
			t.Fatalf("delivered twice, or what nobody sent: %q", text)
		}
		delete(kept, name)
		if strings.Contains(text, "X-Spam: Yes\n") != c.marked || !strings.Contains(text, c.has) {
			t.Errorf("%s: delivered %q", name, text)
		}
	}
	for _, p := range builtinPhases {
		heard("|builtin|" + p + "-report|seen " + p + "\n")
	}
	if st := d.Stop(); st != 0 {
		t.Errorf("smtpd ended with status %d", st)
	}
}

// builtinSession plays a session in which one filter acts.
type builtinSession struct {
	t    *testing.T
	tls  *tls.Config
	c    *builtinCase
	nc   net.Conn
	in   *bufio.Reader
	over bool // it was ended, by a refusal
}

// play is true when the message was taken.
func (s *builtinSession) play(addr, rcpt string) bool {
	s.t.Helper()
	var err error
	if s.nc, err = net.DialTimeout("tcp", addr, daemon.Wait); err != nil {
		s.t.Fatal(err)
	}
	defer func() { s.nc.Close() }()
	if err := s.nc.SetDeadline(time.Now().Add(daemon.Wait)); err != nil {
		s.t.Fatal(err)
	}
	s.in = bufio.NewReader(s.nc)
	hello, phase := "EHLO ", "ehlo"
	if s.c.phase == "helo" {
		hello, phase = "HELO ", "helo"
	}
	name := s.c.name() + ".test"
	s.step("connect", "", "220")
	s.step(phase, hello+name, "250")
	if s.step("starttls", "STARTTLS", "220"); !s.over {
		nc := tls.Client(s.nc, s.tls)
		s.nc, s.in = nc, bufio.NewReader(nc)
		s.step(phase, hello+name, "250")
	}
	s.step("auth", "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00bob\x00secret")), "235")
	s.step("mail-from", "MAIL FROM:<eve@example.org>", "250")
	s.step("rcpt-to", "RCPT TO:<"+rcpt+">", "250")
	s.step("data", "DATA", "354")
	s.step("commit", "Subject: "+s.c.name()+"\r\n\r\nhello\r\n.", "250")
	return !s.over
}

// step says a line of a phase and holds the reply against what it should be.
func (s *builtinSession) step(phase, line, well string) {
	s.t.Helper()
	if s.over {
		return
	}
	if line != "" {
		fmt.Fprint(s.nc, line+"\r\n")
	}
	want := well
	if phase == s.c.phase && s.c.reply != "" {
		want, s.over = s.c.reply, true
	}
	if got := s.reply(); !strings.HasPrefix(got, want) {
		s.t.Errorf("%s: %q is answered %q, want %q", s.c.name(), line, got, want)
		s.over = true
		return
	}
	if !s.over {
		return
	}
	want = "221" // who was only refused can go on
	if s.c.ends {
		want = ""
	}
	fmt.Fprint(s.nc, "QUIT\r\n")
	if got := s.reply(); !strings.HasPrefix(got, want) || got != "" && s.c.ends {
		s.t.Errorf("%s: the session is told %q then, want %q", s.c.name(), got, want)
	}
}

// reply returns the last line of a reply, "" when the server has closed.
func (s *builtinSession) reply() string {
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			if line != "" || err != io.EOF && !strings.Contains(err.Error(), "reset") {
				s.t.Errorf("%s: %q, %v", s.c.name(), line, err)
			}
			return ""
		}
		if len(line) > 3 && line[3] == ' ' {
			return strings.TrimSpace(line)
		}
	}
}
