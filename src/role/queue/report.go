package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"opensmtpd/src/bounce"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/envelope"
)

const (
	// maxReports bounds how many reports are made at a time.
	maxReports = 8
	// gather is how long a report waits for other recipients of the same
	// message.
	gather = time.Second
	// maxRecipients bounds how many recipients one report is about.
	maxRecipients = 1000
	// reportTime bounds how long making one may take.
	reportTime = time.Minute
	// reportTTL is how much longer an envelope lives that owes a report.
	reportTTL = 7 * 24 * time.Hour
)

// reportKey tells what goes into one report.
type reportKey struct {
	message mail.MessageID
	typ     envelope.BounceType
	relayed bool
	owed    bool          // by an envelope of type Bounce
	delay   time.Duration // of a delay report
	before  time.Duration // what was told before it
}

// pendingReport gathers recipients. Those of failures and of success stay in
// flight until the report is on stable storage; those of a delay do not.
type pendingReport struct {
	reportKey
	envs []*envelope.Envelope
	due  time.Duration
	sent bool // to those that are made: takes no more
}

// reports are those that are to be made.
type reports struct {
	open    map[reportKey]*pendingReport
	waiting []*pendingReport // gathering; the oldest first
	due     []*pendingReport
	running int
}

func (p *reports) init() { p.open = make(map[reportKey]*pendingReport) }

// deadline is when the oldest that gathers is due.
func (p *reports) deadline() (time.Duration, bool) {
	for len(p.waiting) > 0 && p.waiting[0].sent {
		p.waiting[0] = nil
		p.waiting = p.waiting[1:]
	}
	if len(p.waiting) == 0 {
		return 0, false
	}
	return p.waiting[0].due, true
}

// send takes a report out of those that gather.
func (p *reports) send(g *pendingReport) {
	g.sent = true
	delete(p.open, g.reportKey)
	p.due = append(p.due, g)
}

// report makes e part of a report.
func (r *Role) report(key reportKey, e *envelope.Envelope) {
	r.mu.Lock()
	p := &r.reports
	g := p.open[key]
	if g == nil {
		g = &pendingReport{reportKey: key, due: r.env.Clock.Mono() + gather}
		p.open[key] = g
		p.waiting = append(p.waiting, g)
	}
	g.envs = append(g.envs, e)
	if len(g.envs) >= maxRecipients || r.rq.Alone(key.message) {
		p.send(g)
	}
	r.mu.Unlock()
	r.poke()
}

// owe makes the report that an envelope is about which could not be made
// before, or which OpenSMTPD left in its spool.
func (r *Role) owe(e *envelope.Envelope) {
	r.report(reportKey{message: e.ID.Message(), typ: e.BounceType, owed: true, delay: e.BounceDelay}, e)
}

// startReports makes those that are due, as many at a time as allowed.
func (r *Role) startReports(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.reports
	for {
		at, ok := p.deadline()
		if !ok || at > r.env.Clock.Mono() {
			break
		}
		p.send(p.waiting[0])
	}
	for len(p.due) > 0 && p.running < maxReports && !r.stopping {
		g := p.due[0]
		p.due[0], p.due = nil, p.due[1:]
		p.running++
		r.work.Go(func() {
			r.makeReport(ctx, g)
			r.mu.Lock()
			r.reports.running--
			r.mu.Unlock()
			r.poke()
		})
	}
}

// makeReport sends one report, or sees to it that it is sent later.
func (r *Role) makeReport(ctx context.Context, g *pendingReport) {
	r.dropRemoved(g)
	if len(g.envs) == 0 {
		return
	}
	ctx, cancel := r.within(ctx, reportTime)
	defer cancel()
	err := r.sendReport(ctx, g)
	if err == nil {
		r.reported(g)
		return
	}
	refused := err.Class != mailerr.Temp
	r.env.Log.ReportFailed(refused, g.message, g.envs[0].Sender.SMTP(), len(g.envs), err.Error())
	switch {
	case !g.inFlight() && refused: // it would be again
	case !g.inFlight():
		r.unwarn(g)
	case refused:
		for _, e := range g.envs {
			r.complete(e.ID)
		}
	default:
		r.postpone(g)
	}
}

