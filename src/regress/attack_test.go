package regress

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// say sends a line as it is and returns the reply.
func say(t testing.TB, c *load.Conn, line string) string {
	t.Helper()
	if _, err := c.Write([]byte(line)); err != nil {
		t.Fatalf("%.60q: %v", line, err)
	}
	return reply(t, c)
}

// wants fails unless the reply begins with want.
func wants(t testing.TB, c *load.Conn, line, want string) {
	t.Helper()
	if got := say(t, c, line); !strings.HasPrefix(got, want) {
		t.Errorf("%.80q was answered %q, want %s", line, got, want)
	}
}

// alive shows that the daemon still takes and delivers mail.
func alive(t testing.TB, d *daemon.Daemon) {
	t.Helper()
	send(t, d, "still alive", me(t)+"@localhost")
	d.Await("proof of life", func() bool {
		for _, text := range d.Mail(d.Path("Maildir")) {
			if strings.Contains(text, "Subject: still alive") {
				return true
			}
		}
		return false
	})
}

func TestCVE_2020_7247(t *testing.T) {
	t.Parallel()
	proof := filepath.Join(t.TempDir(), "proof")
	d := daemon.New(t, "listen on 127.0.0.1 port $port\naction \"local\" mda \"cat >/dev/null; true %{sender}\"\nmatch for local action \"local\"\n").Start()
	c := d.Dial()
	wants(t, c, "MAIL FROM:<;touch "+proof+";>\r\n", "553")
	wants(t, c, "MAIL FROM:<;touch${IFS}"+proof+";>\r\n", "553")
	for b := range 256 {
		if b == '\r' || b == '\n' {
			continue
		}
		if got := say(t, c, "MAIL FROM:<"+string([]byte{'x', byte(b)})+">\r\n"); strings.HasPrefix(got, "250") {
			if got := say(t, c, "RSET\r\n"); !strings.HasPrefix(got, "250") {
				t.Fatalf("RSET: %s", got)
			}
			t.Errorf("a bare local part with byte %#x was accepted as a sender", b)
			continue
		}
		if b%4 == 3 { // before errors slow the session down
			c.Close()
			c = d.Dial()
		}
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("a sender's command was executed")
	}
}

