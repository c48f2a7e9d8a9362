package queue

import (
	"context"
	"fmt"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/envelope"
)

// commit makes a message durable and answers when it is.
func (r *Role) commit(_ context.Context, q proc.Request) {
	var m msg.Commit
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	r.spend(len(m.Body))
	r.mu.Lock()
	t := r.incoming.transaction(m.Message)
	known := t != nil && !t.ours && t.commit == nil
	r.mu.Unlock()
	if !known {
		q.Reply(&msg.Committed{Err: mailerr.Local(fmt.Errorf("message %v is not being received", m.Message))})
		return
	}
	r.ask(t, &commit{
		envelopes: m.Envelopes, streamed: m.Streamed, optional: m.TLSOptional,
		message: store.Message{ID: m.Message, Inline: m.Body},
		done: func(err error) {
			e := mailerr.From(err)
			if e != nil && e.Cause != nil {
				r.env.Log.Transaction(m.Message, e.Error())
			}
			q.Reply(&msg.Committed{Err: e})
		},
	})
}

// ask makes c durable, now or as soon as its envelopes have come.
func (r *Role) ask(t *transaction, c *commit) {
	c.deadline = r.env.Clock.Mono() + patience
	done := c.done
	c.done = func(err error) {
		done(err)
		r.work.Done()
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		done(closing())
		return
	}
	r.work.Add(1) // until done: the store is not closed before
	if !c.streamed && t.body != c.message.Body || c.envelopes == 0 || len(c.message.Inline) > store.InlineMax {
		t.bad = mailerr.Local(fmt.Errorf("commit of message %v contradicts itself", t.id))
	}
	if t.bad == nil && c.streamed && t.body == nil {
		t.bad = mailerr.Local(fmt.Errorf("no body came for message %v", t.id))
	}
	t.commit = c
	settled := t.settled(&r.incoming)
	if settled == nil {
		r.incoming.waiting = append(r.incoming.waiting, t)
	}
	r.mu.Unlock()
	if settled != nil {
		r.settle(t, settled)
	} else {
		r.poke()
	}
}

// settle commits a transaction that has ended, or says why it cannot be.
func (r *Role) settle(t *transaction, c *commit) {
	bad := t.bad
	if bad == nil {
		bad = t.check(c.envelopes)
	}
	if c.optional {
		for i := range t.envs {
			t.envs[i].Flags |= envelope.TLSOptional
		}
	}
	switch {
	case bad != nil:
		r.abandon(t)
		c.done(bad)
	case c.streamed:
		// Closing waits for the disk.
		r.work.Go(func() { r.closeBody(t, c) })
	default:
		r.store.CommitAsync(c.message, t.envs, func(err error) { r.committed(t, c, err) })
	}
}

func (r *Role) closeBody(t *transaction, c *commit) {
	if err := t.body.Close(); err != nil {
		r.abandon(t)
		c.done(err)
		return
	}
	c.message.Body, c.message.Inline = t.body, nil
	r.store.CommitAsync(c.message, t.envs, func(err error) { r.committed(t, c, err) })
}

// check tells whether the envelopes are those that were announced: numbered
// from 0, each once.
func (t *transaction) check(n uint32) *mailerr.Error {
	if len(t.envs) != int(n) {
		return mailerr.Local(fmt.Errorf("%w: %d of %d", errTooFew, len(t.envs), n))
	}
	if n == 1 && t.envs[0].ID == mail.EnvelopeAt(t.id, 0) {
		return nil
	}
	want := make(map[mail.EnvelopeID]bool, n)
	for i := range n {
		want[mail.EnvelopeAt(t.id, i)] = true
	}
	for i := range t.envs {
		if !want[t.envs[i].ID] {
			return mailerr.Local(fmt.Errorf("envelope %v is there twice or was not announced", t.envs[i].ID))
		}
		delete(want, t.envs[i].ID)
	}
	return nil
}

// committed is called by the store. The order matters: who sees the 250 sees
// the message in the queue.
func (r *Role) committed(t *transaction, c *commit, err error) {
	if err != nil {
		r.soon(func() { r.abandon(t) })
		c.done(err)
		return
	}
	r.mu.Lock()
	for i := range t.envs {
		r.rq.Insert(r.item(&t.envs[i]))
	}
	r.mu.Unlock()
	r.count.envelopes.Add(int64(len(t.envs)))
	c.done(nil)
	r.poke()
}

// abandon removes what the disk has of a transaction that has ended, and gives
// its identifier back.
func (r *Role) abandon(t *transaction) {
	if t.body != nil {
		t.body.Abort()
	}
	r.store.Release(t.id)
}
