package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/runq"
)

// verb serves one request; what it returns is the answer.
type verb func(*Role, context.Context, *msg.Control) (*msg.ControlRows, error)

// verbs is what smtpctl can ask of queue.
func verbs() map[msg.Verb]verb {
	return map[msg.Verb]verb{
		msg.VerbList:     (*Role).list,
		msg.VerbEnvelope: (*Role).showEnvelope,
		msg.VerbMessage:  (*Role).showMessage,
		msg.VerbDiscover: (*Role).discover,
		msg.VerbRemove:   change((*Role).remove),
		msg.VerbSchedule: change(locked((*runq.Queue).Schedule)),

		msg.VerbPauseEnvelope:  change(locked((*runq.Queue).Suspend)),
		msg.VerbResumeEnvelope: change(locked((*runq.Queue).Resume)),

		msg.VerbPauseMDA:  pause((*runq.Queue).Pause, envelope.MDA),
		msg.VerbResumeMDA: pause((*runq.Queue).Unpause, envelope.MDA),
		msg.VerbPauseMTA:  pause((*runq.Queue).Pause, envelope.MTA),
		msg.VerbResumeMTA: pause((*runq.Queue).Unpause, envelope.MTA),
	}
}

func (r *Role) control(ctx context.Context, q proc.Request) {
	var m msg.Control
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	serve := verbs()[m.Verb]
	if serve == nil {
		q.Fail(refuse("queue cannot do %q", m.Verb))
		return
	}
	if err := r.open(ctx); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	rows, err := serve(r, ctx, &m)
	if err != nil {
		q.Fail(mailerr.From(err))
		return
	}
	q.Reply(rows)
}

// refuse is an answer for whoever ran smtpctl.
func refuse(format string, args ...any) *mailerr.Error {
	return mailerr.Permanent(550, 5, 0, fmt.Sprintf(format, args...), nil)
}

// change is a verb that does something to the selected envelopes and tells how
// many there were.
func change(do func(*Role, runq.Selection) int) verb {
	return func(r *Role, _ context.Context, m *msg.Control) (*msg.ControlRows, error) {
		sel, err := which(m.Args)
		if err != nil {
			return nil, err
		}
		n := do(r, sel)
		r.poke()
		return &msg.ControlRows{Count: uint32(n)}, nil
	}
}

func locked(do func(*runq.Queue, runq.Selection) int) func(*Role, runq.Selection) int {
	return func(r *Role, sel runq.Selection) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return do(r.rq, sel)
	}
}

func pause(do func(*runq.Queue, envelope.Type), t envelope.Type) verb {
	return func(r *Role, _ context.Context, _ *msg.Control) (*msg.ControlRows, error) {
		r.mu.Lock()
		do(r.rq, t)
		r.mu.Unlock()
		r.poke()
		return &msg.ControlRows{}, nil
	}
}

// which reads an argument: an envelope, a message, or "all".
func which(args []string) (runq.Selection, error) {
	switch {
	case len(args) != 1:
		return runq.Selection{}, refuse("one argument is needed, not %d", len(args))
	case args[0] == "all":
		return runq.Selection{}, nil
	case len(args[0]) <= 8:
		id, err := mail.ParseMessageID(args[0])
		if err != nil {
			return runq.Selection{}, refuse("%v", err)
		}
		return runq.Selection{Message: id}, nil
	}
	id, err := mail.ParseEnvelopeID(args[0])
	if err != nil {
		return runq.Selection{}, refuse("%v", err)
	}
	return runq.Selection{Envelope: id}, nil
}

// remove takes envelopes out for good: durably even those in flight, so that
// they stay gone over a crash.
func (r *Role) remove(sel runq.Selection) int {
	r.mu.Lock()
	ids := r.rq.IDs(sel)
	r.mu.Unlock()
	n := 0
	for _, id := range ids {
		e, err := r.envelope(id) // for the log, while it is there
		r.mu.Lock()
		idle, flying := r.rq.Remove(runq.Selection{Envelope: id})
		delete(r.updated.envs, id)
		r.mu.Unlock()
		if len(idle)+len(flying) == 0 {
			continue
		}
		r.store.Done(id)
		n++
		if err == nil {
			r.env.Log.Removed(r.entry(&e))
		}
	}
	r.count.removed.Add(int64(n))
	r.count.envelopes.Sub(int64(n))
	return n
}

