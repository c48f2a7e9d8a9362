package regress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"opensmtpd/src/bench/sink"
	"opensmtpd/src/regress/daemon"
)

// relaying is a configuration that relays what is not local to $peer.
const relaying = daemon.Basic + `action "out" relay host smtp://%s
match from any for any action "out"
`

// takeAll starts a server that takes everything.
func takeAll(t *testing.T) (*sink.Sink, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := new(sink.Sink)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, l.Addr().String()
}

// peer is a server that says what a test wants to some commands.
type peer struct {
	addr string
	mu   sync.Mutex
	say  map[string]string // by verb; END is the end of the message
	mail []string
}

func newPeer(t *testing.T, say map[string]string) *peer {
	t.Helper()
	return newPeerAt(t, "127.0.0.1:0", say)
}

func newPeerAt(t *testing.T, addr string, say map[string]string) *peer {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: l.Addr().String(), say: say}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				p.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return p
}

func (p *peer) set(say map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say = say
}

func (p *peer) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.mail...)
}

func (p *peer) reply(w io.Writer, verb, normal string) bool {
	p.mu.Lock()
	if s, ok := p.say[verb]; ok {
		normal = s
	}
	p.mu.Unlock()
	_, err := io.WriteString(w, normal+"\r\n")
	return err == nil
}

func (p *peer) serve(c net.Conn) {
	r := bufio.NewReader(c)
	ok := p.reply(c, "BANNER", "220 peer.example ESMTP")
	for ok {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(strings.Fields(line + " ?")[0])
		switch verb {
		case "DATA":
			ok = p.reply(c, verb, "354 go on") && p.data(r) && p.reply(c, "END", "250 2.0.0 taken")
		case "EHLO":
			ok = p.reply(c, verb, "250-peer.example\r\n250 ENHANCEDSTATUSCODES")
		default:
			ok = p.reply(c, verb, "250 2.0.0 ok")
		}
	}
}

func (p *peer) data(r *bufio.Reader) bool {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			p.mu.Lock()
			p.mail = append(p.mail, b.String())
			p.mu.Unlock()
			return true
		}
		b.WriteString(line)
	}
}

func submit(t *testing.T, d *daemon.Daemon, from string, to ...string) {
	t.Helper()
	c := d.Dial()
	if err := c.Send(from, to, "Subject: out\r\n\r\nhello\r\n..begins with a dot\r\n", false); err != nil {
		t.Fatal(err)
	}
}

func TestRelayed(t *testing.T) {
	t.Parallel()
	s, addr := takeAll(t)
	d := daemon.New(t, fmt.Sprintf(relaying, addr)).Start()
	submit(t, d, "joe@here.example", "a@far.example", "b@far.example", "c@else.example")
	d.AwaitLog(`mta connecting address=smtp://127\.0\.0\.1:\d+ host=`)
	for _, to := range []string{"a@far", "b@far", "c@else"} {
		d.AwaitLog(`[0-9a-f]{16} mta delivery evpid=[0-9a-f]{16} from=<joe@here.example> to=<` + to +
			`.example> rcpt=<-> source="127.0.0.1" relay="127.0.0.1.*" delay=\w+ result="Ok" stat="250 2.0.0 gone"`)
	}
	// Three recipients of one message at one smarthost are one transaction.
	d.Await("one message", func() bool { return s.Messages.Load() == 1 })
	d.Await("statistics of the host", func() bool {
		out := d.Ctl("show", "hoststats")
		return strings.Contains(out, "far.example|") && strings.Contains(out, "250 2.0.0 gone")
	})
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}

func TestRelayTempFail(t *testing.T) {
	t.Parallel()
	p := newPeer(t, map[string]string{"RCPT": "451 4.7.1 try later"})
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr)).Start()
	submit(t, d, "joe@here.example", "a@far.example")
	d.AwaitLog(`to=<a@far.example> .*result="TempFail" stat="451 4.7.1 try later"`)
	d.Await("the envelope to wait", func() bool { return strings.Contains(d.Ctl("show", "queue"), "|pending|") })
	if q := d.Ctl("show", "queue"); !strings.Contains(q, "451 4.7.1 try later") {
		t.Errorf("queue: %s", q)
	}
	p.set(nil)
	d.Ctl("schedule", "all")
	d.AwaitLog(`to=<a@far.example> .*result="Ok" stat="250 2.0.0 taken"`)
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	m := p.got()
	if len(m) != 1 || !strings.Contains(m[0], "\r\n\r\nhello\r\n..begins with a dot\r\n") {
		t.Errorf("the peer got %q", m)
	}
}

// A permanent failure becomes a report to the sender, who is of this machine.
func TestRelayPermFail(t *testing.T) {
	t.Parallel()
	p := newPeer(t, map[string]string{"RCPT": "550-5.1.1 there is\r\n550 5.1.1 no such user"})
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr)).Start()
	me := me(t)
	submit(t, d, me+"@localhost", "nobody@far.example")
	d.AwaitLog(`to=<nobody@far.example> .*result="PermFail" stat="550 5.1.1 there is no such user"`)
	for _, text := range d.AwaitMail(1) {
		for _, want := range []string{"multipart/report", "nobody@far.example", "550 5.1.1 there is no such user", "Status: 5.1.1", "Subject: out"} {
			if !strings.Contains(text, want) {
				t.Errorf("the report lacks %q:\n%s", want, text)
			}
		}
	}
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
}

