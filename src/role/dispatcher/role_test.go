package dispatcher

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client speaks SMTP in lock step.
type client struct {
	t  *testing.T
	nc net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return talk(t, nc)
}

func talk(t *testing.T, nc net.Conn) *client {
	t.Cleanup(func() { nc.Close() })
	return &client{t, nc, bufio.NewReader(nc)}
}

// reply returns the last line of the next reply.
func (c *client) reply() string {
	c.t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("no reply: %q, %v", line, err)
		}
		if len(line) > 3 && line[3] == ' ' {
			return strings.TrimSpace(line)
		}
	}
}

// say sends a line and wants a reply that begins so.
func (c *client) say(line, want string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	c.want(want)
}

func (c *client) want(want string) {
	c.t.Helper()
	if got := c.reply(); !strings.HasPrefix(got, want) {
		c.t.Errorf("got %q, want %q", got, want)
	}
}

func (c *client) end() {
	c.t.Helper()
	if line, err := c.in.ReadString('\n'); err != io.EOF {
		c.t.Errorf("want the end, got %q, %v", line, err)
	}
}

func (c *client) message(to, body string) {
	c.t.Helper()
	c.say("MAIL FROM:<alice@example.org> RET=HDRS ENVID=e1", "250 2.0.0 Ok")
	c.say("RCPT TO:<"+to+"> NOTIFY=DELAY", "250 2.1.5")
	c.say("DATA", "354")
	c.say(body+"\r\n.", "250 2.0.0 ")
}

func TestMessage(t *testing.T) {
	r, at := newRig(t)
	c := dial(t, at)
	c.want("220 mx.example.com ESMTP OpenSMTPD")
	c.say("EHLO there.example.org", "250 HELP")
	c.say("MAIL FROM:<alice@example.org>", "250")
	c.say("RCPT TO:<nobody@example.com>", "550 Invalid recipient: <nobody@example.com>")
	c.say("RSET", "250")
	c.message("bob@example.com", "Subject: x\r\n\r\nhello")
	c.say("QUIT", "221")
	c.end()
	r.stop()

	if len(r.w.committed) != 1 || len(r.w.expanded) != 2 || len(r.w.discarded) != 1 {
		t.Fatalf("%d committed, %d expanded, %d discarded", len(r.w.committed), len(r.w.expanded), len(r.w.discarded))
	}
	got, e := r.w.committed[0], r.w.expanded[1]
	body := r.w.bodies[got.Message]
	if got.Envelopes != 1 || got.Streamed || got.Size != uint64(len(body)) || !strings.HasSuffix(body, "Subject: x\n\nhello\n") {
		t.Errorf("commit %+v of %q", got, body)
	}
	if e.Gen != 1 || e.Message != got.Message || e.First != 0 || e.Return != envelope.ReturnHeaders || e.EnvID != "e1" ||
		e.Notify != envelope.NotifyDelay || e.Sender.String() != "alice@example.org" || e.Rcpt.String() != "bob@example.com" ||
		e.Client.Listener != "a" || e.Client.Tag != "tag-a" || e.Client.Helo != "there.example.org" || e.Client.RDNS != "client.example.org" ||
		e.Client.Socket || e.Flags != 0 || !e.Client.Addr.Addr().IsLoopback() || !e.Now.Equal(r.clk.Now()) {
		t.Errorf("expand %+v", e)
	}
}

func TestLargeMessageIsStreamed(t *testing.T) {
	r, at := newRig(t)
	c := dial(t, at)
	c.want("220")
	c.say("HELO x", "250")
	line := strings.Repeat("y", 98) + "\r\n"
	c.message("bob@example.com", "Subject: x\r\n\r\n"+strings.Repeat(line, 3000))
	r.stop()
	m := r.w.committed[0]
	body := r.w.bodies[m.Message]
	if !m.Streamed || m.Size != uint64(len(body)) || strings.Count(body, "y\n") != 3000 {
		t.Errorf("streamed %v, size %d, got %d bytes", m.Streamed, m.Size, len(body))
	}
}

func TestCommitFails(t *testing.T) {
	r, at := newRig(t)
	r.w.full = mailerr.Temporary(451, 3, 0, "Temporary failure", io.ErrUnexpectedEOF)
	c := dial(t, at)
	c.want("220")
	c.say("HELO x", "250")
	c.say("MAIL FROM:<a@example.org>", "250")
	c.say("RCPT TO:<b@example.org>", "250")
	c.say("DATA", "354")
	c.say("Subject: x\r\n\r\n.", "451 4.3.0 Temporary failure")
	c.say("NOOP", "250")
	r.stop()
	if len(r.w.discarded) != 1 {
		t.Errorf("%d discarded", len(r.w.discarded))
	}
}

