package queue

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"opensmtpd/src/mail"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// step is one frame that comes in; the frames of lookup and of dispatcher travel
// on two sockets and arrive in any order.
type step func(*daemon, mail.MessageID) *request

func env(n uint32) step {
	return func(d *daemon, id mail.MessageID) *request {
		return d.send(&msg.AddEnvelope{Envelope: d.mailFor(id, n, fmt.Sprint("user", n))})
	}
}

func commitOf(envelopes uint32) step {
	return func(d *daemon, id mail.MessageID) *request {
		return d.send(&msg.Commit{Message: id, Envelopes: envelopes, Size: uint64(len(text)), Body: []byte(text)})
	}
}

// optional is commitOf for a message whose header says that TLS is.
func optional(envelopes uint32) step {
	return func(d *daemon, id mail.MessageID) *request {
		return d.send(&msg.Commit{Message: id, Envelopes: envelopes, TLSOptional: true, Body: []byte(text)})
	}
}

func chunk(s string) step {
	return func(d *daemon, id mail.MessageID) *request {
		return d.send(&msg.BodyChunk{Message: id, Data: []byte(s)})
	}
}

func streamed(envelopes uint32) step {
	return func(d *daemon, id mail.MessageID) *request {
		return d.send(&msg.Commit{Message: id, Envelopes: envelopes, Streamed: true})
	}
}

func discard(d *daemon, id mail.MessageID) *request { return d.send(&msg.Discard{Message: id}) }

// late lets the patience of commits run out.
func late(d *daemon, _ mail.MessageID) *request {
	d.clock.Advance(patience)
	return nil
}

// What the header says of TLS is noted on every envelope, whenever that comes.
func TestCommitTLSOptional(t *testing.T) {
	for name, steps := range map[string][]step{
		"envelopes first": {env(0), env(1), optional(2)},
		"commit first":    {optional(2), env(0), env(1)},
	} {
		d := run(t, options{})
		id := d.reserveOne()
		for _, s := range steps {
			if q := s(d, id); q.typ == msg.TypeCommit {
				defer func() {
					if err := q.committed(); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}()
			}
		}
		for range 2 {
			if e := d.agents.next().Envelope; e.Flags != envelope.TLSOptional {
				t.Errorf("%s: flags %b", name, e.Flags)
			}
		}
	}
}

func TestCommit(t *testing.T) {
	for name, tc := range map[string]struct {
		steps []step
		want  string // of the first commit; "" is success
		live  int
	}{
		"in order":              {[]step{env(0), env(1), commitOf(2)}, "", 2},
		"commit first":          {[]step{commitOf(2), env(0), env(1)}, "", 2},
		"commit between":        {[]step{env(1), commitOf(2), env(0)}, "", 2},
		"streamed":              {[]step{env(0), chunk("a: b\n"), chunk("\nc\n"), streamed(1)}, "", 1},
		"streamed, lookup late": {[]step{chunk("a: b\n"), streamed(1), env(0)}, "", 1},
		"one is missing":        {[]step{env(0), commitOf(2), late}, "451 4.3.0 Temporary failure: not all envelopes came from lookup: 1 of 2", 0},
		"too many":              {[]step{env(0), env(1), commitOf(1)}, "2 of 1", 0},
		"not the announced one": {[]step{env(5), commitOf(1)}, "was not announced", 0},
		"one twice":             {[]step{env(0), env(0), commitOf(2)}, "is there twice", 0},
		"none":                  {[]step{commitOf(0)}, "contradicts itself", 0},
		"discarded before":      {[]step{env(0), discard, commitOf(1)}, "is not being received", 0},
		"discarded meanwhile":   {[]step{commitOf(1), discard, env(0)}, "was discarded", 0},
		"late envelope":         {[]step{discard, env(0), commitOf(1)}, "is not being received", 0},
		"twice":                 {[]step{env(0), commitOf(1), commitOf(1)}, "", 1},
		"twice waiting":         {[]step{commitOf(1), commitOf(1), env(0)}, "", 1},
		"no chunk":              {[]step{env(0), streamed(1)}, "no body came", 0},
		"chunk and inline":      {[]step{env(0), chunk("x"), commitOf(1)}, "contradicts itself", 0},
		"chunk after commit":    {[]step{commitOf(1), chunk("x"), env(0)}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, options{agent: func(*mda.Delivery) mda.Result { return mda.Result{Stat: holdIt} }})
			id := d.reserveOne()
			var first *request
			for _, s := range tc.steps {
				if q := s(d, id); first == nil && q != nil && q.typ == msg.TypeCommit {
					first = q
				}
			}
			err := first.committed()
			if got := fmt.Sprint(err); err == nil && tc.want != "" || err != nil && (tc.want == "" || !strings.Contains(got, tc.want)) {
				t.Fatalf("answer %v, want %q", got, tc.want)
			}
			if got := d.live(); len(got) != tc.live {
				t.Errorf("the store has %v, want %d", got, tc.live)
			}
			if names := d.files("incoming"); len(names) != 0 && !strings.Contains(name, "streamed") {
				t.Errorf("litter: %v", names)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.incoming.memory != 0 || len(d.incoming.reserved) != 0 {
				t.Errorf("left behind: %+v", d.incoming)
			}
		})
	}
}

