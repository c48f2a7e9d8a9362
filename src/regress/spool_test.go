package regress

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// held is Basic with deliveries paused from the start.
func held(t *testing.T) *daemon.Daemon {
	t.Helper()
	return daemon.New(t, daemon.Basic).Start("-P", "mda")
}

// TestForgedSpool fills what the queue reads at its start with random bytes: it
// is set aside and said, the rest of the mail lives.
func TestForgedSpool(t *testing.T) {
	t.Parallel()
	d := held(t)
	send(t, d, "before", me(t)+"@localhost")
	if st := d.Stop(); st != 0 {
		t.Fatalf("status %d", st)
	}
	forge := func(name string) {
		t.Helper()
		b := make([]byte, 3000)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(d.Path("spool", name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.Path("spool", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	forge("queue/12/12345678/message")
	forge("queue/12/12345678/1234567800000001")
	forge("queue/ab/abcdef01/abcdef0100000001") // without a message
	forge("queue/zz/not-a-message/file")
	forge("incoming/0badcafe/message")
	d.Start("-P", "mda")
	send(t, d, "after", me(t)+"@localhost")
	d.Await("both messages in the queue", func() bool { return strings.Count(d.Ctl("show", "queue"), "\n") >= 2 })
	d.Ctl("resume", "mda")
	d.AwaitMail(2)
	d.AwaitLog(`(?i)corrupt|set aside`)
}

// TestForgedJournal damages each file that the store itself keeps, in turn.
func TestForgedJournal(t *testing.T) {
	t.Parallel()
	d := held(t)
	send(t, d, "kept", me(t)+"@localhost")
	if st := d.Stop(); st != 0 {
		t.Fatalf("status %d", st)
	}
	var files []string
	err := filepath.WalkDir(d.Path("spool"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, p)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %d files in the spool", err, len(files))
	}
	for _, f := range files {
		old, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, max(len(old), 64))
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Logf("damaged %s", strings.TrimPrefix(f, d.Dir))
		d.Start()
		alive(t, d)
		if st := d.Stop(); st != 0 {
			t.Errorf("status %d", st)
		}
	}
}

// TestLoops sends what goes round for ever elsewhere.
func TestLoops(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	text := strings.Repeat("Received: from a by b; Mon, 23 Nov 2026 10:00:00 +0000\r\n", 101) + "Subject: round\r\n\r\n"
	err := c.Send("", []string{me(t) + "@localhost"}, text, false)
	if err == nil || !strings.Contains(err.Error(), "5.4.6") {
		t.Errorf("100 Received lines: %v", err)
	}
	c = d.Dial()
	text = "Delivered-To: " + me(t) + "@localhost\r\nSubject: again\r\n\r\n"
	if err := c.Send("", []string{me(t) + "@localhost"}, text, false); err == nil {
		d.AwaitLog(`result=PermFail stat=.*(?i)loop`)
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	if n := len(d.Mail(d.Path("Maildir"))); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestLoopsOfAliases expands what leads back to itself, and what nests too deep.
func TestLoopsOfAliases(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	deep := ""
	for i := range 20 {
		deep += fmt.Sprintf(", \"d%d@v.test\" = \"d%d@v.test\"", i, i+1)
	}
	d.Configure(`listen on 127.0.0.1 port $port
table v { "a@v.test" = "b@v.test", "b@v.test" = "a@v.test", "self@v.test" = "self@v.test"` + deep + ` }
action "v" maildir $box virtual <v>
match for domain "v.test" action "v"
`)
	d.Start()
	for _, rcpt := range []string{"a@v.test", "self@v.test", "d0@v.test"} {
		c := d.Dial()
		wants(t, c, "MAIL FROM:<joe@here.example>\r\n", "250")
		wants(t, c, "RCPT TO:<"+rcpt+">\r\n", "524 5.2.4")
		c.Close()
	}
}

// TestBounceToLocalSender: a failure is told to a local sender once, and to the
// null sender never.
func TestBounceToLocalSender(t *testing.T) {
	t.Parallel()
	user := me(t)
	d := daemon.New(t, "")
	d.Configure(`listen on 127.0.0.1 port $port
listen on socket
table bad { "nope@localhost" = ` + user + ` }
action "box" maildir $box
action "fail" mda "echo no such luck; exit 67" virtual <bad>
match for rcpt-to "nope@localhost" action "fail"
match for local action "box"
`)
	d.Start()
	c := d.Dial()
	if err := c.Send(user+"@localhost", []string{"nope@localhost"}, "Subject: lost cause\r\n\r\n", false); err != nil {
		t.Fatal(err)
	}
	for _, text := range d.AwaitMail(1) {
		for _, want := range []string{"Auto-Submitted: auto-replied", "no such luck", "nope@localhost", "Return-Path: <>", "message/delivery-status", "lost cause"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	if err := c.Send("", []string{"nope@localhost"}, "Subject: null sender\r\n\r\n", false); err != nil {
		t.Fatal(err)
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	d.AwaitMail(1)
}

// TestExpansionOf255Bytes puts the longest local part through the specifiers.
func TestExpansionOf255Bytes(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	long := strings.Repeat("a", 255)
	d.Configure(`listen on 127.0.0.1 port $port
table all { "@long.test" = ` + me(t) + ` }
action "long" mda "echo %{sender} %{rcpt} %{dest} %{rcpt.user} %{sender.user[0:200]} %{dest.user:lowercase|uppercase} %{user.directory} > ` + d.Path("out.tmp") + ` && cat > /dev/null && mv ` + d.Path("out.tmp") + ` ` + d.Path("out") + `" virtual <all>
match for domain "long.test" action "long"
`)
	d.Start()
	c := d.Dial()
	if err := c.Send(long+"@from.test", []string{long + "@long.test"}, "Subject: x\r\n\r\n", false); err != nil {
		if !strings.Contains(err.Error(), " 5") {
			t.Fatal(err)
		}
		return // refusing it is an answer too
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	if !d.Alive() {
		t.Error("the daemon has ended")
	}
}

// TestTakesOverOpenSMTPDSpool starts on a queue as OpenSMTPD 7 leaves it.
func TestTakesOverOpenSMTPDSpool(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic)
	dir := d.Path("spool/queue/5e/5eed0001")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	user := me(t)
	envelope := `version: 3
dispatcher: local
type: mda
smtpname: old.test
helo: client.test
hostname: client.test
sockaddr: 192.0.2.7
sender: someone@client.test
rcpt: ` + user + `@localhost
dest: ` + user + `@localhost
ctime: ` + "1795000000" + `
ttl: 345600000
mda-user: ` + user + `
`
	for name, text := range map[string]string{"message": "Subject: from the old queue\n\nhello\n", "5eed000100000001": envelope} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.Start()
	for _, text := range d.AwaitMail(1) {
		if !strings.Contains(text, "Subject: from the old queue") || !strings.Contains(text, "Return-Path: <someone@client.test>") {
			t.Errorf("arrived as\n%s", text)
		}
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}

// TestTakesOverSpoolOf63 starts on a queue as OpenSMTPD 6.3 left it, whose
// envelopes say how to deliver and name no action: the first that does the like
// does it.
func TestTakesOverSpoolOf63(t *testing.T) {
	t.Parallel()
	user := me(t)
	p := newPeer(t, nil)
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr))
	common := `version: 2
smtpname: old.test
helo: client.test
hostname: client.test
sockaddr: IPv6:2001:db8::7
sender: someone@client.test
ctime: 1795000000
ttl: 345600000
`
	for name, text := range map[string]string{
		"5eed0001/message": "Subject: for a mailbox\n\nhello\n",
		"5eed0001/5eed000100000001": common + "type: mda\nrcpt: " + user + "@localhost\ndest: " + user + "@localhost\n" +
			"mda-method: mbox\nmda-usertable: <getpwnam>\nmda-user: " + user + "\n",
		"5eed0002/message":          "Subject: for elsewhere\n\nhello\n",
		"5eed0002/5eed000200000001": common + "type: mta\nrcpt: a@far.example\ndest: a@far.example\nmta-relay-flags: tls\nmta-relay: mx.far.example\n",
	} {
		file := d.Path("spool/queue/5e", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.Start()
	d.AwaitLog(`envelope 5eed000100000001 names no action.*: taking "local"`)
	for _, text := range d.AwaitMail(1) {
		if !strings.Contains(text, "Subject: for a mailbox") {
			t.Errorf("arrived as\n%s", text)
		}
	}
	d.AwaitLog(`mta delivery evpid=5eed000200000001 .*to=<a@far.example> .*result="Ok"`)
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}
