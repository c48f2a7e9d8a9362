package queue

import (
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
)

// updateSeen is after how long the store surely shows an update: it writes it
// within 100 ms, when the disk is well.
const updateSeen = 5 * time.Second

// updated holds envelopes whose new state was given to the store lately. The
// store shows what is durable; whoever asks here must not see an older state
// than the one he set, or an envelope that owes a report might be delivered
// again.
type updated struct {
	envs  map[mail.EnvelopeID]*envelope.Envelope
	order []update // the oldest first
}

type update struct {
	env *envelope.Envelope
	at  time.Duration
}

// note keeps the new state of an envelope; r.mu is held, and has been since the
// run queue learned of it: nobody can start it in its old state. What note
// returns is to be written.
func (r *Role) note(e *envelope.Envelope) *envelope.Envelope {
	c := *e
	r.updated.envs[e.ID] = &c
	r.updated.order = append(r.updated.order, update{&c, r.env.Clock.Mono()})
	return &c
}

// record writes what note returned. The store refuses it only for a fault in
// ourselves; then the envelope is as before after a restart.
func (r *Role) record(e *envelope.Envelope) {
	if err := r.store.Update(e); err != nil {
		r.env.Log.UpdateRefused(e.ID, err)
		return
	}
	r.count.updated.Add(1)
}

// envelope returns a copy of an envelope in its last state.
func (r *Role) envelope(id mail.EnvelopeID) (envelope.Envelope, error) {
	r.mu.Lock()
	if e := r.updated.envs[id]; e != nil {
		defer r.mu.Unlock()
		return *e, nil
	}
	r.mu.Unlock()
	return r.store.Envelope(id)
}

// forgetUpdates drops what the store shows by now.
func (r *Role) forgetUpdates() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.intake.store != nil {
		return // what could not be written waits there
	}
	u := &r.updated
	limit := r.env.Clock.Mono() - updateSeen
	for len(u.order) > 0 && u.order[0].at < limit {
		if e := u.order[0].env; u.envs[e.ID] == e {
			delete(u.envs, e.ID)
		}
		u.order[0] = update{}
		u.order = u.order[1:]
	}
}