func (d *daemon) files(dir string) []string {
	names, err := d.disk.ReadDir(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	return names
}

// Dispatcher can commit only what was reserved for it, and lookup can add only
// to such.
func TestForeignIdentifier(t *testing.T) {
	d := run(t, options{})
	id := d.reserveOne() + 1
	env(0)(d, id)
	if err := commitOf(1)(d, id).committed(); err == nil {
		t.Error("committed a message whose identifier was not reserved")
	}
	chunk("x")(d, id)
	if names := d.files("incoming"); len(names) != 0 {
		t.Errorf("wrote %v", names)
	}
}

func TestEnvelopeOfWrongType(t *testing.T) {
	d := run(t, options{})
	id := d.reserveOne()
	err := d.submitAs(id, func(e *envelope.Envelope) { e.Type = envelope.Bounce })
	if err == nil || err.Code != 451 {
		t.Errorf("answer %v", err)
	}
}

func TestReserveIsBounded(t *testing.T) {
	d := run(t, options{})
	have := 0
	for {
		q := d.send(&msg.ReserveIDs{N: 1 << 30})
		select {
		case m := <-q.reply:
			have += len(m.(*msg.ReservedIDs).IDs)
			continue
		case err := <-q.fail:
			if err.Code != 451 {
				t.Errorf("answer %v", err)
			}
		}
		break
	}
	if have != maxReserved {
		t.Errorf("%d identifiers, want %d", have, maxReserved)
	}
}

func TestMalformedFrames(t *testing.T) {
	d := run(t, options{})
	for _, h := range d.Handlers() {
		if h.Type == msg.TypeStats {
			continue
		}
		q := newRequest(h.From, &msg.Stats{})
		q.body = []byte{0xff, 1, 2}
		h.Do(t.Context(), q)
		select {
		case <-q.fail:
		default:
			t.Errorf("type %d: not failed", h.Type)
		}
	}
}

// Part 8 of the issue: every fault of the disk at intake gives the right 4xx,
// keeps nothing by halves, and is over when the fault is.
func TestDiskFaults(t *testing.T) {
	for _, tc := range []struct {
		errno syscall.Errno
		code  int
	}{{syscall.ENOSPC, 452}, {syscall.EIO, 451}, {syscall.EROFS, 451}, {syscall.EMFILE, 451}} {
		for _, how := range []string{"inline", "streamed"} {
			t.Run(fmt.Sprint(tc.errno, " ", how), func(t *testing.T) { diskFault(t, tc.errno, tc.code, how) })
		}
	}
}

func diskFault(t *testing.T, errno syscall.Errno, code int, how string) {
	for n := 1; ; n++ {
		d := run(t, options{agent: func(*mda.Delivery) mda.Result { return mda.Result{Stat: holdIt} }})
		id := d.reserveOne()
		f := d.disk.Fail(errno, n, -1)
		env(0)(d, id)
		q := commitOf(1)
		if how == "streamed" {
			chunk(strings.Repeat("x", 1000))(d, id)
			q = streamed(1)
		}
		err := q(d, id).committed()
		hit := f.Hit()
		f.Lift()
		if err != nil && (err.Code != code || err.Text == "") {
			t.Fatalf("fault at %d: answer %v, want %d", n, err, code)
		}
		if err != nil { // the administrator learns why
			d.log.Await(errno.Error())
		}
		want := 1
		if err == nil {
			want = 2
		}
		d.recovered()
		d.submit(plain)
		if got := d.live(); len(got) != want {
			t.Fatalf("fault at %d, answer %v: the store has %v", n, err, got)
		}
		if err := d.stop(); err != nil {
			t.Fatalf("fault at %d: stop: %v", n, err)
		}
		if !hit {
			if n == 1 && errno != syscall.EMFILE {
				t.Error("the fault never happened")
			}
			return
		}
	}
}

// recovered waits until mail is taken again.
func (d *daemon) recovered() {
	d.until(func() bool {
		d.clock.Advance(spaceEvery) // longer than the journal waits, too
		return d.intake.closed() == nil
	})
}

// DESIGN section 6: free space or inodes below 5 % close the intake, and it
// opens by itself.
func TestSpaceFloor(t *testing.T) {
	for name, low := range map[string]disk.Space{"bytes": {Bytes: 4.9, Inodes: 50}, "inodes": {Bytes: 50, Inodes: 4.9}} {
		t.Run(name, func(t *testing.T) {
			d := run(t, options{})
			if m := <-d.disp.intake; !m.Open {
				t.Fatalf("closed at the start: %v", m.Err)
			}
			d.disk.SetSpace(low)
			d.clock.Advance(spaceEvery)
			m := <-d.disp.intake
			if m.Open || m.Err == nil || m.Err.Reply() != "452 4.3.1 Insufficient system storage" || m.Err.Cause != nil {
				t.Fatalf("told %+v %v", m, m.Err)
			}
			d.log.Await("no new mail is accepted")
			// A body under way is not written any further.
			id := d.reserveOne()
			env(0)(d, id)
			chunk("x")(d, id)
			if names := d.files("incoming"); len(names) != 0 {
				t.Errorf("wrote %v", names)
			}
			if err := streamed(1)(d, id).committed(); err == nil || err.Code != 452 {
				t.Errorf("answer %v", err)
			}
			d.disk.SetSpace(disk.Space{Bytes: 5.1, Inodes: 5.1})
			d.clock.Advance(spaceEvery)
			if m := <-d.disp.intake; !m.Open || m.Err != nil {
				t.Errorf("told %+v", m)
			}
			d.log.Await("new mail is accepted again")
		})
	}
}

// TestJournalRemoved: no mail is taken that a file without a name would keep.
func TestJournalRemoved(t *testing.T) {
	d := run(t, options{})
	<-d.disp.intake
	d.submit(plain)
	for _, name := range d.files("journal") {
		if strings.HasPrefix(name, "seg.") {
			if err := d.disk.Remove("journal/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.clock.Advance(spaceEvery)
	if m := <-d.disp.intake; m.Open || m.Err == nil || m.Err.Reply() != "451 4.3.0 Temporary failure" {
		t.Errorf("told %+v %v", m, m.Err)
	}
	d.log.Await("was removed: what is in the queue is lost")
}

// CVE-2015-7687 row: 100,000 unfinished DATA leave the floor and no litter.
func TestUnfinishedData_CVE_2015_7687(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 1000
	}
	d := run(t, options{})
	<-d.disp.intake
	var ids []mail.MessageID
	for len(ids) < n {
		ids = append(ids, (<-d.send(&msg.ReserveIDs{N: 4096}).reply).(*msg.ReservedIDs).IDs...)
	}
	for i, id := range ids[:n] {
		if i == n/100 { // strangers have filled the disk to the floor
			d.disk.SetSpace(disk.Space{Bytes: 4, Inodes: 90})
			d.clock.Advance(spaceEvery)
			if m := <-d.disp.intake; m.Open {
				t.Fatal("intake is open below the floor")
			}
		}
		chunk("x")(d, id)
	}
	if have := len(d.files("incoming")); have != n/100 {
		t.Errorf("%d bodies on disk, want the %d from before the floor", have, n/100)
	}
	for _, id := range ids {
		discard(d, id)
	}
	if names := d.files("incoming"); len(names) != 0 {
		t.Errorf("%d files of litter", len(names))
	}
	if len(d.incoming.reserved) != 0 || d.incoming.memory != 0 {
		t.Errorf("%d transactions are left", len(d.incoming.reserved))
	}
}

// Strangers who send fast do not get below the floor before it is looked for.
func TestUnfinishedDataAtOnce_CVE_2015_7687(t *testing.T) {
	d := run(t, options{})
	<-d.disp.intake
	id, other := d.reserveOne(), d.reserveOne()
	d.disk.SetSpace(disk.Space{Bytes: 4, Inodes: 90})
	piece := strings.Repeat("x", 64<<10)
	for range spaceStep / len(piece) {
		chunk(piece)(d, id)
	}
	if m := <-d.disp.intake; m.Open {
		t.Error("intake is open below the floor")
	}
	chunk(piece)(d, other)
	if names := d.files("incoming"); len(names) != 0 {
		t.Errorf("left on the disk: %q", names)
	}
}

func TestEnvelopeMemoryIsBounded(t *testing.T) {
	d := run(t, options{})
	id, other := d.reserveOne(), d.reserveOne()
	d.mu.Lock()
	d.incoming.memory = maxEnvelopeMemory + 1
	d.mu.Unlock()
	env(0)(d, id)
	if err := commitOf(1)(d, id).committed(); err == nil || err.Code != 452 {
		t.Errorf("answer %v", err)
	}
	d.mu.Lock()
	d.incoming.memory = 0
	d.mu.Unlock()
	env(0)(d, other)
	if err := commitOf(1)(d, other).committed(); err != nil {
		t.Errorf("then: %v", err)
	}
}
