package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/mail"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

// rows reads every page of a list.
func (d *daemon) rows(c msg.Control) []ctl.QueueRow {
	d.t.Helper()
	var out []ctl.QueueRow
	for {
		page, err := d.askAs(&c)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, b := range page.Rows {
			var row ctl.QueueRow
			if err := json.Unmarshal(b, &row); err != nil {
				d.t.Fatal(err)
			}
			out = append(out, row)
		}
		if c.Cursor = page.Next; c.Cursor == "" {
			return out
		}
	}
}

func TestList(t *testing.T) {
	d := run(t, options{agent: func(m *mda.Delivery) mda.Result {
		if m.Envelope.MDAUser == "user0" {
			return tempFail("full")
		}
		return mda.Result{Stat: holdIt}
	}})
	id := d.submit(plain, func(e *envelope.Envelope) { e.Flags = envelope.Authenticated; e.Dest.Local = "boss" })
	d.agents.next()
	d.agents.next()
	d.updates(1)
	d.live()
	d.ask(msg.VerbPauseEnvelope, mail.EnvelopeAt(id, 0).String())
	d.clock.Advance(3 * time.Second)
	byID := map[string]ctl.QueueRow{}
	for _, r := range d.rows(msg.Control{Verb: msg.VerbList, Operator: true}) {
		byID[r.ID] = r
	}
	created, expires := start.Unix(), start.Add(4*24*time.Hour).Unix()
	want := map[string]ctl.QueueRow{
		mail.EnvelopeAt(id, 0).String(): {
			Source: "local", Type: "mda", Flags: []string{"suspend"}, Sender: "sender@example.org", Rcpt: "user0@example.org", Dest: "user0@example.org",
			Created: created, Expires: expires, LastTry: created, Retry: 1, State: "pending", Seconds: 7, Error: "full", Action: "local",
		},
		mail.EnvelopeAt(id, 1).String(): {
			Source: "local", Type: "mda", Flags: []string{"auth"}, Sender: "sender@example.org", Rcpt: "user1@example.org", Dest: "boss@example.org",
			Created: created, Expires: expires, LastTry: created, State: "inflight", Seconds: 3, Action: "local",
		},
	}
	for id, w := range want {
		w.ID = id
		if got := byID[id]; fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("row\n%+v, want\n%+v", got, w)
		}
	}
	if len(byID) != 2 {
		t.Errorf("%d rows", len(byID))
	}
}

func TestListPages(t *testing.T) {
	d := run(t, options{paused: []string{"mda"}, segment: 64 << 20})
	const n = 3000
	var mine mail.MessageID
	for i := range n {
		id := d.submit(func(e *envelope.Envelope) {
			if i == n/2 {
				e.LocalUID = 1000
			}
		})
		if i == n/2 {
			mine = id
		}
	}
	all := d.rows(msg.Control{Verb: msg.VerbList, Operator: true})
	if len(all) != n {
		t.Fatalf("%d rows, want %d", len(all), n)
	}
	for i := 1; i < n; i++ {
		if all[i-1].ID >= all[i].ID {
			t.Fatalf("row %d is out of order", i)
		}
	}
	own := d.rows(msg.Control{Verb: msg.VerbList, UID: 1000})
	if len(own) != 1 || own[0].ID != mail.EnvelopeAt(mine, 0).String() {
		t.Errorf("a user sees %v", own)
	}
	if other := d.rows(msg.Control{Verb: msg.VerbList, UID: 1001}); len(other) != 0 {
		t.Errorf("another sees %v", other)
	}
	one := d.rows(msg.Control{Verb: msg.VerbList, Operator: true, Args: []string{mine.String()}})
	if len(one) != 1 {
		t.Errorf("of one message: %v", one)
	}
}

