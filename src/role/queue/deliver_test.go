package queue

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

func hold(*mda.Delivery) mda.Result { return mda.Result{Stat: holdIt} }

func TestDelivered(t *testing.T) {
	d := run(t, options{})
	id := d.submit(plain, func(e *envelope.Envelope) { e.Dest.Local = "other" })
	seen := map[string]string{}
	for range 2 {
		c := d.agents.next()
		if c.Gen != 1 || c.Size != int64(len(text)) {
			t.Errorf("delivery %+v", c)
		}
		seen[c.Envelope.MDAUser] = string(c.Body)
	}
	if len(seen) != 2 || seen["user0"] != text || seen["user1"] != text {
		t.Errorf("delivered %q", seen)
	}
	line := d.log.Await(mail.EnvelopeAt(id, 1).String())
	want := fmt.Sprintf("mda delivery evpid=%v from=<sender@example.org> to=<other@example.org> rcpt=<user1@example.org> user=user1 delay=0s result=Ok stat=Delivered", mail.EnvelopeAt(id, 1))
	if !strings.HasSuffix(line, want) {
		t.Errorf("logged %q, want … %q", line, want)
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
	if v := d.count.ok.Value(); v != 2 || d.count.envelopes.Value() != 0 || d.count.inflight.Value() != 0 {
		t.Errorf("counted %d ok, %d in the queue, %d in flight", v, d.count.envelopes.Value(), d.count.inflight.Value())
	}
}

func TestLargeBody(t *testing.T) {
	d := run(t, options{agent: hold})
	piece := strings.Repeat("0123456789abcde\n", 4096)
	id := d.reserveOne()
	env(0)(d, id)
	for range 5 {
		chunk(piece)(d, id)
	}
	if err := streamed(1)(d, id).committed(); err != nil {
		t.Fatal(err)
	}
	<-d.agents.came
	held := <-d.agents.held
	got := make([]byte, held.Size)
	if _, err := held.Reader.ReadAt(got, 0); err != nil || string(got) != strings.Repeat(piece, 5) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	held.Done(delivered)
	if _, err := held.Reader.ReadAt(got, 0); err != io.ErrClosedPipe {
		t.Errorf("read after the end: %v", err)
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

// Bodies that wait for an agent do not fill the memory.
func TestPinnedIsBounded(t *testing.T) {
	d := run(t, options{agent: hold})
	d.mu.Lock()
	d.pinned = maxPinned
	d.mu.Unlock()
	d.submit(plain)
	c := d.agents.next()
	held := <-d.agents.held
	if held.Body != nil || string(c.Body) != text {
		t.Errorf("body %q, read %q", held.Body, c.Body)
	}
	held.Done(delivered)
	d.idle()
	if d.pinned != maxPinned {
		t.Errorf("pinned %d", d.pinned)
	}
}

func TestTemporaryFailure(t *testing.T) {
	fail := true
	d := run(t, options{agent: func(*mda.Delivery) mda.Result {
		if fail {
			return tempFail("disk\r\nfull\x00")
		}
		return delivered
	}})
	id := d.submit(plain)
	e0 := mail.EnvelopeAt(id, 0)
	d.agents.next()
	d.updates(1)
	d.live()
	e, err := d.store.Envelope(e0)
	if err != nil || e.Retry != 1 || e.ErrorLine != "disk  full" || e.ESCClass != 4 || e.ESCCode != 30 || !e.LastTry.Equal(start) {
		t.Errorf("envelope %+v, %v", e, err)
	}
	if i, _ := d.info(e0); !i.When.Equal(start.Add(10 * time.Second)) {
		t.Errorf("next try at %v", i.When)
	}
	fail = false
	d.clock.Advance(10 * time.Second)
	d.agents.next()
	d.idle()
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
	if !strings.Contains(d.log.Await("TempFail"), "result=TempFail stat=Error (disk") {
		t.Error("the failure is not in the log")
	}
}

func TestRestart(t *testing.T) {
	d := run(t, options{agent: func(*mda.Delivery) mda.Result { return tempFail("later") }})
	id := d.submit(plain, plain)
	d.agents.next()
	d.agents.next()
	d.updates(2)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = d.crash(disk.Lose, options{agent: hold})
	for n := range uint32(2) {
		i, ok := d.info(mail.EnvelopeAt(id, n))
		if !ok || i.Retry != 1 || !i.When.Equal(start.Add(10*time.Second)) {
			t.Errorf("envelope %d: %+v, %v", n, i, ok)
		}
	}
	d.clock.Advance(10 * time.Second)
	if c := d.agents.next(); string(c.Body) != text {
		t.Errorf("body %q", c.Body)
	}
}

// What was acknowledged survives a crash, and is delivered, perhaps again.
func TestCrashWhileDelivering(t *testing.T) {
	d := run(t, options{agent: hold})
	id := d.submit(plain)
	d.agents.next()
	d = d.crash(disk.Lose, options{})
	if c := d.agents.next(); c.Envelope.ID != mail.EnvelopeAt(id, 0) {
		t.Errorf("delivered %v", c.Envelope.ID)
	}
}

func TestExpire(t *testing.T) {
	for name, e := range map[string]func(*envelope.Envelope){
		"tells the sender": func(e *envelope.Envelope) { e.TTL = time.Minute },
		"no sender":        func(e *envelope.Envelope) { e.TTL = time.Minute; e.Sender = addr.Address{} },
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, options{agent: func(m *mda.Delivery) mda.Result {
				if m.Envelope.MDAUser == "sender" {
					return delivered
				}
				return tempFail("full")
			}})
			d.submit(e)
			d.agents.next()
			for n := range int64(3) { // tries at 10 s and 40 s, expiry at 60 s
				d.updates(n + 1)
				d.live()
				d.mu.Lock()
				at, ok := d.rq.Wake()
				d.mu.Unlock()
				if !ok {
					t.Fatal("nothing to wait for")
				}
				d.clock.Advance(at - d.clock.Mono())
				if d.clock.Now().Sub(start) < time.Minute {
					d.agents.next()
				}
			}
			line := d.log.Await("Expire")
			if !strings.HasPrefix(line, "delivery: Expire for ") || !strings.HasSuffix(line, "stat=Envelope expired") {
				t.Errorf("logged %q", line)
			}
			if name == "tells the sender" {
				c := d.agents.next()
				if !strings.Contains(string(c.Body), "Envelope expired, the last failure was: full") ||
					!strings.Contains(string(c.Body), "Status: 5.4.7") {
					t.Errorf("report:\n%s", c.Body)
				}
			}
			d.idle()
			if ids := d.live(); len(ids) != 0 || len(d.agents.came) != 0 {
				t.Errorf("left: %v", ids)
			}
		})
	}
}

