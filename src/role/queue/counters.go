package queue

import (
	"context"

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

func (r *Role) showStats(_ context.Context, q proc.Request) { q.Reply(r.stats.Reply()) }
