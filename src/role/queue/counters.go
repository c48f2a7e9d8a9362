package queue

import (
	"context"

	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/stat"
)

// counters are those that queue counts with; the rest it knows when asked.
type counters struct {
	envelopes, inflight, expired, removed, updated, incoming *stat.Counter
	ok, temp, perm, loop, bounce                             *stat.Counter
}

func (c *counters) init(s *stat.Set) {
	for name, to := range map[string]**stat.Counter{
		stat.Envelope: &c.envelopes, stat.EnvelopeInflight: &c.inflight, stat.EnvelopeExpired: &c.expired,
		stat.EnvelopeRemoved: &c.removed, stat.EnvelopeUpdated: &c.updated, stat.EnvelopeIncoming: &c.incoming,
		stat.DeliveryOK: &c.ok, stat.DeliveryTempFail: &c.temp, stat.DeliveryPermFail: &c.perm,
		stat.DeliveryLoop: &c.loop, stat.QueueBounce: &c.bounce,
	} {
		*to = s.Counter(name)
	}
}

func (r *Role) showStats(_ context.Context, q proc.Request) {
	reply := r.stats.Reply()
	for name, n := range r.gauges() {
		reply.Counters = append(reply.Counters, msg.Counter{Name: name, Up: int64(n)})
	}
	q.Reply(reply)
}

// gauges are the numbers that queue knows when asked.
func (r *Role) gauges() map[string]int {
	all, running, users := r.pool.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	messages, envelopes := len(r.reports.open)+len(r.reports.due), 0
	for _, g := range r.reports.open {
		envelopes += len(g.envs)
	}
	for _, g := range r.reports.due {
		envelopes += len(g.envs)
	}
	return map[string]int{
		stat.MDAEnvelope: all, stat.MDARunning: running, stat.MDAPending: all - running, stat.MDAUser: users,
		stat.BounceMessage: messages, stat.BounceEnvelope: envelopes, stat.BounceSession: r.reports.running,
	}
}
