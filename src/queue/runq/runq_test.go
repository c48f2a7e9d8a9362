package runq

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func evp(msg, n uint32) mail.EnvelopeID {
	return mail.EnvelopeID(msg)<<32 | mail.EnvelopeID(n)
}

func newQueue(conf Config) (*Queue, *clock.Fake) {
	c := clock.NewFake(start)
	c.Advance(time.Hour)
	if conf.MaxInflight == 0 {
		conf.MaxInflight = math.MaxInt
	}
	return New(c, conf), c
}

func local(c clock.Clock, id mail.EnvelopeID, user string) Item {
	return Item{ID: id, Type: envelope.MDA, Dest: user, Created: c.Now(), TTL: 4 * 24 * time.Hour}
}

func drain(q *Queue) []Job {
	var jobs []Job
	for {
		j, ok := q.Next()
		if !ok {
			return jobs
		}
		jobs = append(jobs, j)
	}
}

// sleepUntil advances to the moment that Wake tells and returns how long that was.
func sleepUntil(t *testing.T, q *Queue, c *clock.Fake) time.Duration {
	t.Helper()
	at, ok := q.Wake()
	if !ok {
		t.Fatal("nothing to wait for")
	}
	d := at - c.Mono()
	c.Advance(max(d, 0))
	return d
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		typ  envelope.Type
		want []time.Duration // ages of the tries
	}{
		{envelope.MDA, []time.Duration{0, 10, 40, 90, 160, 250, 360, 490}},
		{envelope.MTA, []time.Duration{0, 400, 1600, 3600, 6400, 10000}},
		{envelope.Bounce, []time.Duration{0, 10, 40, 90}},
	} {
		q, c := newQueue(Config{})
		it := local(c, evp(1, 1), "x")
		it.Type = tc.typ
		q.Insert(it)
		born := c.Mono()
		for n, want := range tc.want {
			sleepUntil(t, q, c)
			if got := c.Mono() - born; got != want*time.Second {
				t.Errorf("type %d: try %d came at age %v, want %v", tc.typ, n, got, want*time.Second)
			}
			j, ok := q.Next()
			if !ok || j.Expired || j.Type != tc.typ {
				t.Fatalf("type %d: try %d: got %+v, %v", tc.typ, n, j, ok)
			}
			q.Retry(j.ID)
		}
	}
}

// A delivery that takes long skips the moments that it covers.
func TestBackoffSkipsThePast(t *testing.T) {
	q, c := newQueue(Config{})
	q.Insert(local(c, evp(1, 1), "x"))
	q.Next()
	c.Advance(100 * time.Second)
	v := q.Retry(evp(1, 1))
	if got := v.Next.Sub(c.Now()); got != 60*time.Second {
		t.Errorf("next try in %v, want at age 160 s, which is in 60 s", got)
	}
}

func TestExpiry(t *testing.T) {
	q, c := newQueue(Config{})
	it := local(c, evp(1, 1), "x")
	it.TTL = 15 * time.Second
	q.Insert(it)
	for _, age := range []time.Duration{0, 10 * time.Second} {
		if d := sleepUntil(t, q, c); d > 10*time.Second {
			t.Fatalf("waited %v", d)
		}
		j, ok := q.Next()
		if !ok || j.Expired {
			t.Fatalf("at age %v: %+v, %v", age, j, ok)
		}
		q.Retry(j.ID)
	}
	if d := sleepUntil(t, q, c); d != 5*time.Second {
		t.Errorf("expiry is %v away, want 5 s", d)
	}
	j, ok := q.Next()
	if !ok || !j.Expired || j.ID != it.ID {
		t.Fatalf("got %+v, %v, want the expired envelope", j, ok)
	}
	q.Done(j.ID)
	if n := q.Counts(); n.Envelopes != 0 || n.Expiring != 0 || n.Messages != 0 || n.Destinations != 0 {
		t.Errorf("something was left: %+v", n)
	}
}

