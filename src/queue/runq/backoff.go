package runq

import (
	"math"
	"time"

	"opensmtpd/src/queue/envelope"
)

// Back-off: the n-th retry comes base·n² after creation.
const (
	baseLocal  = 10 * time.Second  // MDA and Bounce
	baseRemote = 400 * time.Second // MTA
)

// maxAge bounds what a creation date may claim, so that sums do not overflow.
const maxAge = 50 * 365 * 24 * time.Hour

// moment is the next try of e: the first one after now that its tries so far
// allow.
func (q *Queue) moment(e *entry, now time.Duration) time.Duration {
	t := q.dests[e.dest].typ
	n := uint64(e.retry)
	if age := now - e.born; age > 0 {
		n = max(n, uint64(math.Sqrt(float64(age/base(t)))))
	}
	for e.born+backoff(t, n) <= now {
		n++
	}
	return e.born + backoff(t, n)
}

func (q *Queue) wall(at, now time.Duration) time.Time { return q.clock.Now().Add(at - now) }

func base(t envelope.Type) time.Duration {
	if t == envelope.MTA {
		return baseRemote
	}
	return baseLocal
}

// backoff is how long after creation the n-th retry comes.
func backoff(t envelope.Type, n uint64) time.Duration {
	b := base(t)
	if n > 1<<16 || n*n > uint64(2*maxAge/b) {
		return 2 * maxAge
	}
	return b * time.Duration(n*n)
}

// warning returns the largest age that lies before the next try, and before
// expiry, and was not told yet.
func (q *Queue) warning(e *entry) time.Duration {
	var due time.Duration
	for _, w := range q.conf.Warn {
		if w > due && w <= e.at-e.born && w < e.expire-e.born && w/time.Second > time.Duration(e.warned) {
			due = w
		}
	}
	if due > 0 {
		e.warned = uint32(min(due/time.Second, math.MaxUint32))
	}
	return due
}

// reprieve lets an entry that is too old be tried once before it expires, but
// not wait for that beyond the given moment.
func (e *entry) reprieve(until time.Duration) {
	e.flags |= overdue
	e.expire = until
}

// tried ends a reprieve.
func (e *entry) tried(now time.Duration) {
	if e.flags&overdue != 0 {
		e.flags &^= overdue
		e.expire = now
	}
}
