package server

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/pki"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/smtp"
)

// A dialogue file is a conversation, line by line:
//
//	# a comment
//	set max-rcpt 3        a setting of the listener, before anything else
//	-> text               the client sends the line, ended by CR LF
//	=> "a\nb"             the client sends exactly that Go string
//	<- pattern            the server's next line; * stands for anything
//	<= pattern            all that is left of its reply, the last line being that
//	<.                    the server closes
//	ehlo AUTH             the client says EHLO; the word begins a line of the reply
//	ehlo !AUTH            or no line of it
//	repeat 5 -> text      sends (or expects) so many times
//	advance 1s 2          once so many waits are pending, time passes
//	long 5000             the client sends a NOOP of so many bytes with its end
//	text 5000             a line of so many bytes without its end
//	flood 5000            so many bytes and no end
//	tls                   the client makes a TLS handshake
//	close                 the client closes
//	over                  the client closes, and the session is over
//	accepted 1            so many messages have been accepted in all
//	body "text"           is part of the last one
//	tls-optional true     whether that one need not be protected
//	log pattern           is a line of the log
//	secret text           is in no line of the log
//	verified 3            so many passwords have been verified in all
//	plain "\x00u\x00p"     sends AUTH PLAIN with that Go string in base64
//	b64 "u"               sends a line that is that Go string in base64
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &dialogue{t: t, rig: newRig(t)}
			for i, line := range strings.Split(string(text), "\n") {
				d.where = fmt.Sprintf("%s:%d", file, i+1)
				d.step(line)
			}
		})
	}
}

type dialogue struct {
	t     *testing.T
	rig   *rig
	where string
	conn  net.Conn
	in    *bufio.Reader
	ca    *pkitest.Authority
}

func (d *dialogue) authority() *pkitest.Authority {
	if d.ca == nil {
		d.ca = pkitest.New(d.t)
	}
	return d.ca
}

// handshake goes on in TLS.
func (d *dialogue) handshake() {
	nc := tls.Client(d.client(), d.authority().Client(d.rig.ln.Hostname))
	if err := nc.Handshake(); err != nil {
		d.fatalf("handshake: %v", err)
	}
	d.conn, d.in = nc, bufio.NewReader(nc)
}

func (d *dialogue) fatalf(format string, args ...any) {
	d.t.Helper()
	d.t.Fatalf("%s: %s\nlog:\n%v", d.where, fmt.Sprintf(format, args...), d.rig.log)
}

// step does one line of the file.
func (d *dialogue) step(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "", "#":
	case "set":
		d.set(arg)
	case "->":
		d.send(arg + "\r\n")
	case "=>":
		d.send(d.unquote(arg))
	case "<-":
		d.expect(arg)
	case "<=":
		d.expectLast(arg)
	case "<.":
		d.expectEnd()
	case "repeat":
		count, what, _ := strings.Cut(arg, " ")
		for range d.number(count) {
			d.step(what)
		}
	case "advance":
		span, waits, _ := strings.Cut(arg, " ")
		by, err := time.ParseDuration(span)
		if err != nil {
			d.fatalf("%v", err)
		}
		d.rig.clk.BlockUntil(d.number(waits))
		d.rig.clk.Advance(by)
	case "long":
		d.send("NOOP " + strings.Repeat("x", d.number(arg)-7) + "\r\n")
	case "text":
		d.send("X:" + strings.Repeat("x", d.number(arg)-2) + "\r\n")
	case "flood":
		d.send(strings.Repeat("x", d.number(arg)))
	case "tls":
		d.handshake()
	case "close":
		d.client().Close()
	case "accepted":
		if got := len(d.rig.mem.accepted()); got != d.number(arg) {
			d.fatalf("%d messages accepted, want %s", got, arg)
		}
	case "body":
		d.body(d.unquote(arg))
	case "tls-optional":
		all := d.rig.mem.accepted()
		if got := fmt.Sprint(all[len(all)-1].optional); got != arg {
			d.fatalf("%s, want %s", got, arg)
		}
	case "log":
		d.logged(arg)
	case "secret":
		if strings.Contains(d.rig.log.String(), arg) {
			d.fatalf("%q is in the log", arg)
		}
	case "verified":
		d.rig.mem.mu.Lock()
		got := len(d.rig.mem.asked)
		d.rig.mem.mu.Unlock()
		if got != d.number(arg) {
			d.fatalf("%d passwords verified, want %s", got, arg)
		}
	case "ehlo":
		d.ehlo(arg)
	case "plain", "b64":
		d.sasl(verb, arg)
	case "over":
		d.client().Close()
		<-d.rig.mem.done
	default:
		d.fatalf("unknown step %q", verb)
	}
}