func TestShow(t *testing.T) {
	d := run(t, options{paused: []string{"mda"}})
	id := d.submit(func(e *envelope.Envelope) { e.LocalUID = 1000 })
	evp := mail.EnvelopeAt(id, 0).String()
	large := d.reserveOne()
	env(0)(d, large)
	piece := strings.Repeat("0123456789abcde\n", 4096)
	for range 10 {
		chunk(piece)(d, large)
	}
	if err := streamed(1)(d, large).committed(); err != nil {
		t.Fatal(err)
	}
	if got := string(d.ask(msg.VerbEnvelope, evp).Raw); !strings.HasPrefix(got, "version: 3\n") || !strings.Contains(got, "\nsender: sender@example.org\n") {
		t.Errorf("envelope:\n%s", got)
	}
	if got := string(d.ask(msg.VerbMessage, id.String()).Raw); got != text {
		t.Errorf("message %q", got)
	}
	if got := string(d.ask(msg.VerbMessage, evp).Raw); got != text {
		t.Errorf("message by envelope %q", got)
	}
	var whole strings.Builder
	for c := (msg.Control{Verb: msg.VerbMessage, Operator: true, Args: []string{large.String()}}); ; {
		page, err := d.askAs(&c)
		if err != nil {
			t.Fatal(err)
		}
		whole.Write(page.Raw)
		if c.Cursor = page.Next; c.Cursor == "" {
			break
		}
	}
	if whole.String() != strings.Repeat(piece, 10) {
		t.Errorf("%d bytes of the large message", whole.Len())
	}
	for _, tc := range []struct {
		c  msg.Control
		ok bool
	}{
		{msg.Control{Verb: msg.VerbEnvelope, UID: 1000, Args: []string{evp}}, true},
		{msg.Control{Verb: msg.VerbEnvelope, UID: 1001, Args: []string{evp}}, false},
		{msg.Control{Verb: msg.VerbMessage, UID: 1000, Args: []string{id.String()}}, true},
		{msg.Control{Verb: msg.VerbMessage, UID: 1001, Args: []string{id.String()}}, false},
		{msg.Control{Verb: msg.VerbMessage, UID: 0, Args: []string{large.String()}}, false},
	} {
		if _, err := d.askAs(&tc.c); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc.c, err)
		}
	}
}

func TestScheduleAndPause(t *testing.T) {
	d := run(t, options{agent: func(*mda.Delivery) mda.Result { return tempFail("x") }})
	id := d.submit(plain, plain)
	d.agents.next()
	d.agents.next()
	d.idle()
	if n := d.ask(msg.VerbSchedule, id.String()).Count; n != 2 {
		t.Errorf("%d scheduled", n)
	}
	d.agents.next()
	d.agents.next()
	d.idle()
	if n := d.ask(msg.VerbPauseEnvelope, "all").Count; n != 2 {
		t.Errorf("%d paused", n)
	}
	d.clock.Advance(time.Hour)
	if n := d.ask(msg.VerbResumeEnvelope, mail.EnvelopeAt(id, 1).String()).Count; n != 1 {
		t.Errorf("%d resumed", n)
	}
	if c := d.agents.next(); c.Envelope.ID != mail.EnvelopeAt(id, 1) {
		t.Errorf("delivered %v", c.Envelope.ID)
	}
	d.ask(msg.VerbPauseMDA)
	d.ask(msg.VerbPauseMTA)
	d.ask(msg.VerbResumeMTA)
	d.idle()
	d.ask(msg.VerbSchedule, "all")
	d.ask(msg.VerbResumeMDA)
	d.agents.next()
	d.agents.next()
	if n := d.ask(msg.VerbRemove, "all").Count; n != 2 {
		t.Errorf("%d removed", n)
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 || d.count.removed.Value() != 2 || d.count.envelopes.Value() != 0 {
		t.Errorf("left: %v, counted %d", ids, d.count.envelopes.Value())
	}
}

func TestBadRequests(t *testing.T) {
	d := run(t, options{})
	for _, c := range []msg.Control{
		{Verb: "sing"},
		{Verb: msg.VerbRemove},
		{Verb: msg.VerbRemove, Args: []string{"a", "b"}},
		{Verb: msg.VerbRemove, Args: []string{""}},
		{Verb: msg.VerbRemove, Args: []string{"xyz"}},
		{Verb: msg.VerbRemove, Args: []string{"0123456789abcdef0"}},
		{Verb: msg.VerbList, Args: []string{"!"}},
		{Verb: msg.VerbList, Cursor: "!"},
		{Verb: msg.VerbEnvelope, Args: []string{"1"}},
		{Verb: msg.VerbEnvelope, Args: []string{"0123456789abcdef"}},
		{Verb: msg.VerbMessage, Args: []string{"all"}},
		{Verb: msg.VerbMessage, Args: []string{"12345678"}},
		{Verb: msg.VerbMessage, Args: []string{"12345678"}, Cursor: "-1"},
		{Verb: msg.VerbDiscover, Args: []string{"all"}},
	} {
		c.Operator = true
		if rows, err := d.askAs(&c); err == nil || err.Text == "" {
			t.Errorf("%+v: %+v, %v", c, rows, err)
		}
	}
}

func TestStats(t *testing.T) {
	d := run(t, options{agent: hold})
	d.submit(plain, plain)
	d.agents.next()
	d.agents.next()
	q := d.send(&msg.Stats{})
	got := make(map[string]int64)
	for _, c := range (<-q.reply).(*msg.StatsReply).Counters {
		got[c.Name] = c.Up - c.Down
	}
	for name, want := range map[string]int64{
		"scheduler.envelope": 2, "scheduler.envelope.inflight": 2, "mda.envelope": 2, "mda.running": 1, "mda.pending": 1, "mda.user": 1,
		"bounce.message": 0, "bounce.envelope": 0, "bounce.session": 0,
	} {
		if n, ok := got[name]; n != want || !ok {
			t.Errorf("%s is %d, want %d", name, n, want)
		}
	}
}

// leave puts a message into the spool as OpenSMTPD does.
func (d *daemon) leave(id mail.MessageID, envs ...envelope.Envelope) {
	d.t.Helper()
	dir := fmt.Sprintf("queue/%02x", uint32(id)>>24)
	if err := d.disk.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		d.t.Fatal(err)
	}
	dir += "/" + id.String()
	if err := d.disk.Mkdir(dir); err != nil {
		d.t.Fatal(err)
	}
	d.put(dir+"/message", []byte(text))
	for i := range envs {
		b, err := envs[i].AppendText(nil)
		if err != nil {
			d.t.Fatal(err)
		}
		d.put(dir+"/"+envs[i].ID.String(), b)
	}
}