// FIELD-NOTES 14 (O#739): what waits for a destination expires too.
func TestHeldExpires(t *testing.T) {
	q, c := newQueue(Config{Hold: func(envelope.Type, string) Hold { return Hold{Hiwat: 1} }})
	for n := uint32(1); n <= 3; n++ {
		it := local(c, evp(n, 1), "dead")
		it.TTL = time.Minute
		q.Insert(it)
	}
	if jobs := drain(q); len(jobs) != 1 {
		t.Fatalf("%d started, want 1", len(jobs))
	}
	c.Advance(time.Minute)
	jobs := drain(q)
	if len(jobs) != 2 || !jobs[0].Expired || !jobs[1].Expired {
		t.Errorf("after a minute: %+v, want two expired", jobs)
	}
}

func TestClockJumps(t *testing.T) {
	for _, tc := range []struct {
		name string
		jump time.Duration
	}{{"back", -10 * 365 * 24 * time.Hour}, {"forward", 10 * 365 * 24 * time.Hour}} {
		t.Run(tc.name, func(t *testing.T) {
			q, c := newQueue(Config{})
			q.Insert(local(c, evp(1, 1), "x"))
			q.Next()
			v := q.Retry(evp(1, 1))
			if got := v.Next.Sub(c.Now()); got != 10*time.Second {
				t.Fatalf("next in %v", got)
			}
			c.Jump(c.Now().Add(tc.jump))
			if jobs := drain(q); len(jobs) != 0 {
				t.Fatalf("the jump started %+v", jobs)
			}
			if d := sleepUntil(t, q, c); d != 10*time.Second {
				t.Errorf("next try %v away", d)
			}
			if j, ok := q.Next(); !ok || j.Expired {
				t.Errorf("got %+v, %v, want a try", j, ok)
			}
			if v := q.Retry(evp(1, 1)); v.Next.Sub(c.Now()) != 30*time.Second {
				t.Errorf("then next in %v, want 30 s", v.Next.Sub(c.Now()))
			}
		})
	}
}

// What was written under another clock, or long ago, is tried before it expires.
func TestInsertOfOtherTimes(t *testing.T) {
	day := 24 * time.Hour
	for _, tc := range []struct {
		name    string
		created time.Duration // from now
		retry   uint16
		wait    time.Duration // until the first try
		expire  time.Duration // from now, when the first try fails at once
	}{
		{"now", 0, 0, 0, 4 * day},
		{"an hour ago, tried once", -time.Hour, 1, 0, 3*day + 23*time.Hour},
		{"just now, tried thrice", 0, 3, 90 * time.Second, 4 * day},
		{"a year ago", -365 * day, 7, 0, 0},
		{"in a year", 365 * day, 0, 0, 4 * day},
		{"in the year 9999", 8000 * 365 * day / 100, 0, 0, 4 * day},
		{"absurd retry", 0, math.MaxUint16, 4 * day, 4 * day},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, c := newQueue(Config{})
			it := local(c, evp(1, 1), "x")
			it.Created, it.Retry = c.Now().Add(tc.created), tc.retry
			q.Insert(it)
			if d := sleepUntil(t, q, c); max(d, 0) != tc.wait {
				t.Fatalf("first try in %v, want %v", d, tc.wait)
			}
			j, _ := q.Next()
			if tc.wait == tc.expire && tc.wait > 0 {
				if !j.Expired {
					t.Fatalf("got %+v, want expiry", j)
				}
				return
			}
			if j.Expired || j.ID == 0 {
				t.Fatalf("got %+v, want a try", j)
			}
			q.Retry(j.ID)
			c.Advance(tc.expire - tc.wait)
			if j, ok := q.Next(); !ok || !j.Expired {
				t.Errorf("got %+v, %v, want expiry", j, ok)
			}
		})
	}
}

func TestZeroCreated(t *testing.T) {
	q, _ := newQueue(Config{})
	q.Insert(Item{ID: evp(1, 1)})
	if j, ok := q.Next(); !ok || j.Expired {
		t.Errorf("got %+v, %v", j, ok)
	}
	q.Retry(evp(1, 1))
	if j, ok := q.Next(); !ok || !j.Expired {
		t.Errorf("got %+v, %v, want expiry", j, ok)
	}
}