// FIELD-NOTES 14 (O#793): removed while in flight, over a crash too.
func TestRemoveInFlight(t *testing.T) {
	d := run(t, options{agent: hold})
	d.submit(plain)
	d.agents.next()
	d.ask(msg.VerbRemove, "all")
	d.live()
	if ids := d.crash(disk.Lose, options{}).live(); len(ids) != 0 {
		t.Errorf("after a crash: %v", ids)
	}
	for name, res := range map[string]mda.Result{"delivered": delivered, "failed": tempFail("x"), "refused": permFail("x")} {
		t.Run(name, func(t *testing.T) {
			d := run(t, options{agent: hold})
			id := d.submit(plain)
			d.agents.next()
			if got := d.ask("remove", fmt.Sprint(id)); got.Count != 1 {
				t.Fatalf("%d removed", got.Count)
			}
			d.log.Await("delivery: Remove for")
			if ids := d.live(); len(ids) != 0 {
				t.Errorf("not durably: %v", ids)
			}
			(<-d.agents.held).Done(res)
			d.idle()
			if ids := d.live(); len(ids) != 0 || d.count.envelopes.Value() != 0 {
				t.Errorf("left: %v, counted %d", ids, d.count.envelopes.Value())
			}
			if len(d.lookup.asked) != 0 {
				t.Error("a report was made")
			}
		})
	}
}

// ask sends a request of an operator.
func (d *daemon) ask(v msg.Verb, args ...string) *msg.ControlRows {
	d.t.Helper()
	rows, err := d.askAs(&msg.Control{Verb: v, Operator: true, Args: args})
	if err != nil {
		d.t.Fatal(err)
	}
	return rows
}

func (d *daemon) askAs(c *msg.Control) (*msg.ControlRows, *mailerr.Error) {
	q := d.send(c)
	select {
	case m := <-q.reply:
		return m.(*msg.ControlRows), nil
	case err := <-q.fail:
		return nil, err
	}
}

// A user whose deliveries hang does not hold back another's mail.
func TestOneUserHangs(t *testing.T) {
	d := run(t, options{agent: func(m *mda.Delivery) mda.Result {
		if m.Envelope.MDAUser == "slow" {
			return mda.Result{Stat: holdIt}
		}
		return delivered
	}})
	for range 60 {
		d.submit(func(e *envelope.Envelope) { e.MDAUser = "slow" })
	}
	for range 50 {
		d.agents.next()
	}
	d.submit(plain)
	if c := d.agents.next(); c.Envelope.MDAUser != "user0" {
		t.Errorf("delivered for %s", c.Envelope.MDAUser)
	}
	if n := len(d.agents.held); n != 50 {
		t.Errorf("%d are with the agents, want hiwat", n)
	}
}

