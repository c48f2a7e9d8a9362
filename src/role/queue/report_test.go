package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// refuseAll fails for good whatever is not for a sender.
func refuseAll(m *mda.Delivery) mda.Result {
	if m.Envelope.Flags&envelope.IsBounce != 0 {
		return delivered
	}
	return permFail("no such box")
}

// nextReport waits for a report to be delivered, past other deliveries.
func (d *daemon) nextReport() *mda.Delivery {
	for {
		if c := d.agents.next(); c.Envelope.Flags&envelope.IsBounce != 0 {
			return c
		}
	}
}

func TestFailureIsReported(t *testing.T) {
	d := run(t, options{agent: refuseAll})
	id := d.submit(plain)
	c := d.nextReport()
	e := c.Envelope
	if !e.Sender.IsZero() || e.Flags != envelope.IsBounce|envelope.Internal || e.Dest.String() != "sender@example.org" {
		t.Errorf("report to %v: %+v", e.Dest, e)
	}
	body := string(c.Body)
	for _, want := range []string{
		"To: sender@example.org\n", "Content-Type: multipart/report", "Auto-Submitted: auto-replied\n", "In-Reply-To: <1@example.org>\n",
		"Final-Recipient: rfc822; user0@example.org\n", "Status: 5.2.2\n", "Diagnostic-Code: x-unix; no such box\n", "Reporting-MTA: dns; mx.example.org\n",
		"From: sender@example.org\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing from\n%s", want, body)
		}
	}
	if strings.Contains(body, "hello") {
		t.Error("the body was sent back unasked")
	}
	x := d.lookup.asked[0]
	if !x.Client.Socket || x.Rcpt.String() != "sender@example.org" || !x.Sender.IsZero() || x.Flags&envelope.IsBounce == 0 || x.Message == id {
		t.Errorf("lookup was asked %+v", x)
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 || d.count.perm.Value() != 1 || d.count.bounce.Value() != 1 {
		t.Errorf("left: %v", ids)
	}
	d.log.Await(fmt.Sprintf("smtp message msgid=%v size=%d nrcpt=1 proto=ESMTP", x.Message, len(body)))
	d.log.Await("result=PermFail stat=Error (no such box)")
}

// One report for all recipients of a message that fail together.
func TestReportGathers(t *testing.T) {
	d := run(t, options{agent: refuseAll})
	d.submit(plain, plain, plain)
	for range 3 {
		d.agents.next()
	}
	d.until(func() bool { return len(d.reports.waiting) > 0 && len(d.reports.waiting[0].envs) == 3 })
	if len(d.lookup.asked) != 0 {
		t.Fatal("reported before the others were known")
	}
	d.clock.Advance(gather)
	c := d.nextReport()
	for n := range 3 {
		if !strings.Contains(string(c.Body), fmt.Sprintf("\nuser%d@example.org: no such box\n", n)) {
			t.Errorf("recipient %d is missing from\n%s", n, c.Body)
		}
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 || len(d.lookup.asked) != 1 {
		t.Errorf("left: %v; %d reports", ids, len(d.lookup.asked))
	}
}

func TestWhoIsTold(t *testing.T) {
	ok := func(*mda.Delivery) mda.Result { return delivered }
	for name, tc := range map[string]struct {
		agent  func(*mda.Delivery) mda.Result
		change func(*envelope.Envelope)
		action string // of the report; "": none
	}{
		"failure":              {refuseAll, plain, "failed"},
		"failure, never":       {refuseAll, func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifyNever }, ""},
		"failure, not asked":   {refuseAll, func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifySuccess }, ""},
		"failure, null sender": {refuseAll, func(e *envelope.Envelope) { e.Sender = addr.Address{} }, ""},
		"failure of a bounce": {func(*mda.Delivery) mda.Result { return permFail("x") },
			func(e *envelope.Envelope) { e.Flags = envelope.IsBounce }, ""},
		"success":              {ok, plain, ""},
		"success, asked":       {ok, func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifySuccess }, "delivered"},
		"success, null sender": {ok, func(e *envelope.Envelope) { e.DSNNotify, e.Sender = envelope.NotifySuccess, addr.Address{} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, options{agent: tc.agent})
			d.submit(tc.change)
			d.agents.next()
			if tc.action != "" {
				if c := d.nextReport(); !strings.Contains(string(c.Body), "\nAction: "+tc.action+"\n") {
					t.Errorf("report:\n%s", c.Body)
				}
			}
			d.idle()
			if ids := d.live(); len(ids) != 0 {
				t.Errorf("left: %v", ids)
			}
			if (len(d.lookup.asked) == 1) != (tc.action != "") {
				t.Errorf("%d reports", len(d.lookup.asked))
			}
		})
	}
}

