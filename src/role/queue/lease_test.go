package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

// to is an envelope for an address elsewhere.
func to(address string) func(*envelope.Envelope) {
	return func(e *envelope.Envelope) {
		e.Type, e.Action, e.Dest, e.Rcpt, e.MDAUser = envelope.MTA, "out", addr.Cut(address), addr.Cut(address), ""
	}
}

func leasing(t *testing.T, change func(*project.QueueConf)) *daemon {
	return run(t, options{leases: true, conf: func(c *project.QueueConf) {
		c.MTAMaxDeferred = 100
		c.Actions = append(c.Actions, project.QueueAction{Name: "out", Method: conf.Relay, TTL: 4 * 24 * time.Hour})
		if change != nil {
			change(c)
		}
	}})
}

// answer sends a result for every envelope of a task.
func (d *daemon) answer(task *msg.RelayTask, unreachable bool, outcomes ...msg.RelayOutcome) {
	d.t.Helper()
	m := &msg.RelayResult{Task: task.Task, Unreachable: unreachable}
	for i := range task.Envelopes {
		o := outcomes[min(i, len(outcomes)-1)]
		o.Envelope = task.Envelopes[i].ID
		m.Results = append(m.Results, o)
	}
	d.send(m)
}

var (
	tookIt = msg.RelayOutcome{Line: "250 ok"}                                                                   // never written
	later  = msg.RelayOutcome{Err: mailerr.Temporary(451, 7, 1, "later", nil), Line: "451 4.7.1 later\r\nx: y"} // never written
	never  = msg.RelayOutcome{Err: mailerr.Permanent(550, 1, 1, "nobody", nil), Line: "550 nobody"}             // never written
	dead   = msg.RelayOutcome{Err: mailerr.Temporary(451, 4, 1, "dead", nil), Line: "dead"}                     // never written
)

// Envelopes of one message for one domain are one task; each result counts for
// its own.
func TestLease(t *testing.T) {
	d := leasing(t, nil)
	id := d.submit(to("a@far.example"), to("b@FAR.example"), to("c@far.example"), to("d@else.example"))
	first, second := <-d.disp.tasks, <-d.disp.tasks
	if len(first.Envelopes) < len(second.Envelopes) {
		first, second = second, first
	}
	if len(first.Envelopes) != 3 || len(second.Envelopes) != 1 || !first.Inline || string(first.Body) != text || first.Gen != 1 {
		t.Fatalf("%+v, %+v", first, second)
	}
	q := d.send(&msg.RelayBody{Task: first.Task, Offset: 5})
	if got := (<-q.reply).(*msg.RelayBodyReply); string(got.Data) != text[5:] {
		t.Errorf("body %q", got.Data)
	}
	d.send(&msg.RelayTaken{Task: first.Task})
	d.answer(second, false, tookIt)
	d.answer(first, false, tookIt, later, never)
	d.send(&msg.RelayResult{Task: first.Task}) // again: nothing
	d.send(&msg.RelayTaken{Task: 99})
	d.idle()
	if got := d.live(); !slices.Contains(got, first.Envelopes[1].ID) || slices.Contains(got, first.Envelopes[0].ID) || slices.Contains(got, second.Envelopes[0].ID) {
		t.Errorf("left of %v: %v", id, got)
	}
	e, err := d.store.Envelope(first.Envelopes[1].ID)
	if err != nil || e.ErrorLine != "451 4.7.1 later  x: y" || e.ESCClass != 4 || e.ESCCode != 71 || e.Retry != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	q = d.send(&msg.RelayBody{Task: first.Task})
	if err := <-q.fail; err == nil {
		t.Error("a task that has ended still gives its body")
	}
}

// However quick the sender of tasks is: what becomes due at once is parted only
// where a round has no end.
func TestLeaseRound(t *testing.T) {
	d := prepare(t, options{leases: true})
	give := func(n int, m mail.MessageID) {
		for i := range n {
			e := d.mailFor(m, uint32(i), "x")
			d.leases.Relay(&Relaying{Envelope: &e, Body: []byte(text), Size: int64(len(text))})
		}
		d.leases.work.Wait() // what is being sent already
	}
	sent := func(want ...int) {
		t.Helper()
		d.leases.work.Wait()
		var got []int
		for len(d.disp.tasks) > 0 {
			got = append(got, len((<-d.disp.tasks).Envelopes))
		}
		if !slices.Equal(got, want) {
			t.Errorf("tasks of %v envelopes, want %v", got, want)
		}
	}
	give(1, 1)
	give(2, 1)
	sent()
	d.leases.Flush()
	sent(3)
	d.leases.Flush()
	sent()
	for m := range mail.MessageID(maxRound / 50) {
		give(50, m+2)
	}
	sent(slices.Repeat([]int{50}, maxRound/50)...)
}