func TestIntake(t *testing.T) {
	r, at := newRig(t)
	c := dial(t, at)
	c.want("220")
	c.say("HELO x", "250")
	full := mailerr.Temporary(452, 3, 1, "Mail system full", nil)
	r.deliver(&request{from: proc.Queue, m: &msg.Intake{Err: full}})
	c.say("MAIL FROM:<a@example.org>", "452 4.3.1 Mail system full")
	r.deliver(&request{from: proc.Queue, m: &msg.Intake{Open: true}})
	c.say("MAIL FROM:<a@example.org>", "250")
}

func TestQueueGone(t *testing.T) {
	r, at := newRig(t, func(e *proc.Env) {
		e.Peers[proc.Queue].(*world).fail = mailerr.Temporary(451, 3, 0, "Temporary failure", nil)
	})
	c := dial(t, at)
	c.want("220")
	c.say("HELO x", "250")
	c.say("MAIL FROM:<a@example.org>", "451 4.3.0")
	r.w.mu.Lock()
	r.w.fail = nil
	r.w.mu.Unlock()
	c.say("MAIL FROM:<a@example.org>", "250")
}

// local begins a session of a user by the socket.
func (r *rig) local(t *testing.T, uid uint32) *client {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "client")
	nc, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	r.deliver(&request{from: proc.Control, m: &msg.LocalSession{UID: uid}, file: os.NewFile(uintptr(fds[1]), "server")})
	return talk(t, nc)
}

// TestLocalUserTakesAllSessions: a user of the socket gets no more places than an
// address, root does; and nobody gets one that is not there.
func TestLocalUserTakesAllSessions(t *testing.T) {
	r, _ := newRig(t)
	r.back.crowd.limit(2)
	one, two := r.local(t, 1234), r.local(t, 1234)
	one.want("220")
	two.want("220")
	r.local(t, 1234).want("421 4.7.0 Too many connections of your user")
	r.local(t, 1235).want("220")
	for range 3 {
		r.local(t, 0).want("220")
	}
	r.gate.limit(1)
	r.local(t, 0).want("421 4.3.2 System not accepting messages")
}

func TestLocalSession(t *testing.T) {
	r, _ := newRig(t)
	c := r.local(t, 1234)
	c.want("220 mx.example.com")
	c.say("EHLO localhost", "250 HELP")
	c.say("MAIL FROM:<root>", "250")
	c.say("RCPT TO:<bob>", "250")
	c.say("DATA", "354")
	c.say("To: bob\r\n\r\nhello\r\n.", "250")
	r.stop()
	e := r.w.expanded[0]
	if !e.Client.Socket || e.Client.UID != 1234 || e.Flags != envelope.Authenticated || e.Sender.String() != "root@mx.example.com" {
		t.Errorf("expand %+v", e)
	}
	body := r.w.bodies[r.w.committed[0].Message]
	for _, want := range []string{
		"Received: from localhost (mx.example.com [local])\n\tby mx.example.com (OpenSMTPD) with ESMTPA id ",
		"To: bob@mx.example.com\n", "Date: Wed, 4 Mar 2026 05:06:07 +0000 (UTC)\n", "Message-ID: <",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("message without %q:\n%s", want, body)
		}
	}
}

func TestPause(t *testing.T) {
	r, at := newRig(t)
	before := dial(t, at)
	before.want("220")
	if q := r.deliver(&request{from: proc.Control, m: &msg.Control{Verb: msg.VerbPauseSMTP}}); q.err != nil || q.reply == nil {
		t.Fatalf("pause: %v", q.err)
	}
	waiting := dial(t, at) // in the backlog
	before.say("NOOP", "250")
	if n := r.smtp.Len(); n != 1 {
		t.Errorf("%d sessions while paused", n)
	}
	r.deliver(&request{from: proc.Control, m: &msg.Control{Verb: msg.VerbResumeSMTP}})
	waiting.want("220")
	if q := r.deliver(&request{from: proc.Control, m: &msg.Control{Verb: "dance"}}); q.err == nil {
		t.Error("an unknown verb was accepted")
	}
}

func TestStartsPaused(t *testing.T) {
	r, at := newRig(t, func(e *proc.Env) { e.Paused = []string{"mda", "smtp"} })
	c := dial(t, at)
	r.deliver(&request{from: proc.Control, m: &msg.Control{Verb: msg.VerbResumeSMTP}})
	c.want("220")
}