func TestWarn(t *testing.T) {
	q, c := newQueue(Config{Warn: []time.Duration{time.Minute, 5 * time.Minute, 30 * 24 * time.Hour}})
	q.Insert(local(c, evp(1, 1), "x"))
	born := c.Mono()
	var told []string
	for range 12 {
		sleepUntil(t, q, c)
		j, _ := q.Next()
		if v := q.Retry(j.ID); v.Warn > 0 {
			told = append(told, fmt.Sprintf("%v before %v", v.Warn, v.Next.Sub(start.Add(born))))
		}
	}
	// A report comes with the failure whose next try lies beyond the age.
	want := []string{"1m0s before 1m30s", "5m0s before 6m0s"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestWarnOnceForSeveral(t *testing.T) {
	q, c := newQueue(Config{Warn: []time.Duration{time.Minute, 5 * time.Minute, time.Hour}})
	it := local(c, evp(1, 1), "x")
	it.Created = it.Created.Add(-20 * time.Minute)
	it.Warned = time.Minute
	q.Insert(it)
	q.Next()
	v := q.Retry(it.ID)
	if v.Warn != 5*time.Minute {
		t.Fatalf("Warn = %v, want 5m", v.Warn)
	}
	if v.Told != v.Warn || v.Before != time.Minute {
		t.Errorf("%+v", v)
	}
	q.SetTold(it.ID, v.Before)
	q.Schedule(Selection{})
	q.Next()
	if v := q.Retry(it.ID); v.Warn != 5*time.Minute {
		t.Errorf("after SetTold: %v, want 5m again", v.Warn)
	}
	q.Schedule(Selection{})
	q.Next()
	if v := q.Retry(it.ID); v.Warn != 0 {
		t.Errorf("told again: %v", v.Warn)
	}
}

// Holds as OpenSMTPD 7.8: 50 in flight, none more until 30, then 10 at a time.
func TestHold(t *testing.T) {
	q, c := newQueue(Config{Hold: func(envelope.Type, string) Hold { return Hold{50, 30, 10} }})
	for n := uint32(1); n <= 200; n++ {
		q.Insert(local(c, evp(n, 1), "busy"))
	}
	q.Insert(local(c, evp(1000, 1), "idle"))
	flying := drain(q)
	if len(flying) != 51 {
		t.Fatalf("%d started, want 50 and the idle user's one", len(flying))
	}
	if !slices.ContainsFunc(flying[:3], func(j Job) bool { return j.Dest == "idle" }) {
		t.Error("the idle user had to wait for the busy one")
	}
	busy := slices.DeleteFunc(flying, func(j Job) bool { return j.Dest == "idle" })
	started := 0
	for i, j := range busy[:20] {
		q.Done(j.ID)
		got := drain(q)
		if i < 19 && len(got) > 0 {
			t.Fatalf("%d started with %d in flight", len(got), 49-i)
		}
		started += len(got)
	}
	if started != 10 {
		t.Errorf("%d started at lowat, want 10", started)
	}
	if i, _ := q.Info(evp(150, 1)); !i.Held {
		t.Errorf("%+v is not held", i)
	}
	// In the end all are done.
	seen := 50 + started
	for n := uint32(1); seen < 200; n++ {
		if n > 1000 {
			t.Fatalf("stuck at %d", seen)
		}
		for id := range q.ids {
			q.Done(id)
		}
		seen += len(drain(q))
	}
}

func TestMaxInflight(t *testing.T) {
	q, c := newQueue(Config{MaxInflight: 7})
	for n := uint32(1); n <= 20; n++ {
		q.Insert(local(c, evp(n, 1), fmt.Sprint(n)))
		it := local(c, evp(n, 2), fmt.Sprint(n))
		it.Type = envelope.MTA
		q.Insert(it)
	}
	if jobs := drain(q); len(jobs) != 14 {
		t.Errorf("%d started, want 7 of each type", len(jobs))
	}
	if c := q.Counts(); c.Inflight != [3]int{7, 7, 0} {
		t.Errorf("in flight: %v", c.Inflight)
	}
}

func TestFairness(t *testing.T) {
	q, c := newQueue(Config{MaxInflight: 3})
	for n := uint32(1); n <= 300; n++ {
		q.Insert(local(c, evp(n, 1), "flood"))
	}
	for n := uint32(1001); n <= 1003; n++ {
		q.Insert(local(c, evp(n, 1), fmt.Sprint("user", n)))
	}
	var order []string
	for range 8 {
		j, _ := q.Next()
		order = append(order, j.Dest)
		q.Done(j.ID)
	}
	want := []string{"flood", "user1001", "user1002", "user1003", "flood", "flood", "flood", "flood"}
	if !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

// FIELD-NOTES 14 (O#793): removed in flight never comes back.
func TestRemoveInFlight(t *testing.T) {
	for _, how := range []string{"done", "retry"} {
		t.Run(how, func(t *testing.T) {
			q, c := newQueue(Config{})
			q.Insert(local(c, evp(1, 1), "x"))
			q.Next()
			gone, flying := q.Remove(Selection{Message: 1})
			if len(gone) != 0 || !slices.Equal(flying, []mail.EnvelopeID{evp(1, 1)}) {
				t.Fatalf("gone %v, flying %v", gone, flying)
			}
			if _, flying = q.Remove(Selection{}); len(flying) != 0 {
				t.Errorf("removed twice: %v", flying)
			}
			if len(q.IDs(Selection{})) != 0 || q.Schedule(Selection{}) != 0 {
				t.Error("still to be seen")
			}
			if how == "done" {
				if !q.Done(evp(1, 1)) {
					t.Error("Done does not tell of the removal")
				}
			} else if v := q.Retry(evp(1, 1)); !v.Removed {
				t.Errorf("verdict %+v", v)
			}
			c.Advance(5 * 24 * time.Hour)
			if jobs := drain(q); len(jobs) != 0 || q.Counts().Envelopes != 0 {
				t.Errorf("it came back: %+v, %+v", jobs, q.Counts())
			}
		})
	}
}

func TestSuspend(t *testing.T) {
	q, c := newQueue(Config{Hold: func(envelope.Type, string) Hold { return Hold{Hiwat: 1} }})
	for n := uint32(1); n <= 3; n++ {
		it := local(c, evp(7, n), "x")
		it.TTL = time.Hour
		q.Insert(it)
	}
	first, _ := q.Next()
	if n := q.Suspend(Selection{Message: 7}); n != 3 {
		t.Fatalf("%d suspended", n)
	}
	q.Retry(first.ID)
	c.Advance(2 * time.Hour)
	if jobs := drain(q); len(jobs) != 0 {
		t.Fatalf("suspended, yet: %+v", jobs)
	}
	if n := q.Schedule(Selection{Envelope: first.ID}); n != 1 {
		t.Fatalf("%d scheduled", n)
	}
	if jobs := drain(q); len(jobs) != 1 || jobs[0].Expired || jobs[0].ID != first.ID {
		t.Fatalf("scheduled one, got %+v", jobs)
	}
	q.Retry(first.ID)
	if jobs := drain(q); len(jobs) != 0 {
		t.Fatalf("it did not stay suspended: %+v", jobs)
	}
	if n := q.Resume(Selection{}); n != 3 {
		t.Fatalf("%d resumed", n)
	}
	seen := map[mail.EnvelopeID]bool{}
	for range 3 {
		j, ok := q.Next()
		if !ok || j.Expired || seen[j.ID] {
			t.Fatalf("after resume: %+v, %v", j, ok)
		}
		seen[j.ID] = true
		q.Done(j.ID)
	}
}

func TestPause(t *testing.T) {
	q, c := newQueue(Config{})
	it := local(c, evp(1, 1), "x")
	it.TTL = time.Hour
	q.Insert(it)
	q.Pause(envelope.MDA)
	if !q.Paused(envelope.MDA) || q.Paused(envelope.MTA) {
		t.Error("the wrong type is paused")
	}
	c.Advance(2 * time.Hour)
	if jobs := drain(q); len(jobs) != 0 {
		t.Fatalf("paused, yet: %+v", jobs)
	}
	if at, ok := q.Wake(); ok && at <= c.Mono() {
		t.Error("Wake spins while paused")
	}
	q.Unpause(envelope.MDA)
	if j, ok := q.Next(); !ok || j.Expired {
		t.Fatalf("got %+v, %v, want one try", j, ok)
	}
	q.Retry(it.ID)
	if j, ok := q.Next(); !ok || !j.Expired {
		t.Errorf("got %+v, %v, want expiry", j, ok)
	}
}

func TestDefer(t *testing.T) {
	q, c := newQueue(Config{Hold: func(envelope.Type, string) Hold { return Hold{Hiwat: 2} }})
	for n := uint32(1); n <= 5; n++ {
		it := local(c, evp(n, 1), "mx.example")
		it.Type = envelope.MTA
		q.Insert(it)
	}
	drain(q)
	if n := q.Defer(envelope.MTA, "mx.example"); n != 3 {
		t.Errorf("%d deferred, want 3", n)
	}
	if n := q.Defer(envelope.MDA, "mx.example"); n != 0 {
		t.Errorf("%d deferred of nothing", n)
	}
	if d := sleepUntil(t, q, c); d != 400*time.Second {
		t.Errorf("next moment in %v", d)
	}
}

func TestSetConfig(t *testing.T) {
	hold := Hold{Hiwat: 1}
	conf := Config{MaxInflight: 100, Hold: func(envelope.Type, string) Hold { return hold }}
	q, c := newQueue(conf)
	for n := uint32(1); n <= 5; n++ {
		q.Insert(local(c, evp(n, 1), "x"))
	}
	if jobs := drain(q); len(jobs) != 1 {
		t.Fatalf("%d started", len(jobs))
	}
	hold = Hold{Hiwat: 3, Lowat: 2, Release: 1}
	q.SetConfig(conf)
	if jobs := drain(q); len(jobs) == 0 || len(jobs) > 2 {
		t.Errorf("%d more started", len(jobs))
	}
}

// An administrator's schedule goes to the head of a line that is held.
func TestScheduleHeld(t *testing.T) {
	q, c := newQueue(Config{Hold: func(envelope.Type, string) Hold { return Hold{Hiwat: 1} }})
	for n := uint32(1); n <= 4; n++ {
		q.Insert(local(c, evp(n, 1), "x"))
	}
	first, _ := q.Next()
	q.Schedule(Selection{Message: 3})
	q.Remove(Selection{Message: 2})
	q.Done(first.ID)
	if j, _ := q.Next(); j.ID != evp(3, 1) {
		t.Errorf("got %v, want the one that was scheduled", j.ID)
	}
	if !q.Alone(3) {
		t.Error("a message with one envelope is not alone")
	}
}

func TestUnknown(t *testing.T) {
	q, c := newQueue(Config{})
	q.Insert(local(c, evp(1, 1), "x"))
	if q.Insert(local(c, evp(1, 1), "y")) {
		t.Error("inserted twice")
	}
	if q.Done(evp(2, 1)) || !q.Retry(evp(1, 1)).Removed || q.Counts().Envelopes != 1 {
		t.Error("ended a flight that was none")
	}
	if q.Insert(Item{ID: evp(3, 1), Type: 9}) {
		t.Error("took an unknown type")
	}
}

// DESIGN section 6 allows a few hundred bytes per envelope; 200 is the aim,
// with a destination of its own for every tenth.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 envelopes")
	}
	const n = 100_000
	users := make([]string, n/10)
	for i := range users {
		users[i] = fmt.Sprint("user", i)
	}
	q, c := newQueue(Config{})
	used := heapUsed(func() {
		for i := range uint32(n) {
			q.Insert(local(c, mail.EnvelopeAt(mail.MessageID(i+1), 0), users[i%(n/10)]))
		}
	})
	if per := used / n; per > 200 {
		t.Errorf("%d bytes per envelope", per)
	}
	runtime.KeepAlive(q)
}

func heapUsed(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return after.HeapAlloc - before.HeapAlloc
}

func BenchmarkInsertNextDone(b *testing.B) {
	q, c := newQueue(Config{MaxInflight: 5000})
	b.ReportAllocs()
	for i := range uint32(b.N) {
		q.Insert(local(c, mail.EnvelopeAt(mail.MessageID(i+1), 0), "user"))
		j, _ := q.Next()
		q.Done(j.ID)
	}
}