func (d *dialogue) set(arg string) {
	key, value, _ := strings.Cut(arg, " ")
	ln := d.rig.ln
	switch key {
	case "max-rcpt":
		ln.Settings.MaxRcpt = d.number(value)
	case "max-mails":
		ln.Settings.MaxMails = d.number(value)
	case "max-message-size":
		ln.Settings.MaxSize = int64(d.number(value))
	case "socket":
		ln.Socket, ln.Submission = true, true
	case "submission":
		ln.Submission = true
	case "auth":
		ln.Auth, ln.AuthClear = AuthRequire, value != "tls"
	case "auth-optional":
		ln.Auth, ln.AuthClear = AuthOptional, value != "tls"
	case "senders":
		ln.Senders, ln.Masquerade = "senders", value == "masquerade"
	case "received-auth":
		ln.ReceivedAuth = true
	case "scram":
		ln.AuthTable = "users"
		d.rig.mem.proof = func(first, challenge, final string) Proof {
			return Proof{Malformed: first == "what?", OK: challenge == "who?" && final == "me", User: first, Text: map[string]string{"": "who?"}[final] + map[string]string{"me": "I know"}[final]}
		}
	case "no-verdict":
		d.rig.mem.broken = true
	case "trace":
		d.rig.trace.Store(true)
	case "mask-src":
		ln.MaskSource = true
	case "tls": // starttls, require or smtps
		s := pki.Server{Chains: []*pki.Chain{d.authority().Chain(pkitest.ECDSA, ln.Hostname)}, Ask: d.ca.Sign}
		cfg, err := s.Config(d.t.Context())
		if err != nil {
			d.fatalf("%v", err)
		}
		ln.TLS = &TLS{Config: cfg, Require: value == "require", Immediate: value == "smtps"}
	case "refuse": // every client, when it connects
		no, _ := smtp.ParseReply(value)
		ln.Filter = &scripted{verdicts: map[string]Verdict{"1 192.0.2.7": {Action: Reject, Reply: no}}}
	case "proxy-v2":
		ln.Proxy = true
	case "hostnames":
		ln.Hostnames = value
	case "no-dsn":
		ln.NoDSN = true
	case "address":
		d.rig.local = netip.AddrPortFrom(netip.MustParseAddr(value), 25)
	case "rdns":
		d.rig.mem.name = Name{Host: value}
	default:
		d.fatalf("unknown setting %q", key)
	}
}

// client connects at the first use.
func (d *dialogue) client() net.Conn {
	if d.conn == nil {
		d.conn = d.rig.dial(d.t)
		d.in = bufio.NewReader(d.conn)
	}
	return d.conn
}

func (d *dialogue) send(s string) {
	// The server may have hung up already; what it said is checked later.
	_, _ = io.WriteString(d.client(), s)
}

func (d *dialogue) expect(pattern string) {
	d.client()
	line, err := d.in.ReadString('\n')
	if err != nil {
		d.fatalf("want %q, got %q and %v", pattern, line, err)
	}
	text, ended := strings.CutSuffix(line, "\r\n")
	if !ended || !addr.Glob(pattern, text) {
		d.fatalf("got %q, want %q", line, pattern)
	}
}

func (d *dialogue) expectLast(pattern string) {
	d.client()
	line, err := d.in.ReadString('\n')
	for err == nil && len(line) > 3 && line[3] == '-' {
		line, err = d.in.ReadString('\n')
	}
	if err != nil || !addr.Glob(pattern, strings.TrimSuffix(line, "\r\n")) {
		d.fatalf("got %q and %v, want %q at last", line, err, pattern)
	}
}

func (d *dialogue) expectEnd() {
	d.client()
	if line, err := d.in.ReadString('\n'); err != io.EOF {
		d.fatalf("want the end, got %q and %v", line, err)
	}
}

// sasl sends Go strings in base64: "plain" as the initial response of PLAIN,
// "b64" as a line.
func (d *dialogue) sasl(verb, arg string) {
	line := base64.StdEncoding.EncodeToString([]byte(d.unquote(arg)))
	if verb == "plain" {
		line = "AUTH PLAIN " + line
	}
	d.send(line + "\r\n")
}

// ehlo reads the reply to EHLO whole, whatever extensions there are.
func (d *dialogue) ehlo(word string) {
	d.send("EHLO client.example.org\r\n")
	word, not := strings.CutPrefix(word, "!")
	found := false
	for {
		line, err := d.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "250") {
			d.fatalf("EHLO: %q, %v", line, err)
		}
		found = found || strings.HasPrefix(line[4:], word)
		if line[3] == ' ' {
			break
		}
	}
	if word != "" && found == not {
		d.fatalf("EHLO: %q found: %v", word, found)
	}
}

func (d *dialogue) body(want string) {
	all := d.rig.mem.accepted()
	if len(all) == 0 {
		d.fatalf("no message")
	}
	if got := all[len(all)-1].body.String(); !strings.Contains(got, want) {
		d.fatalf("message is\n%q\nwithout\n%q", got, want)
	}
}

func (d *dialogue) logged(pattern string) {
	for _, line := range strings.Split(d.rig.log.String(), "\n") {
		if addr.Glob(pattern, line) {
			return
		}
	}
	d.fatalf("no line of the log is %q", pattern)
}

func (d *dialogue) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		d.fatalf("%v", err)
	}
	return n
}

func (d *dialogue) unquote(s string) string {
	u, err := strconv.Unquote(s)
	if err != nil {
		d.fatalf("%s: %v", s, err)
	}
	return u
}