// Nobody listens: the route rests, until the administrator says otherwise.
func TestRelayDead(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, fmt.Sprintf(relaying, "127.0.0.1:"+daemon.FreePort(t))).Start()
	submit(t, d, "joe@here.example", "a@far.example")
	d.AwaitLog(`result="TempFail" stat="Network error on destination MXs \(Connection failed: connection refused\)"`)
	var out string
	d.Await("the route to rest", func() bool {
		out = d.Ctl("show", "routes")
		return strings.Contains(out, "<-> 127.0.0.1") && strings.Contains(out, "D-- nconn=0")
	})
	id, _, _ := strings.Cut(out, ".")
	d.Ctl("resume", "route", id)
	d.AwaitLog(`smtp-out: Enabling route .* per admin request`)
	d.Ctl("show", "relays")
	d.Ctl("show", "hosts")
}

func TestRelayPaused(t *testing.T) {
	t.Parallel()
	s, addr := takeAll(t)
	d := daemon.New(t, fmt.Sprintf(relaying, addr)).Start()
	d.Ctl("pause", "mta")
	submit(t, d, "joe@here.example", "a@far.example")
	if n := s.Messages.Load(); n != 0 {
		t.Errorf("%d messages while paused", n)
	}
	d.Ctl("resume", "mta")
	d.Await("the message", func() bool { return s.Messages.Load() == 1 })
}

// 100,000 envelopes for a host that does not answer cost dispatcher next to
// nothing, and do not hold back mail for one that does.
func TestRelayHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 100,000 recipients")
	}
	s, addr := takeAll(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in its backlog, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d := daemon.New(t, daemon.Basic+fmt.Sprintf(`action "live" relay host smtp://%s
action "dead" relay host smtp://%s
match from any for domain live.example action "live"
match from any for any action "dead"
`, addr, silent.Addr())).Start()
	submit(t, d, "joe@here.example", "a@live.example", "a@dead.example")
	d.Await("the live one", func() bool { return s.Messages.Load() == 1 })
	before := resident(t, d.Roles()["dispatcher"])
	to := make([]string, 1000)
	for i := range to {
		to[i] = "somebody" + strconv.Itoa(i) + "@dead.example"
	}
	for range 100 {
		submit(t, d, "joe@here.example", to...)
	}
	submit(t, d, "joe@here.example", "b@live.example")
	d.Await("mail for the live host", func() bool { return s.Messages.Load() == 2 })
	after := before
	if !daemon.Poll(t, func() bool { // what the sessions took is given back when they rest
		after = resident(t, d.Roles()["dispatcher"])
		return after <= before+8<<20
	}) {
		t.Errorf("dispatcher grew from %d to %d bytes", before, after)
	}
}

// resident is the memory that a process has of its own, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// The source address and the name that goes with it are those of the action; the
// sandbox lets dispatcher choose.
func TestRelaySource(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without being told")
	}
	t.Parallel()
	s, addr := takeAll(t)
	d := daemon.New(t, daemon.Basic+fmt.Sprintf(`table names { "127.0.0.2" = "out.here.example" }
action "out" relay host smtp://%s src 127.0.0.2 helo-src <names>
match from any for any action "out"
`, addr)).Start()
	submit(t, d, "joe@here.example", "a@far.example")
	d.AwaitLog(`to=<a@far.example> .* source="127.0.0.2" .*result="Ok"`)
	if s.Messages.Load() != 1 {
		t.Error("no message")
	}
	if out := d.Ctl("show", "relays"); !strings.Contains(out, "connector 127.0.0.2") && out != "" {
		t.Errorf("relays: %s", out)
	}
}

// A message too large to travel with its task arrives whole.
func TestRelayLarge(t *testing.T) {
	t.Parallel()
	p := newPeer(t, nil)
	d := daemon.New(t, fmt.Sprintf(relaying, p.addr)).Start()
	var b strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&b, "line %d of a message that has many\r\n", i)
	}
	c := d.Dial()
	if err := c.Send("joe@here.example", []string{"a@far.example"}, "Subject: large\r\n\r\n"+b.String(), false); err != nil {
		t.Fatal(err)
	}
	d.AwaitLog(`to=<a@far.example> .*result="Ok"`)
	if m := p.got(); len(m) != 1 || !strings.HasSuffix(m[0], "\r\n\r\n"+b.String()) {
		t.Errorf("%d messages, not the one that was sent", len(m))
	}
}

// Forwarded mail gets a sender of ours, and a bounce to that finds the real one.
func TestSRS(t *testing.T) {
	t.Parallel()
	p := newPeer(t, nil)
	d := daemon.New(t, daemon.Basic+fmt.Sprintf(`srs key "secret"
table away { "fwd@here.example" = "joe@new.example" }
action "away" maildir $box virtual <away>
action "out" relay host smtp://%s srs
match for domain "here.example" action "away"
match for any action "out"
`, p.addr)).Start()
	submit(t, d, "ann@far.example", "fwd@here.example")
	rewritten := d.AwaitLog(`from=<(SRS0=\S{4}=\S\S=far.example=ann@here.example)> to=<joe@new.example> rcpt=<fwd@here.example> .*result="Ok"`)[1]
	submit(t, d, "", rewritten)
	d.AwaitLog(`from=<> to=<ann@far.example> rcpt=<SRS0=\S+> .*result="Ok"`)
	submit(t, d, "ann@far.example", "direct@new.example")
	d.AwaitLog(`from=<ann@far.example> to=<direct@new.example> .*result="Ok"`)
	c := d.Dial()
	if err := c.Send("", []string{strings.Replace(rewritten, "ann", "eve", 1)}, "Subject: forged\r\n\r\n", false); err == nil || !strings.Contains(err.Error(), " 5") {
		t.Errorf("a forged one: %v", err)
	}
}