func TestReload(t *testing.T) {
	r, a := newRig(t)
	old := dial(t, a)
	old.want("220 mx.example.com")
	old.say("HELO x", "250")

	next, at := generationOf(t, 2, "new.example.com", []string{"a", "b"}, "b")
	if err := r.Prepare(context.Background(), next); err != nil {
		t.Fatal(err)
	}
	between := dial(t, a)
	between.want("220 mx.example.com") // prepared is not in force
	r.Commit(2)
	kept, fresh := dial(t, a), dial(t, at["b"])
	kept.want("220 new.example.com")
	fresh.want("220 new.example.com")
	old.message("bob@example.com", "Subject: x\r\n\r\n")

	last, _ := generationOf(t, 3, "new.example.com", []string{"b"})
	if err := r.Prepare(context.Background(), last); err != nil {
		t.Fatal(err)
	}
	r.Commit(3)
	if nc, err := net.Dial("tcp", a); err == nil {
		nc.Close()
		t.Error("a listener that is gone still accepts")
	}
	dial(t, at["b"]).want("220")
	old.say("NOOP", "250")
	r.stop()
	if gen := r.w.expanded[0].Gen; gen != 1 {
		t.Errorf("the session's generation is %d", gen)
	}
}

func TestReloadRefused(t *testing.T) {
	r, at := newRig(t)
	missing, _ := generationOf(t, 2, "new.example.com", []string{"a", "b"})
	if err := r.Prepare(context.Background(), missing); err == nil {
		t.Error("a listener without a descriptor was prepared")
	}
	if err := r.Prepare(context.Background(), proc.Conf{Gen: 2, Projection: []byte("rubbish")}); err == nil {
		t.Error("rubbish was prepared")
	}
	good, _ := generationOf(t, 2, "new.example.com", []string{"a", "b"}, "b")
	if err := r.Prepare(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	r.Abort(2)
	r.Commit(2)
	dial(t, at).want("220 mx.example.com")
}

func TestStop(t *testing.T) {
	r, at := newRig(t)
	idle, busy := dial(t, at), dial(t, at)
	idle.want("220")
	busy.want("220")
	busy.say("HELO x", "250")
	busy.say("MAIL FROM:<a@example.org>", "250")
	busy.say("RCPT TO:<b@example.org>", "250")
	busy.say("DATA", "354")
	done := make(chan struct{})
	go func() { defer close(done); r.stop() }()
	idle.want("421 4.3.0")
	idle.end()
	// A message that is on its way is taken, as long as there is time.
	busy.say("Subject: x\r\n\r\nlast words\r\n.", "250 2.0.0")
	busy.want("421 4.3.0")
	busy.end()
	<-done
	if len(r.w.committed) != 1 {
		t.Errorf("%d messages", len(r.w.committed))
	}
}

func TestStopGraceEnds(t *testing.T) {
	r, at := newRig(t)
	stuck := dial(t, at)
	stuck.want("220")
	stuck.say("HELO x", "250")
	stuck.say("MAIL FROM:<a@example.org>", "250")
	stuck.say("RCPT TO:<b@example.org>", "250")
	stuck.say("DATA", "354")
	done := make(chan struct{})
	go func() { defer close(done); r.stop() }()
	r.clk.BlockUntil(3) // the sweep, the dates and the grace
	r.clk.Advance(r.env.Grace)
	stuck.want("421 4.3.0")
	<-done
	if len(r.w.discarded) != 1 {
		t.Errorf("%d discarded", len(r.w.discarded))
	}
}

func TestNameTakesTooLong(t *testing.T) {
	r, at := newRig(t, func(e *proc.Env) { e.Peers[proc.Lookup].(*world).silent = true })
	c := dial(t, at)
	r.clk.BlockUntil(3)
	r.clk.Advance(nameWait)
	c.want("220")
	if !strings.Contains(r.log.String(), "host=<unknown>") {
		t.Errorf("log:\n%v", r.log)
	}
}

func TestNamesAreRemembered(t *testing.T) {
	r, at := newRig(t)
	for range 3 {
		dial(t, at).want("220")
	}
	if r.w.asked != 1 {
		t.Errorf("asked %d times", r.w.asked)
	}
	r.clk.Advance(nameTime)
	dial(t, at).want("220")
	if r.w.asked != 2 {
		t.Errorf("asked %d times", r.w.asked)
	}
}

func TestTooManySessions(t *testing.T) {
	r, at := newRig(t)
	r.gate.mu.Lock()
	r.gate.max = 2
	r.gate.mu.Unlock()
	one, two := dial(t, at), dial(t, at)
	one.want("220")
	two.want("220")
	three := dial(t, at) // at most one more may have been on its way
	four := dial(t, at)
	r.log.Await("Client limit reached")
	one.say("QUIT", "221")
	two.say("QUIT", "221")
	three.want("220")
	four.want("220")
}

func TestCounters(t *testing.T) {
	r, at := newRig(t)
	c := dial(t, at)
	c.want("220")
	q := r.deliver(&request{from: proc.Control, m: &msg.Stats{}})
	got := make(map[string]int64)
	for _, n := range q.reply.(*msg.StatsReply).Counters {
		got[n.Name] = n.Up - n.Down
	}
	if got["smtp.session"] != 1 || got["smtp.session.inet4"] != 1 || got["smtp.session.local"] != 0 {
		t.Errorf("counters %v", got)
	}
}
