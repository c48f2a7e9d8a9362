package mta

import (
	"time"

	"opensmtpd/src/mail/addr"
)

const (
	// hoststatLife is how long it is remembered how the last delivery to a
	// domain went.
	hoststatLife = 4 * time.Hour
	// maxHoststats bounds the domains remembered: some 200 bytes each.
	maxHoststats = 10_000
)

// hoststats remember how the last delivery to each domain went.
type hoststats struct{ m map[string]hoststat }

type hoststat struct {
	when  time.Time
	until time.Duration
	text  string
}

func (h *hoststats) init() { h.m = make(map[string]hoststat) }

// set notes what a server of a domain said.
func (h *hoststats) set(domain, text string, wall time.Time, now time.Duration) {
	key := addr.Lower(domain)
	if _, known := h.m[key]; !known && len(h.m) >= maxHoststats {
		h.sweep(now)
		for k := range h.m {
			if len(h.m) < maxHoststats {
				break
			}
			delete(h.m, k) // all fresh: any will do
		}
	}
	h.m[key] = hoststat{wall, now + hoststatLife, text}
}

// sweep forgets what is old.
func (h *hoststats) sweep(now time.Duration) {
	for k, s := range h.m {
		if s.until <= now {
			delete(h.m, k)
		}
	}
}