func TestShellCharactersInSender(t *testing.T) {
	t.Parallel()
	proof := filepath.Join(t.TempDir(), "p")
	for _, command := range []string{"cat >/dev/null; echo %{sender:raw}", "cat >/dev/null; echo $SENDER", "cat >/dev/null; sh -c 'true %{sender:raw}'", "cat >/dev/null; eval echo %{rcpt:raw}"} {
		d := daemon.New(t, "listen on 127.0.0.1 port $port\naction \"local\" mda \""+command+"\"\nmatch for local action \"local\"\n").Start()
		c := d.Dial()
		for _, sender := range []string{"`touch${IFS}" + proof + "`@x.test", "$(touch${IFS}" + proof + ")@x.test"} {
			// Refusing the address is as good as delivering it unharmed.
			if err := c.Send(sender, []string{me(t) + "@localhost"}, "x\r\n", false); err != nil {
				if err := c.Reset(); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
		if _, err := os.Stat(proof); err == nil {
			t.Fatalf("%s: a sender's command was executed", command)
		}
	}
}

func TestCVE_2023_51764_Smuggling(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	second := "MAIL FROM:<evil@example.org>\r\nRCPT TO:<" + me(t) + "@localhost>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
	for _, end := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n",
		"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\n\r.\n\r", "\r\n.\t\r\n", "\r\n. \r\n",
	} {
		c := d.Dial()
		wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
		wants(t, c, "RCPT TO:<"+me(t)+"@localhost>\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		if _, err := io.WriteString(c, "Subject: outer\r\n\r\nx"+end+second+"QUIT\r\n"); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		// Behind the reply may come that to QUIT, or the connection ends.
		if strings.Count(strings.TrimSuffix(string(got), "221 2.0.0 Bye\r\n"), "\n") != 1 || err != nil {
			t.Errorf("%q: not one reply to one message: %q, %v", end, got, err)
		}
		c.Close()
	}
	alive(t, d)
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	for _, text := range d.Mail(d.Path("Maildir")) {
		if head, _, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n"); strings.Contains(head, "Subject: smuggled") {
			t.Errorf("a smuggled message arrived:\n%s", text)
		}
	}
}

func TestBareLineFeedRefused(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	for _, body := range []string{"a\nb\r\n", "a\rb\r\n", "a\r\rb\r\n"} {
		c := d.Dial()
		wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
		wants(t, c, "RCPT TO:<"+me(t)+"@localhost>\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		wants(t, c, body+".\r\n", "550 5.6.11")
		wants(t, c, "NOOP\r\n", "250")
	}
	alive(t, d)
}

func TestErrata2019_08_LongLines(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	wants(t, c, strings.Repeat("x", 65000)+"\r\n", "500 5.5.2")
	wants(t, c, "NOOP\r\n", "250")
	wants(t, c, "NOOP "+strings.Repeat("y", 5000)+"\r\n", "500 5.5.2")
	wants(t, c, "NOOP\r\n", "250")

	before := rss(t, d.Roles()["dispatcher"])
	flood := d.Dial()
	chunk := bytes.Repeat([]byte{'z'}, 1<<20)
	for range 100 {
		if _, err := flood.Write(chunk); err != nil {
			break // refused and closed is an answer too
		}
	}
	holds(t, d, "dispatcher", before+16<<10)
	alive(t, d)
}

// holds fails unless a process has no more than so many resident KiB, as soon as
// it has given back what it needed for a moment.
func holds(t testing.TB, d *daemon.Daemon, role string, most int) {
	t.Helper()
	now := 0
	if !daemon.Poll(t, func() bool { now = rss(t, d.Roles()[role]); return now <= most }) {
		t.Errorf("%s has grown to %d KiB, more than %d", role, now, most)
	}
}

// rss returns the resident KiB of a process.
func rss(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb int
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb
}

func TestMessageOfTheLimit(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "smtp max-message-size 200000\n"+daemon.Basic).Start()
	line := strings.Repeat("m", 98) + "\r\n"
	c := d.Dial()
	if err := c.Send("a@example.org", []string{me(t) + "@localhost"}, "Subject: fits\r\n\r\n"+strings.Repeat(line, 1900), false); err != nil {
		t.Errorf("below the limit: %v", err)
	}
	wants(t, c, "MAIL FROM:<a@example.org> SIZE=200001\r\n", "552 5.3.4")
	err := c.Send("a@example.org", []string{me(t) + "@localhost"}, "Subject: does not\r\n\r\n"+strings.Repeat(line, 2100), false)
	if err == nil || !strings.Contains(err.Error(), "552 5.3.4") {
		t.Errorf("over the limit: %v", err)
	}
	alive(t, d)
}

func TestCrossProtocolHTTPClosed(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	for _, first := range []string{"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@example.org>\r\n", "GET / HTTP/1.0\r\n\r\n"} {
		c, err := load.Dial(t.Context(), d.Addr, daemon.Wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(first)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(daemon.Wait)); err != nil {
			t.Fatal(err)
		}
		var all bytes.Buffer
		if _, err := all.ReadFrom(c.Conn); err != nil && !isReset(err) {
			t.Fatalf("not closed: %v after %q", err, all.String())
		}
		if strings.Contains(all.String(), "250") {
			t.Errorf("HTTP was answered %q", all.String())
		}
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset") }

func TestOpenRelayTricks(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	for i, rcpt := range []string{
		"<a@far.test>", "<a%far.test@localhost>", "<@localhost:a@far.test>", "<\"a@far.test\"@localhost>", "<a@far.test@localhost>",
		"<a@localhost@far.test>", "<far.test!a@localhost>", "<far.test!a>", "<a@[127.0.0.1]>", "<a@[10.0.0.1]>", "<@far.test>", "<a%far.test>",
		"<\"a%far.test\">", "<\"a%far.test\"@localhost>", "<a@far.test.>", "<a@localhost.far.test>", "<@localhost,@far.test:a@x.test>",
		"<\"a@far.test\">", "<localhost!a@far.test>", "<a@\xff.test>",
	} {
		if i%8 == 7 { // the limit of errors is another test's
			c.Close()
			c = d.Dial()
		}
		wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
		if got := say(t, c, "RCPT TO:"+rcpt+"\r\n"); strings.HasPrefix(got, "2") {
			t.Errorf("RCPT TO:%s was answered %q", rcpt, got)
		}
		wants(t, c, "RSET\r\n", "250")
	}
}

func TestCVE_2025_62875_ControlSocket(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	before := rss(t, d.Roles()["control"])
	for i := range 200 {
		c, err := net.Dial("unix", d.Path("smtpd.sock"))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // a frame that announces more than it may
			binary.LittleEndian.PutUint32(b, 1<<31)
		}
		_, _ = c.Write(b[:1+i*20])
		c.Close()
	}
	d.Ctl("show", "stats")
	holds(t, d, "control", before+8<<10)
	alive(t, d)
}

func TestDisconnectAnywhere(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	script := "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<" + me(t) + "@localhost>\r\nDATA\r\nSubject: cut\r\n\r\nbody\r\n.\r\n"
	acked := 0
	for at := range len(script) + 1 {
		c, err := load.Dial(t.Context(), d.Addr, daemon.Wait)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(script[:at])); err != nil {
			t.Fatal(err)
		}
		if at == len(script) {
			for range 5 { // EHLO, MAIL, RCPT, DATA, end
				reply(t, c)
			}
			acked++
		}
		c.Close()
	}
	d.AwaitMail(acked)
	alive(t, d)
	// The mailbox has the mail a moment before queue has the result.
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}

func TestDripAndNeverRead(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	// One who never reads what he asks for must not hold up the others.
	deaf, err := load.Dial(t.Context(), d.Addr, daemon.Wait)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = deaf.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for {
			if _, err := deaf.Write(bytes.Repeat([]byte("HELP\r\n"), 1000)); err != nil {
				return
			}
		}
	})
	drip := d.Dial()
	for _, b := range []byte("MAIL FROM:<a@example.org>\r\n") {
		if _, err := drip.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got := reply(t, drip); !strings.HasPrefix(got, "250") {
		t.Errorf("dripped MAIL: %s", got)
	}
	alive(t, d)
	wg.Wait()
}

func TestHeaderInjection(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	for _, helo := range []string{"EHLO a\rX-Evil: yes\r\n", "EHLO a X-Evil:\tyes\r\n", "EHLO \x00\x1b[31m\r\n", "EHLO a)\x0b(b\r\n"} {
		say(t, c, helo)
		if err := c.Send("a@example.org", []string{me(t) + "@localhost"}, "Subject: i\r\n\r\n", false); err != nil {
			continue
		}
	}
	c.Close()
	alive(t, d)
	for _, text := range d.Mail(d.Path("Maildir")) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "X-Evil") {
				t.Errorf("a header was injected:\n%s", text)
			}
		}
	}
	if strings.ContainsAny(d.Log(), "\x00\x1b\r") {
		t.Errorf("control characters reached the log: %q", d.Log())
	}
}