// discover takes in what was moved into the spool by hand, and counts what is
// there of it.
func (r *Role) discover(ctx context.Context, m *msg.Control) (*msg.ControlRows, error) {
	sel, err := which(m.Args)
	if err != nil || sel == (runq.Selection{}) {
		return nil, refuse("an envelope or a message id is needed")
	}
	found, err := r.compare(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	known := r.rq.IDs(sel)
	r.mu.Unlock()
	n := len(known)
	for _, id := range found { // and on its way already, or there
		if id == sel.Envelope || id.Message() == sel.Message {
			if _, still := slices.BinarySearch(known, id); !still {
				n++
			}
		}
	}
	return &msg.ControlRows{Count: uint32(n)}, nil
}

// listing is the order in which the queue is listed, kept between pages.
type listing struct {
	ids  []mail.EnvelopeID
	made time.Duration
	of   runq.Selection
}

const (
	// listingAge is how old the order may be that a further page goes by.
	listingAge = time.Minute
	// listingLook bounds how many envelopes are looked at for one page, so
	// that an answer comes soon even when most are not to be shown.
	listingLook = 4096
)

// list lists envelopes a page at a time.
func (r *Role) list(_ context.Context, m *msg.Control) (*msg.ControlRows, error) {
	var sel runq.Selection
	var after mail.EnvelopeID
	var err error
	if len(m.Args) > 0 {
		if sel, err = which(m.Args); err != nil {
			return nil, err
		}
	}
	if m.Cursor != "" {
		if after, err = mail.ParseEnvelopeID(m.Cursor); err != nil {
			return nil, refuse("%v", err)
		}
	}
	var page ctl.Page
	for looked, id := range r.listed(sel, after) {
		if looked == listingLook {
			return page.More(after.String()), nil
		}
		row, ok := r.row(id, m)
		if ok {
			room, err := page.Add(row)
			if err != nil {
				return nil, err
			}
			if !room {
				return page.More(id.String()), nil
			}
		}
		after = id
	}
	return page.Done(), nil
}

// listed returns the selected envelopes behind one, in ascending order.
func (r *Role) listed(sel runq.Selection, after mail.EnvelopeID) []mail.EnvelopeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.env.Clock.Mono()
	if l := &r.listing; after == 0 || l.of != sel || now-l.made > listingAge {
		*l = listing{r.rq.IDs(sel), now, sel}
	}
	i, found := slices.BinarySearch(r.listing.ids, after)
	if found {
		i++
	}
	return r.listing.ids[i:]
}

// row is one line of the list; not ok when the envelope is gone or is not to be
// seen by who asks.
func (r *Role) row(id mail.EnvelopeID, m *msg.Control) (ctl.QueueRow, bool) {
	e, err := r.envelope(id)
	r.mu.Lock()
	info, known := r.rq.Info(id)
	r.mu.Unlock()
	if err != nil || !known || !mayShow(&e, m) {
		return ctl.QueueRow{}, false
	}
	now := r.env.Clock.Now()
	row := ctl.RowOf(&e, r.conf.Load().ttl(e.Action))
	row.State, row.Seconds = "pending", int64(info.When.Sub(now).Round(time.Second)/time.Second)
	if info.Suspended {
		row.Flags = append(row.Flags, "suspend")
	}
	if info.Held {
		row.Flags = append(row.Flags, "hold")
	}
	if info.Inflight {
		row.State, row.Seconds, row.LastTry = "inflight", -row.Seconds, info.When.Unix()
	}
	return row, true
}

// mayShow tells whether who asks may see an envelope: operators all, others what
// they submitted themselves on this machine.
func mayShow(e *envelope.Envelope, m *msg.Control) bool {
	return m.Operator || e.LocalUID == m.UID && e.LocalUID != 0
}

// showEnvelope gives the text form of one envelope.
func (r *Role) showEnvelope(_ context.Context, m *msg.Control) (*msg.ControlRows, error) {
	sel, err := which(m.Args)
	if err != nil || sel.Envelope == 0 {
		return nil, refuse("an envelope id is needed")
	}
	e, err := r.envelope(sel.Envelope)
	if err != nil || !mayShow(&e, m) {
		return nil, refuse("no envelope %v", sel.Envelope)
	}
	text, err := e.AppendText(nil)
	if err != nil {
		return nil, err
	}
	return &msg.ControlRows{Raw: text}, nil
}

// showMessage gives a message piece by piece.
func (r *Role) showMessage(_ context.Context, m *msg.Control) (*msg.ControlRows, error) {
	sel, err := which(m.Args)
	if err != nil || sel == (runq.Selection{}) {
		return nil, refuse("a message id is needed")
	}
	id := sel.Message
	if sel.Envelope != 0 {
		id = sel.Envelope.Message()
	}
	var at int64
	if m.Cursor != "" {
		if at, err = strconv.ParseInt(m.Cursor, 10, 64); err != nil || at < 0 {
			return nil, refuse("no place in a message: %q", m.Cursor)
		}
	}
	if !m.Operator && !r.owns(id, m) {
		return nil, refuse("no message %v", id)
	}
	return r.piece(id, at)
}

// owns tells whether one of the envelopes of a message may be shown.
func (r *Role) owns(id mail.MessageID, m *msg.Control) bool {
	r.mu.Lock()
	ids := r.rq.IDs(runq.Selection{Message: id})
	r.mu.Unlock()
	return slices.ContainsFunc(ids, func(id mail.EnvelopeID) bool {
		e, err := r.envelope(id)
		return err == nil && mayShow(&e, m)
	})
}

func (r *Role) piece(id mail.MessageID, at int64) (*msg.ControlRows, error) {
	body, err := r.store.OpenBody(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse("no message %v", id)
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	rows := &msg.ControlRows{Raw: make([]byte, max(min(body.Size()-at, msg.ControlPage), 0))}
	n, err := body.ReadAt(rows.Raw, at)
	if err != nil && !(errors.Is(err, io.EOF) && n == len(rows.Raw)) {
		return nil, err
	}
	if next := at + int64(n); next < body.Size() {
		rows.Next = strconv.FormatInt(next, 10)
	}
	return rows, nil
}
