package queue

import (
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/bounce"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/mlog"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/runq"
)

// start begins what the run queue has handed out.
func (r *Role) start(job runq.Job) {
	e, err := r.envelope(job.ID)
	if err != nil {
		r.unreadable(job.ID, err)
		return
	}
	if a := r.conf.Load().action(e.Type, e.Action); a != e.Action {
		r.env.Log.Infof("info: queue: envelope %v names no action, as before OpenSMTPD 6.4: taking %q", e.ID, a)
		e.Action = a
	}
	switch {
	case job.Expired:
		r.expire(&e)
	case e.Type == envelope.Bounce:
		r.owe(&e)
	case e.Type == envelope.MTA:
		r.relay(&e)
	default:
		r.deliver(&e)
	}
}

// unreadable deals with an envelope that cannot be loaded: one that is gone or
// damaged for good is forgotten; otherwise it is tried again.
func (r *Role) unreadable(id mail.EnvelopeID, err error) {
	r.env.Log.EnvelopeLost(id, err)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
		r.forget(id)
	} else {
		r.putBack(id)
	}
}

// maxPinned bounds what bodies take in memory while they wait for an agent, in
// bytes. Those beyond are read when their turn comes.
const maxPinned = 64 << 20

// body is that of a message under delivery: in memory, or opened when it is
// first read.
type body struct {
	role   *Role
	id     mail.MessageID
	size   int64
	bytes  []byte
	mu     sync.Mutex
	reader *store.Reader
	err    error
}

func (r *Role) openBody(id mail.MessageID) (*body, error) {
	reader, err := r.store.OpenBody(id)
	if err != nil {
		return nil, err
	}
	b := &body{role: r, id: id, size: reader.Size()}
	if bytes := reader.Bytes(); bytes != nil && r.pin(int64(len(bytes))) {
		b.bytes = bytes
	}
	return b, reader.Close()
}

// pin counts n bytes, if they may be kept in memory.
func (r *Role) pin(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pinned+n > maxPinned {
		return false
	}
	r.pinned += n
	return true
}

// ReadAt implements io.ReaderAt.
func (b *body) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	if b.reader == nil && b.err == nil {
		b.reader, b.err = b.role.store.OpenBody(b.id)
	}
	reader, err := b.reader, b.err
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return reader.ReadAt(p, off)
}

// source is what to give beside bytes: nothing when those are all.
func (b *body) source() io.ReaderAt {
	if b.bytes != nil {
		return nil
	}
	return b
}

// close ends the use of b.
func (b *body) close() {
	b.mu.Lock()
	reader := b.reader
	b.reader, b.err = nil, io.ErrClosedPipe
	b.mu.Unlock()
	if reader != nil {
		reader.Close()
	}
	if b.bytes != nil {
		b.role.mu.Lock()
		b.role.pinned -= int64(len(b.bytes))
		b.role.mu.Unlock()
	}
}

// deliver hands an envelope to the delivery agents.
func (r *Role) deliver(e *envelope.Envelope) {
	began := r.env.Clock.Now()
	b, err := r.openBody(e.ID.Message())
	if err != nil {
		r.env.Log.EnvelopeLost(e.ID, err)
		r.failed(e, began, "Cannot open message", mailerr.Local(err))
		return
	}
	session := mail.SessionID(r.session.Add(0x9e3779b97f4a7c15)) // odd: all differ
	r.pool.Deliver(&mda.Delivery{
		Gen: r.conf.Load().gen, Envelope: e, Size: b.size, Body: b.bytes, Reader: b.source(),
		Done: func(res mda.Result) {
			b.close()
			r.delivered(e, began, session, res)
		},
	})
}