// A task that came back untried leaves no trace.
func TestLeaseReturned(t *testing.T) {
	d := leasing(t, nil)
	d.submit(to("a@far.example"))
	task := <-d.disp.tasks
	d.answer(task, false, msg.RelayOutcome{Returned: true})
	d.idle()
	e, err := d.store.Envelope(task.Envelopes[0].ID)
	if err != nil || e.Retry != 0 || e.ErrorLine != "" || !e.LastTry.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
}

// All mail of a relay that the configuration names is one destination.
func TestLeaseDest(t *testing.T) {
	d := leasing(t, func(c *project.QueueConf) {
		c.Actions = append(c.Actions,
			project.QueueAction{Name: "host", Method: conf.Relay, RelayHost: "relay.example"},
			project.QueueAction{Name: "table", Method: conf.Relay, RelayTable: true})
	})
	for _, tc := range []struct {
		action string
		one    bool
		domain string
	}{{"out", false, "b.example"}, {"host", true, "relay.example"}, {"table", true, ""}, {"gone", false, "b.example"}} {
		a, b := d.leases.Dest(tc.action, "a.example"), d.leases.Dest(tc.action, "B.example")
		if (a == b) != tc.one || d.leases.Domain(b) != tc.domain {
			t.Errorf("%s: %q, %q, domain %q", tc.action, a, b, d.leases.Domain(b))
		}
	}
}

// 100,000 envelopes for a dead host: no more than task-hiwat are given to
// dispatcher at a time, others go by, and when it is out of reach none of the
// rest is tried.
func TestLeaseHolds(t *testing.T) {
	d := leasing(t, nil)
	const messages, each = 100, 1000
	for m := range messages {
		envs := make([]func(*envelope.Envelope), each)
		for i := range envs {
			envs[i] = to(fmt.Sprintf("u%d-%d@dead.example", m, i))
		}
		d.submit(envs...)
	}
	d.turn()
	given := 0
	var tasks []*msg.RelayTask
	take := func(task *msg.RelayTask) {
		tasks = append(tasks, task)
		given += len(task.Envelopes)
	}
	collect := func() {
		for sending := true; sending; {
			d.turn()
			d.leases.mu.Lock()
			sending = d.leases.sending
			d.leases.mu.Unlock()
		}
		for len(d.disp.tasks) > 0 {
			take(<-d.disp.tasks)
		}
	}
	take(<-d.disp.tasks)
	collect()
	if given > 50 {
		t.Fatalf("%d envelopes for a host that takes none", given)
	}
	d.submit(to("a@live.example"))
	live := <-d.disp.tasks
	for live.Envelopes[0].Dest.Domain != "live.example" {
		take(live)
		live = <-d.disp.tasks
	}
	d.answer(live, false, tookIt)
	// What a session has taken does not count: others come in its place.
	before := given
	for _, task := range tasks {
		d.send(&msg.RelayTaken{Task: task.Task})
	}
	take(<-d.disp.tasks)
	collect()
	if given <= before || given > before+50 {
		t.Errorf("%d envelopes, then %d", before, given)
	}
	for _, task := range tasks {
		d.answer(task, true, dead)
	}
	d.idle()
	collect()
	if len(d.disp.tasks) != 0 || given > 200 {
		t.Errorf("%d envelopes were given", given)
	}
	if n := d.counts(); n != messages*each {
		t.Errorf("%d envelopes left", n)
	}
}

func (d *daemon) counts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rq.Counts().Envelopes
}

// A host that comes back gets what failed because of it at once.
func TestLeaseBack(t *testing.T) {
	d := leasing(t, nil)
	for i := range 3 {
		d.submit(to(fmt.Sprintf("u%d@far.example", i)))
		d.answer(<-d.disp.tasks, true, dead)
	}
	d.submit(to("last@far.example"))
	d.answer(<-d.disp.tasks, false, tookIt)
	got := make(map[mail.EnvelopeID]bool)
	for len(got) < 3 {
		task := <-d.disp.tasks
		for i := range task.Envelopes {
			if !strings.HasPrefix(task.Envelopes[i].Dest.Local, "u") {
				t.Errorf("%v again", task.Envelopes[i].Dest)
			}
			got[task.Envelopes[i].ID] = true
		}
		d.answer(task, false, tookIt)
	}
	d.idle()
	if left := d.live(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// What dispatcher has not given back at the end is taken back.
func TestLeaseClose(t *testing.T) {
	d := leasing(t, nil)
	d.submit(to("a@far.example"))
	task := <-d.disp.tasks
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d2 := run(t, options{leases: true, disk: d.disk, clock: d.clock})
	if again := <-d2.disp.tasks; again.Envelopes[0].ID != task.Envelopes[0].ID || again.Envelopes[0].Retry != 0 {
		t.Errorf("%+v", again)
	}
}