// Stop: what runs may finish within the grace, the rest is tried after the next
// start as if it had not begun.
func TestStop(t *testing.T) {
	t.Run("finishes", func(t *testing.T) {
		d := run(t, options{agent: hold, grace: time.Minute})
		d.submit(plain)
		d.agents.next()
		held := <-d.agents.held
		d.cancel()
		held.Done(delivered)
		if err := <-d.ended; err != nil {
			t.Fatal(err)
		}
		d.ended = nil
		if again := reopen(t, d.disk); len(again) != 0 {
			t.Errorf("left: %v", again)
		}
	})
	t.Run("is put off", func(t *testing.T) {
		d := run(t, options{agent: hold})
		d.submit(plain)
		d.agents.next()
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		next := d.crash(disk.Lose, options{})
		if c := next.agents.next(); c.Envelope.Retry != 0 || c.Envelope.ErrorLine != "" {
			t.Errorf("it counts as tried: %+v", c.Envelope)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		d := run(t, options{})
		id := d.reserveOne()
		q := commitOf(1)(d, id) // waits for its envelope
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		for _, q := range []*request{q, commitOf(1)(d, id)} {
			if err := q.committed(); err == nil || err.Code != 451 {
				t.Errorf("answer %v", err)
			}
		}
		if m := d.send(&msg.ReserveIDs{N: 1}); len(m.fail) != 1 {
			t.Error("identifiers are still given")
		}
	})
}

func reopen(t *testing.T, fs *disk.Sim) []mail.EnvelopeID {
	t.Helper()
	s, err := store.Open(t.Context(), fs.Reboot(disk.Lose), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return stored(s)
}

func TestPausedAtStart(t *testing.T) {
	d := run(t, options{paused: []string{"mda", "mta"}})
	d.submit(plain)
	d.clock.Advance(time.Hour)
	d.ask(msg.VerbResumeMDA)
	if c := d.agents.next(); c.Envelope.MDAUser != "user0" {
		t.Errorf("delivered for %s", c.Envelope.MDAUser)
	}
	if len(d.agents.came) != 0 {
		t.Error("delivered before")
	}
}

func TestReload(t *testing.T) {
	d := run(t, options{agent: hold})
	if err := d.Prepare(t.Context(), proc.Conf{Gen: 2, Projection: []byte("{}")}); err == nil {
		t.Error("took a projection that is none")
	}
	conf := func(c *project.QueueConf) { c.MDA.TaskHiwat, c.MDA.MaxSession = 1, 3 }
	for gen := mail.Gen(2); gen <= 3; gen++ {
		if err := d.Prepare(t.Context(), proc.Conf{Gen: gen, Projection: projection(conf)}); err != nil {
			t.Fatal(err)
		}
	}
	d.Abort(2)
	d.Commit(2) // of what was aborted nothing is left
	d.submit(plain)
	if c := d.agents.next(); c.Gen != 1 {
		t.Errorf("generation %d", c.Gen)
	}
	d.Commit(3)
	for range 3 {
		d.submit(func(e *envelope.Envelope) { e.MDAUser = "x" })
	}
	if c := d.agents.next(); c.Gen != 3 {
		t.Errorf("generation %d", c.Gen)
	}
	d.until(func() bool { return d.rq.Counts().Inflight[envelope.MDA] == 2 })
	if n := len(d.agents.came); n != 0 || d.agents.limits.MaxSession != 3 {
		t.Errorf("%d more were started, limits %+v", n, d.agents.limits)
	}
}

func TestNoProjection(t *testing.T) {
	if _, err := New(proc.Env{Conf: proc.Conf{Projection: []byte("x")}}, Options{}); err == nil {
		t.Error("started without a configuration")
	}
}

func TestNoSpool(t *testing.T) {
	d := prepare(t, options{})
	d.Role.disk = func() (disk.FS, error) { return nil, io.ErrUnexpectedEOF }
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "spool") {
		t.Errorf("Run: %v", err)
	}
}

func TestErrorLine(t *testing.T) {
	for in, want := range map[string]string{
		"550 5.1.1 no":                      "550 5.1.1 no",
		"a\r\nsender: x@y\n\x00":            "a  sender: x@y",
		"\xff\xfe":                          "?",
		strings.Repeat("é", maxErrorLine):   strings.Repeat("é", maxErrorLine/2),
		strings.Repeat("x", 2*maxErrorLine): strings.Repeat("x", maxErrorLine),
	} {
		if got := errorLine(in); got != want {
			t.Errorf("errorLine(%.20q) = %.20q (%d bytes)", in, got, len(got))
		}
	}
}

// fakeRelayer answers at once with what a test says.
type fakeRelayer struct {
	noRelayer
	answer Relayed
	came   chan string
}

func (f *fakeRelayer) Relay(w *Relaying) {
	f.came <- string(w.Body)
	w.Done(f.answer)
}

func remote(e *envelope.Envelope) {
	e.Type, e.Dest, e.MDAUser = envelope.MTA, addr.Cut("x@remote.example"), ""
}

func TestRelay(t *testing.T) {
	f := &fakeRelayer{came: make(chan string, 100)}
	d := run(t, options{relayer: f})
	d.submit(remote)
	if got := <-f.came; got != text {
		t.Errorf("relayed %q", got)
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
	f.answer = Relayed{Err: mailerr.Temporary(450, 4, 1, "No route", nil), Unreachable: true}
	id := d.submit(remote)
	<-f.came
	d.updates(1)
	d.live()
	e, err := d.store.Envelope(mail.EnvelopeAt(id, 0))
	if err != nil || e.ErrorLine != "450 4.4.1 No route" || e.ESCCode != 41 {
		t.Errorf("envelope %+v, %v", e, err)
	}
	if i, _ := d.info(e.ID); !i.When.Equal(start.Add(400 * time.Second)) {
		t.Errorf("next try at %v", i.When)
	}
}