func (d *daemon) put(name string, b []byte) {
	d.t.Helper()
	f, err := d.disk.Create(name)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	f.Close()
}

func TestDiscover(t *testing.T) {
	d := run(t, options{paused: []string{"mda"}})
	id := mail.MessageID(0x12345678)
	d.leave(id, d.mailFor(id, 0, "user0"), d.mailFor(id, 1, "user1"))
	for _, which := range []string{id.String(), id.String()} {
		if n := d.ask(msg.VerbDiscover, which).Count; n != 2 {
			t.Errorf("%d discovered", n)
		}
	}
	if n := d.ask(msg.VerbDiscover, mail.EnvelopeAt(id, 1).String()).Count; n != 1 {
		t.Errorf("%d discovered by envelope", n)
	}
	if n := d.ask(msg.VerbDiscover, "87654321").Count; n != 0 {
		t.Errorf("%d discovered of nothing", n)
	}
	d.ask(msg.VerbResumeMDA)
	for range 2 {
		if c := d.agents.next(); string(c.Body) != text {
			t.Errorf("body %q", c.Body)
		}
	}
}

// A spool of OpenSMTPD may hold envelopes that are reports to be made.
func TestBounceOfOpenSMTPD(t *testing.T) {
	d := run(t, options{})
	id := mail.MessageID(0x12345678)
	e := d.mailFor(id, 0, "user0")
	e.Type, e.BounceType, e.BounceTTL = envelope.Bounce, envelope.BounceFailed, time.Hour
	e.ErrorLine, e.ESCClass, e.ESCCode = "550 5.1.1 unknown", 5, 11
	d.leave(id, e)
	d.ask(msg.VerbDiscover, e.ID.String())
	c := d.agents.next()
	if !strings.Contains(string(c.Body), "user0@example.org: 550 5.1.1 unknown") || c.Envelope.Dest.String() != "sender@example.org" {
		t.Errorf("to %v:\n%s", c.Envelope.Dest, c.Body)
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}