// A report travels as the message that it is about: what the sender asks of TLS,
// and what he can read.
func TestReportKeepsFlags(t *testing.T) {
	for _, flag := range []envelope.Flags{envelope.RequireTLS, envelope.TLSOptional, envelope.SMTPUTF8} {
		d := run(t, options{agent: refuseAll})
		d.submit(func(e *envelope.Envelope) { e.Flags |= flag | envelope.Authenticated })
		if c := d.nextReport(); c.Envelope.Flags != envelope.IsBounce|envelope.Internal|flag {
			t.Errorf("flags %b, of a message with %b", c.Envelope.Flags, flag)
		}
	}
}

// A code that OpenSMTPD's number cannot hold reaches the report all the same.
func TestReportOfLongCode(t *testing.T) {
	d := run(t, options{agent: func(m *mda.Delivery) mda.Result {
		if m.Envelope.Flags&envelope.IsBounce != 0 {
			return delivered
		}
		return mda.Result{Err: mailerr.Permanent(550, 7, 30, "REQUIRETLS support required", nil)}
	}})
	d.submit(plain)
	if c := d.nextReport(); !strings.Contains(string(c.Body), "\nStatus: 5.7.30\n") {
		t.Errorf("report:\n%s", c.Body)
	}
}

func TestReturnFull(t *testing.T) {
	d := run(t, options{agent: refuseAll})
	d.submit(func(e *envelope.Envelope) {
		e.DSNRet, e.DSNEnvID, e.DSNORcpt = envelope.ReturnFull, "id+2B1", "rfc822;orig@example.org"
	})
	body := string(d.nextReport().Body)
	for _, want := range []string{"message/rfc822", "\nhello\n", "Original-Envelope-Id: id+1\n", "Original-Recipient: rfc822; orig@example.org\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing from\n%s", want, body)
		}
	}
}

// A report about a large message is a large message itself.
func TestReturnFullLarge(t *testing.T) {
	d := run(t, options{agent: refuseAll})
	id := d.reserveOne()
	e := d.mailFor(id, 0, "user0")
	e.DSNRet = envelope.ReturnFull
	d.send(&msg.AddEnvelope{Envelope: e})
	piece := strings.Repeat("0123456789abcde\n", 4096)
	for range 3 {
		chunk(piece)(d, id)
	}
	if err := streamed(1)(d, id).committed(); err != nil {
		t.Fatal(err)
	}
	c := d.nextReport()
	if !strings.Contains(string(c.Body), strings.Repeat(piece, 3)) {
		t.Errorf("%d bytes came back", len(c.Body))
	}
	d.idle()
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

func TestDelayIsReported(t *testing.T) {
	fail := mailerr.Temporary(451, 3, 0, "lookup is away", errors.New("gone"))
	answers := []*mailerr.Error{fail, nil} // the first report cannot be made
	d := run(t, options{
		agent: func(m *mda.Delivery) mda.Result {
			if m.Envelope.Flags&envelope.IsBounce != 0 {
				return delivered
			}
			return tempFail("full")
		},
		expand: func(*msg.Expand) *mailerr.Error {
			err := answers[0]
			answers = answers[min(1, len(answers)-1):]
			return err
		},
	})
	id := d.submit(func(e *envelope.Envelope) { e.Created = start.Add(-5 * time.Hour) })
	e0 := mail.EnvelopeAt(id, 0)
	d.agents.next()
	d.log.Await("TempFail injecting failure report on message " + id.String())
	d.idle()
	d.ask(msg.VerbSchedule, e0.String())
	c := d.nextReport()
	for _, want := range []string{"\nAction: delayed\n", "more than 4 hours", "Will-Retry-Until: ", "user0@example.org: full"} {
		if !strings.Contains(string(c.Body), want) {
			t.Errorf("%q is missing from\n%s", want, c.Body)
		}
	}
	d.idle()
	d.updates(2)
	d.live()
	if e, err := d.store.Envelope(e0); err != nil || e.LastBounce.Sub(e.Created) != 4*time.Hour || e.Retry != 2 {
		t.Errorf("envelope %+v, %v", e, err)
	}
	// Once told, not again: not after a restart either.
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = d.crash(disk.Lose, options{agent: func(*mda.Delivery) mda.Result { return tempFail("full") }})
	d.ask(msg.VerbSchedule, "all")
	d.agents.next()
	d.idle()
	if len(d.lookup.asked) != 0 {
		t.Error("told again")
	}
}

// While lookup is away the envelope owes a report: it is never delivered again,
// and the report comes when it can, over a restart too.
func TestReportIsOwed(t *testing.T) {
	away := func(*msg.Expand) *mailerr.Error {
		return mailerr.Temporary(451, 3, 0, "lookup is away", errors.New("gone"))
	}
	for name, tc := range map[string]struct {
		change func(*envelope.Envelope)
		agent  func(*mda.Delivery) mda.Result
		action string
	}{
		"failure": {plain, refuseAll, "failed"},
		"success": {func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifySuccess }, nil, "delivered"},
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, options{agent: tc.agent, expand: away})
			id := d.submit(tc.change)
			e0 := mail.EnvelopeAt(id, 0)
			d.agents.next()
			d.updates(1)
			d.live()
			if e, err := d.store.Envelope(e0); err != nil || e.Type != envelope.Bounce {
				t.Fatalf("envelope %+v, %v", e, err)
			}
			d = d.crash(disk.Lose, options{agent: tc.agent})
			d.ask(msg.VerbSchedule, "all")
			if c := d.agents.next(); c.Envelope.Flags&envelope.IsBounce == 0 || !strings.Contains(string(c.Body), "\nAction: "+tc.action+"\n") {
				t.Errorf("delivered %+v\n%s", c.Envelope, c.Body)
			}
			d.idle()
			if ids := d.live(); len(ids) != 0 {
				t.Errorf("left: %v", ids)
			}
		})
	}
}