// delivered takes the result of an agent.
func (r *Role) delivered(e *envelope.Envelope, began time.Time, session mail.SessionID, res mda.Result) {
	if r.cutShort(res.Err) {
		r.putBack(e.ID)
		return
	}
	result := "Ok"
	switch {
	case res.Err == nil:
		r.count.ok.Add(1)
	case res.Err.Class == mailerr.Temp:
		result = "TempFail"
	default:
		result = "PermFail"
	}
	from := ""
	if e.Sender.Local != "" && e.Sender.Domain != "" {
		from = e.Sender.SMTP()
	}
	user := e.MDAUser
	if user == "" {
		user = e.Dest.Local
	}
	r.env.Log.Delivered(mlog.Delivery{
		Session: session, ID: e.ID, From: from, To: e.Dest.SMTP(), Rcpt: e.Rcpt.SMTP(), User: user,
		Delay: began.Sub(e.Created), Result: result, Stat: res.Stat,
	})
	if res.Err == nil {
		r.succeeded(e, began, false)
		return
	}
	r.failed(e, began, res.Err.Text, res.Err)
}

// relay hands an envelope to the relayer.
func (r *Role) relay(e *envelope.Envelope) {
	began := r.env.Clock.Now()
	b, err := r.openBody(e.ID.Message())
	if err != nil {
		r.env.Log.EnvelopeLost(e.ID, err)
		r.failed(e, began, "Cannot open message", mailerr.Local(err))
		return
	}
	dest := r.relayer.Dest(e.Action, e.Dest.Domain)
	r.relayer.Relay(&Relaying{
		Gen: r.conf.Load().gen, Envelope: e, Size: b.size, Body: b.bytes, Reader: b.source(),
		Done: func(res Relayed) {
			b.close()
			r.relayed(e, began, dest, res)
		},
	})
}

func (r *Role) relayed(e *envelope.Envelope, began time.Time, dest string, res Relayed) {
	if res.Returned || r.cutShort(res.Err) {
		r.putBack(e.ID)
		return
	}
	if res.Unreachable {
		r.mu.Lock()
		r.rq.Defer(envelope.MTA, dest)
		r.mu.Unlock()
	}
	if res.Err == nil {
		r.count.ok.Add(1)
		r.succeeded(e, began, res.NoDSN)
		return
	}
	line := res.Line
	if line == "" {
		line = res.Err.Reply()
	}
	r.failed(e, began, line, res.Err)
}

// cutShort tells a try that ended because we stop from one that failed.
func (r *Role) cutShort(err *mailerr.Error) bool {
	if err == nil || err.Class != mailerr.Temp || err.Enhanced != (mailerr.Enhanced{4, 3, 2}) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}

// putBack ends a try that was none. The store is not told: after a restart it is
// as if it had not begun.
func (r *Role) putBack(id mail.EnvelopeID) {
	r.mu.Lock()
	r.rq.Retry(id)
	r.mu.Unlock()
	r.count.inflight.Sub(1)
}

// succeeded completes an envelope; first the sender is told, if he asked.
func (r *Role) succeeded(e *envelope.Envelope, began time.Time, relayed bool) {
	if !bounce.Wanted(e, envelope.BounceDelivered) {
		r.complete(e.ID)
		return
	}
	e.LastTry, e.ESCClass, e.ESCCode, e.ErrorLine = began, 2, 0, ""
	r.report(reportKey{message: e.ID.Message(), typ: envelope.BounceDelivered, relayed: relayed}, e)
}

// complete forgets an envelope that is in flight.
func (r *Role) complete(id mail.EnvelopeID) {
	r.store.Done(id)
	r.forget(id)
}

// forget ends the flight of an envelope that the store has completed.
func (r *Role) forget(id mail.EnvelopeID) {
	r.mu.Lock()
	removed := r.rq.Done(id)
	delete(r.updated.envs, id)
	r.mu.Unlock()
	r.count.inflight.Sub(1)
	if !removed {
		r.count.envelopes.Sub(1)
	}
	r.poke()
}