// within is context.WithTimeout by our clock.
func (r *Role) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	late, unwait := r.env.Clock.After(d)
	r.work.Go(func() {
		defer unwait()
		select {
		case <-late:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

// inFlight tells whether the envelopes of a report are: all but those of a
// delay, which go on.
func (g *pendingReport) inFlight() bool { return g.typ != envelope.BounceDelayed || g.owed }

// dropRemoved takes out what an administrator removed meanwhile.
func (r *Role) dropRemoved(g *pendingReport) {
	inFlight := g.inFlight()
	kept := g.envs[:0]
	for _, e := range g.envs {
		r.mu.Lock()
		_, known := r.rq.Info(e.ID)
		r.mu.Unlock()
		if known {
			kept = append(kept, e)
		} else if inFlight {
			r.forget(e.ID)
		}
	}
	g.envs = kept
}

// sendReport makes the report and commits it, and in the same moment completes
// the envelopes that it is about.
func (r *Role) sendReport(ctx context.Context, g *pendingReport) *mailerr.Error {
	ids, err := r.reserve(1, true)
	if err != nil {
		return mailerr.From(err)
	}
	id := ids[0]
	host := g.envs[0].SMTPName
	if host == "" {
		host = r.conf.Load().conf.ServerName
	}
	var x msg.Expanded
	if err := r.env.Peers[proc.Lookup].Call(ctx, r.question(g, id, host), &x); err != nil {
		r.dropReport(id)
		return mailerr.From(err)
	}
	if x.Err != nil || x.Added == 0 {
		r.dropReport(id)
		if x.Err == nil {
			r.leave(g) // an alias that leads nowhere
		}
		return x.Err
	}
	m := store.Message{ID: id}
	size, err := r.write(ctx, g, &m, host)
	if err != nil {
		r.dropReport(id)
		return mailerr.From(err)
	}
	if g.inFlight() {
		for _, e := range g.envs {
			m.Done = append(m.Done, e.ID)
		}
	}
	t, err := r.commitReport(ctx, m, x.Added)
	if err != nil {
		return mailerr.From(err)
	}
	r.logReport(g, t, size)
	return nil
}

// question is what lookup is asked: who gets the report, as for any message of
// this machine.
func (r *Role) question(g *pendingReport, id mail.MessageID, host string) *msg.Expand {
	flags := envelope.IsBounce | envelope.Internal | g.envs[0].Flags&envelope.OursAlone
	return &msg.Expand{
		Gen: r.conf.Load().gen, Session: mail.SessionID(r.session.Add(0x9e3779b97f4a7c15)), Message: id,
		Flags:  flags,
		Client: msg.Client{Socket: true, RDNS: "localhost", Helo: host, SMTPName: host},
		Sender: addr.Address{}, Rcpt: g.envs[0].Sender, Now: r.env.Clock.Now(),
	}
}

// write gives m its body. The message that the report is about is missing from
// it when it cannot be found any more or is damaged.
func (r *Role) write(ctx context.Context, g *pendingReport, m *store.Message, host string) (size int64, err error) {
	rep := bounce.Report{
		Type: g.typ, Relayed: g.relayed, Delay: g.delay, ID: m.ID, Host: host, Date: r.env.Clock.Now(), Nonce: random64(),
	}
	for _, e := range g.envs {
		rep.Envelopes = append(rep.Envelopes, *e)
	}
	var original io.ReaderAt
	var length int64
	b, err := r.openBody(g.message)
	switch {
	case errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged):
		r.env.Log.EnvelopeLost(g.envs[0].ID, err)
	case err != nil:
		return 0, err
	default:
		defer b.close()
		original, length = b, b.size
	}
	text, err := rep.Compose(original, length)
	if err != nil {
		return 0, err
	}
	return text.Size(), r.fill(ctx, m, text)
}

// fill writes the text, into memory or as a large body.
func (r *Role) fill(ctx context.Context, m *store.Message, text *bounce.Text) error {
	if text.Size() <= store.InlineMax {
		b := bytes.NewBuffer(make([]byte, 0, text.Size()))
		_, err := text.WriteTo(b)
		m.Inline = b.Bytes()
		return err
	}
	body, err := r.store.NewBody(ctx, m.ID)
	if err != nil {
		return err
	}
	if _, err = text.WriteTo(writerOnly{body}); err == nil {
		err = body.Close()
	}
	if err != nil {
		body.Abort()
		return err
	}
	m.Body = body
	return nil
}

// writerOnly hides what else a body can do, so that io.Copy hands it pieces.
type writerOnly struct{ io.Writer }

// commitReport waits until the report, with the n envelopes that lookup sent,
// is durable.
func (r *Role) commitReport(ctx context.Context, m store.Message, n uint32) (*transaction, error) {
	r.mu.Lock()
	t := r.incoming.transaction(m.ID)
	r.mu.Unlock()
	if t == nil {
		return nil, closing()
	}
	t.body = m.Body
	done := make(chan error, 1)
	r.ask(t, &commit{envelopes: n, message: m, done: func(err error) { done <- err }})
	// Once asked for it cannot be called off; patience bounds the wait for
	// lookup, and the store always answers.
	return t, <-done
}

// dropReport gives up a report whose commit was not asked for.
func (r *Role) dropReport(id mail.MessageID) {
	r.mu.Lock()
	t := r.incoming.transaction(id)
	if t != nil {
		r.incoming.end(t)
	}
	r.mu.Unlock()
	if t != nil {
		r.store.Release(id)
	}
}

// leave completes envelopes whose report nobody gets.
func (r *Role) leave(g *pendingReport) {
	if g.inFlight() {
		for _, e := range g.envs {
			r.store.Done(e.ID)
		}
	}
}

// logReport writes the lines that the report would have got from a session.
func (r *Role) logReport(g *pendingReport, t *transaction, size int64) {
	r.count.bounce.Add(1)
	r.env.Log.Reported(g.message, t.id, g.envs[0].Sender.SMTP(), len(g.envs))
	session := mail.SessionID(r.session.Add(0x9e3779b97f4a7c15))
	r.env.Log.SMTPMessage(session, t.id, size, len(t.envs), "ESMTP")
	for i := range t.envs {
		r.env.Log.SMTPEnvelope(session, t.envs[i].ID, "", t.envs[i].Dest.SMTP())
	}
}

// reported forgets envelopes that the report has completed.
func (r *Role) reported(g *pendingReport) {
	if !g.inFlight() {
		return
	}
	for _, e := range g.envs {
		r.forget(e.ID)
	}
}

// unwarn lets a delay be told at the next failure.
func (r *Role) unwarn(g *pendingReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range g.envs {
		r.rq.SetTold(e.ID, g.before)
	}
}

// postpone turns envelopes whose report cannot be made now into such that owe
// one: they are not delivered again, whatever happens.
func (r *Role) postpone(g *pendingReport) {
	for _, e := range g.envs {
		if e.Type == envelope.Bounce {
			r.again(e)
			continue
		}
		e.Type, e.Retry = envelope.Bounce, 1
		e.BounceType, e.BounceDelay, e.BounceTTL = g.typ, g.delay, e.TTL
		e.TTL = r.env.Clock.Now().Sub(e.Created) + reportTTL
		var noted *envelope.Envelope
		r.mu.Lock()
		if removed := r.rq.Done(e.ID); !removed {
			noted = r.note(e)
			r.rq.Insert(r.item(e))
		}
		r.mu.Unlock()
		r.count.inflight.Sub(1)
		if noted != nil {
			r.record(noted)
		}
	}
	r.poke()
}