// Rules refuse the report, or it leads nowhere: the original is done all the
// same.
func TestReportIsRefused(t *testing.T) {
	d := run(t, options{agent: refuseAll, expand: func(x *msg.Expand) *mailerr.Error {
		if x.Rcpt.Local == "sender" {
			return mailerr.Permanent(550, 1, 1, "Invalid recipient", nil)
		}
		return nil
	}})
	d.submit(plain)
	line := d.log.Await("injecting failure report")
	if !strings.HasPrefix(line, "warn: PermFail injecting failure report on message ") || !strings.HasSuffix(line, "to <sender@example.org> for 1 envelope: 550 5.1.1 Invalid recipient") {
		t.Errorf("logged %q", line)
	}
	d.submit(func(e *envelope.Envelope) { e.Sender = addr.Cut("nowhere@example.org") })
	d.agents.next()
	d.agents.next()
	d.idle()
	if ids := d.live(); len(ids) != 0 || len(d.incoming.reserved) != 0 {
		t.Errorf("left: %v, %v", ids, d.incoming.reserved)
	}
}

// DESIGN section 2: a report commits before its original is done. The machine
// crashes after each event of the disk, losing what was not synced, and either
// the envelope or the report is there afterwards.
func TestReportCommitsBeforeDone(t *testing.T) {
	for name, choose := range map[string]disk.Choice{"lose": disk.Lose, "keep": disk.Keep, "random": disk.Random(1)} {
		t.Run(name, func(t *testing.T) {
			for n := 0; crashInReport(t, n, choose); n++ {
			}
		})
	}
}

// crashInReport tells whether the crash came before everything was over.
func crashInReport(t *testing.T, n int, choose disk.Choice) bool {
	d := run(t, options{agent: hold})
	id := d.submit(plain)
	d.agents.next()
	held := <-d.agents.held
	d.disk.CrashAfter(n)
	held.Done(permFail("no such box"))
	d.until(func() bool {
		return d.disk.Crashed() || d.rq.Counts().Inflight[envelope.MDA] == 0 || len(d.agents.held) > 0
	})
	crashed := d.disk.Crashed()
	ids := reopenAfter(t, d.disk.Reboot(choose))
	if !slices.Contains(ids, mail.EnvelopeAt(id, 0)) && len(ids) != 1 {
		t.Errorf("crash after %d events: neither the message nor a report is left: %v", n, ids)
	}
	return crashed
}

func reopenAfter(t *testing.T, fs *disk.Sim) []mail.EnvelopeID {
	t.Helper()
	d := run(t, options{disk: fs, paused: []string{"mda"}})
	return d.live()
}
