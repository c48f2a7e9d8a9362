package pki

import (
	"context"
	"crypto"
	"io"
	"net"
	"net/netip"
	"sync"
)

// Turns bounds how many signatures are made at once, and shares them fairly:
// networks of clients take turns, however many handshakes one of them begins. A
// client that does not go on with its handshake has no turn and keeps nobody
// waiting.
type Turns struct {
	mu      sync.Mutex
	free    int
	waiting map[netip.Prefix][]chan struct{} // by network, first come first
	round   []netip.Prefix                   // those of waiting, the next one first
}

// NewTurns returns Turns of which n are taken at once.
func NewTurns(n int) *Turns {
	return &Turns{free: n, waiting: make(map[netip.Prefix][]chan struct{})}
}

// take waits for a turn of a network, which give ends.
func (t *Turns) take(ctx context.Context, from netip.Prefix) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	if len(t.waiting[from]) == 0 {
		t.round = append(t.round, from)
	}
	t.waiting[from] = append(t.waiting[from], turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	// The turn will come all the same; whoever is at the end of his time passes
	// it on.
	go func() { <-turn; t.give() }()
	return ctx.Err()
}

// give ends a turn: the next network has it, and goes to the end of the round.
func (t *Turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.round) == 0 {
		t.free++
		return
	}
	from := t.round[0]
	t.round = t.round[1:]
	list := t.waiting[from]
	close(list[0])
	if list = list[1:]; len(list) == 0 {
		delete(t.waiting, from)
		return
	}
	t.waiting[from] = list
	t.round = append(t.round, from)
}

// network is what counts as one stranger: an address of IPv4, a /64 of IPv6.
func network(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// queued is a signer that takes turns.
type queued struct {
	*signer
	turns *Turns
	from  netip.Prefix
}

// Sign implements crypto.Signer.
func (q *queued) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := q.turns.take(q.ctx, q.from); err != nil {
		return nil, err
	}
	defer q.turns.give()
	return q.signer.Sign(r, digest, opts)
}
