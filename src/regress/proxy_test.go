package regress

import (
	"bufio"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/regress/daemon"
)

// fromProxy is the header of a proxy that took a connection of 198.51.100.7 to
// 192.0.2.1.
const fromProxy = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\xc0\x00\x02\x01\x30\x39\x00\x19"

// behindProxy is Basic with a listener for a proxy, at 127.0.0.2 and 127.0.0.3.
const behindProxy = `table names { 192.0.2.1 = outer.example.org, 127.0.0.3 = inner.example.org }
table friends { 198.51.100.7 }
listen on 127.0.0.1 port $port
listen on 127.0.0.2 port $port proxy-v2 hostnames <names>
listen on 127.0.0.3 port $port hostnames <names>
action "local" maildir $box
match from src <friends> for local action "local"
match from local for local action "local"
`

// doors runs a daemon with listeners on several addresses of loopback, which
// Linux has without being asked.
func doors(t *testing.T) *daemon.Daemon {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs 127.0.0.2, which Linux alone has by itself")
	}
	return daemon.New(t, behindProxy).Start()
}

// raw connects to a door, sends what is given and returns all that comes until
// the server closes.
func raw(t *testing.T, d *daemon.Daemon, host, text string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", net.JoinHostPort(host, d.Port()), daemon.Wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(daemon.Wait)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil && !isReset(err) {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil && !strings.Contains(err.Error(), "not connected") {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil && !isReset(err) {
		t.Fatalf("not closed: %v after %q", err, all)
	}
	return string(all)
}

// TestPROXYv2Spoofing: who comes past the proxy, or with a header that is none,
// gets nothing, and the daemon lives.
func TestPROXYv2Spoofing(t *testing.T) {
	t.Parallel()
	d := doors(t)
	session := "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<" + me(t) + "@localhost>\r\nQUIT\r\n"
	for name, header := range map[string]string{
		"no header":     "",
		"version 1":     "PROXY TCP4 198.51.100.7 192.0.2.1 12345 25\r\n",
		"oversize":      fromProxy[:14] + "\xff\xff" + strings.Repeat("\x00", 70000),
		"no address":    fromProxy[:14] + "\x00\x00",
		"half of it":    fromProxy[:14] + "\x00\x06" + fromProxy[16:22],
		"unix":          fromProxy[:13] + "\x31\x00\xd8" + strings.Repeat("/", 216),
		"no family":     fromProxy[:13] + "\x00\x00\x00",
		"odd transport": fromProxy[:13] + "\x13" + fromProxy[14:],
		"version 3":     fromProxy[:12] + "\x31" + fromProxy[13:],
		"garbage":       strings.Repeat("\x00\xff", 40),
	} {
		if got := raw(t, d, "127.0.0.2", header+session); got != "" {
			t.Errorf("%s: answered %q", name, got)
		}
	}
	for n := range len(fromProxy) {
		if got := raw(t, d, "127.0.0.2", fromProxy[:n]); got != "" {
			t.Errorf("%d bytes of a header: answered %q", n, got)
		}
	}
	// A listener without proxy-v2 takes nobody's word.
	if got := raw(t, d, "127.0.0.1", fromProxy+session); strings.Contains(got, "198.51.100.7") || strings.Contains(got, "\n250") {
		t.Errorf("a header that was not asked for: %q", got)
	}
	alive(t, d)
}

// TestProxiedClient: the address in the header is the client's in rules, replies,
// the message and the log; nothing that came with the header is lost.
func TestProxiedClient(t *testing.T) {
	t.Parallel()
	d := doors(t)
	message := "EHLO there\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<" + me(t) + "@localhost>\r\nDATA\r\nSubject: proxied\r\n\r\nx\r\n.\r\nQUIT\r\n"
	got := raw(t, d, "127.0.0.2", fromProxy+message)
	for _, want := range []string{"220 outer.example.org ESMTP", "250-outer.example.org Hello there [198.51.100.7]", "Message accepted"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	for _, text := range d.AwaitMail(1) {
		if text = strings.ReplaceAll(text, "\r", ""); !strings.Contains(text, "[198.51.100.7])\n\tby outer.example.org (OpenSMTPD) with ESMTP id ") {
			t.Errorf("message:\n%s", text)
		}
	}
	d.AwaitLog(`smtp connected address=198\.51\.100\.7 host=`)
	stranger := strings.Replace(fromProxy, "\x64\x07", "\x64\x08", 1)
	if got := raw(t, d, "127.0.0.2", stranger+message); !strings.Contains(got, "550 5.1.1 Invalid recipient") {
		t.Errorf("another client may send too: %q", got)
	}
	local := fromProxy[:12] + "\x20\x00\x00\x00"
	if got := raw(t, d, "127.0.0.2", local+"HELO there\r\nQUIT\r\n"); !strings.Contains(got, "Hello there [127.0.0.1]") {
		t.Errorf("a LOCAL header: %q", got)
	}
}

// TestHostnames: a listener greets by the address that was connected to.
func TestHostnames(t *testing.T) {
	t.Parallel()
	d := doors(t)
	for host, want := range map[string]string{"127.0.0.3": "220 inner.example.org ESMTP OpenSMTPD\r\n"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, d.Port()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if line, err := bufio.NewReader(c).ReadString('\n'); line != want {
			t.Errorf("%s greets %q, %v", host, line, err)
		}
	}
}

// TestRootHostnamesOfAllAddresses: on 0.0.0.0 the connection tells which it was.
func TestRootHostnamesOfAllAddresses(t *testing.T) {
	privileged(t)
	clearSpool(t)
	conf := strings.Replace(behindProxy, "listen on 127.0.0.2 port $port proxy-v2", "listen on 0.0.0.0 port 2026", 1)
	d := daemon.NewRoot(t, strings.Replace(conf, "maildir $box", "maildir", 1)).Start()
	for host, want := range map[string]string{"127.0.0.3": "220 inner.example.org ", "127.0.0.4": "220 "} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, "2026"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) || strings.Contains(line, "inner") != strings.Contains(want, "inner") {
			t.Errorf("%s greets %q, %v", host, line, err)
		}
	}
	if st := d.Stop(); st != 0 {
		t.Errorf("smtpd ended with status %d", st)
	}
}
