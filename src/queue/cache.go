package queue

import (
	"opensmtpd/src/queue/envelope"
)

// cache keeps the bodies and envelopes of recent messages in memory, up to a
// number of bytes: mail that is delivered at once is never read from the disk.
// It is a list, newest first; the lock of the store guards it.
type cache struct {
	newest, oldest *message
	bytes, max     int64
}

// envelopeCost is what a cached envelope counts for.
const envelopeCost = 768

// remember makes m the newest.
func (c *cache) remember(m *message, body []byte, envs []envelope.Envelope) {
	weight := int64(len(body)) + int64(len(envs))*envelopeCost
	if weight > c.max {
		return
	}
	m.body, m.recent, m.weight = body, envs, weight
	c.bytes += weight
	m.next = c.newest
	if c.newest != nil {
		c.newest.prev = m
	}
	c.newest = m
	if c.oldest == nil {
		c.oldest = m
	}
	for c.bytes > c.max {
		c.forget(c.oldest)
	}
}

// forget takes m out, if it is in.
func (c *cache) forget(m *message) {
	if m.weight == 0 {
		return
	}
	if m.prev != nil {
		m.prev.next = m.next
	} else {
		c.newest = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	} else {
		c.oldest = m.prev
	}
	c.bytes -= m.weight
	m.body, m.recent, m.prev, m.next, m.weight = nil, nil, nil, nil, 0
}