// failed deals with a try that failed, for now or for ever; line is for the
// envelope and the report.
func (r *Role) failed(e *envelope.Envelope, began time.Time, line string, err *mailerr.Error) {
	e.ESCClass, e.ESCCode = uint8(err.Class)+3, escCode(err.Enhanced)
	if e.ESCCode == 0 && err.Enhanced[1] > 0 && line == err.Text {
		line = err.Reply() // the code has no other place
	}
	e.ErrorLine, e.LastTry = errorLine(line), began
	if err.Class == mailerr.Temp {
		r.count.temp.Add(1)
		r.again(e)
		return
	}
	e.ESCClass = 5
	if err.Enhanced == (mailerr.Enhanced{5, 4, 6}) {
		r.count.loop.Add(1)
	} else {
		r.count.perm.Add(1)
	}
	r.giveUp(e)
}

// again puts an envelope back until its next moment, and tells the sender of
// the delay when it is time to.
func (r *Role) again(e *envelope.Envelope) {
	if e.Retry < math.MaxUint16 {
		e.Retry++
	}
	v, noted := r.retry(e)
	r.count.inflight.Sub(1)
	defer r.poke()
	if v.Removed {
		return
	}
	r.record(noted)
	if v.Warn > 0 && e.Type != envelope.Bounce && bounce.Wanted(e, envelope.BounceDelayed) {
		told := *e
		r.report(reportKey{
			message: e.ID.Message(), typ: envelope.BounceDelayed, delay: v.Warn, before: v.Before,
		}, &told)
	}
}

// retry puts e back into the run queue in its new state.
func (r *Role) retry(e *envelope.Envelope) (runq.Verdict, *envelope.Envelope) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.rq.Retry(e.ID)
	if v.Removed {
		return v, nil
	}
	if v.Told > 0 {
		e.LastBounce = e.Created.Add(v.Told)
	}
	return v, r.note(e)
}

// giveUp ends an envelope that will never be delivered: the sender is told.
func (r *Role) giveUp(e *envelope.Envelope) {
	if !bounce.Wanted(e, envelope.BounceFailed) {
		r.complete(e.ID)
		return
	}
	r.report(reportKey{message: e.ID.Message(), typ: envelope.BounceFailed}, e)
}

// expire gives up an envelope because of its age.
func (r *Role) expire(e *envelope.Envelope) {
	r.count.expired.Add(1)
	r.env.Log.Expired(r.entry(e))
	if e.Type == envelope.Bounce {
		r.complete(e.ID) // the sender cannot be told, and nobody else is to be
		return
	}
	last := e.ErrorLine
	e.ErrorLine, e.ESCClass, e.ESCCode = "Envelope expired", 5, 47
	if last != "" {
		e.ErrorLine = errorLine("Envelope expired, the last failure was: " + last)
	}
	r.giveUp(e)
}

// entry is an envelope as the log shows it.
func (r *Role) entry(e *envelope.Envelope) mlog.Entry {
	return mlog.Entry{
		ID: e.ID, MDA: e.Type == envelope.MDA, From: e.Sender.SMTP(), To: e.Dest.SMTP(), Rcpt: e.Rcpt.SMTP(),
		Delay: r.env.Clock.Now().Sub(e.Created),
	}
}

// maxErrorLine is how much of a failure an envelope keeps, in bytes; OpenSMTPD
// keeps as much.
const maxErrorLine = 1000

// errorLine makes one line of what a delivery program or a server said: control
// characters become spaces (CVE-2020-8794: nothing of it may look like another
// field).
func errorLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxErrorLine {
		s = strings.ToValidUTF8(s[:maxErrorLine], "")
	}
	return strings.TrimSpace(s)
}

// escCode is subject and detail in OpenSMTPD's one number, 0 for what does not
// fit.
func escCode(e mailerr.Enhanced) uint8 {
	if e[1] > 24 || e[2] > 9 {
		return 0
	}
	return uint8(e[1]*10 + e[2])
}
