package dispatcher

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/smtp/server"
)

const (
	// nameTime is how long the name of a client is remembered here: for the
	// connections that follow each other. Lookup heeds DNS's own times.
	nameTime = 60 * time.Second
	// nameMax bounds the memory of clients.
	nameMax = 4096
	// nameWait is how long a greeting waits for DNS at most.
	nameWait = 10 * time.Second
)

// names asks lookup for the names of clients.
type names struct {
	lka   proc.Caller
	clock clock.Clock

	mu sync.Mutex
	m  map[netip.Addr]known
}

type known struct {
	name server.Name
	till time.Duration // monotonic
}

// find returns the name of a. Without an answer in time there is none, for now.
func (n *names) find(ctx context.Context, a netip.Addr) server.Name {
	now := n.clock.Mono()
	n.mu.Lock()
	k, ok := n.m[a]
	n.mu.Unlock()
	if ok && now < k.till {
		return k.name
	}
	name := n.ask(ctx, a)
	if !name.Temp {
		n.remember(a, known{name, now + nameTime})
	}
	return name
}

func (n *names) ask(ctx context.Context, a netip.Addr) server.Name {
	ctx, cancel := within(ctx, n.clock, nameWait)
	defer cancel()
	var r msg.RDNSReply
	if err := n.lka.Call(ctx, &msg.RDNS{Addr: a}, &r); err != nil {
		return server.Name{Temp: true}
	}
	return server.Name{Host: r.Name, Forward: r.Forward, Temp: r.Temp}
}

func (n *names) remember(a netip.Addr, k known) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.m) >= nameMax {
		n.m = nil // simpler than choosing, and lookup still knows them
	}
	if n.m == nil {
		n.m = make(map[netip.Addr]known)
	}
	n.m[a] = k
}
