package dispatcher

import (
	"context"
	"sync"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

const (
	// idBatch is how many message identifiers are asked of queue at once, and
	// idLow how few may be left before more are: enough that MAIL never waits
	// at some thousand messages a second.
	idBatch = 256
	idLow   = 128
)

// idPool holds message identifiers that queue has reserved for us.
type idPool struct {
	queue proc.Caller

	mu     sync.Mutex
	ids    []mail.MessageID
	err    *mailerr.Error // why the last refill failed
	filled chan struct{}  // closed after the next refill
	want   chan struct{}  // receives when a refill is due
}

func newIDPool(queue proc.Caller) *idPool {
	return &idPool{queue: queue, filled: make(chan struct{}), want: make(chan struct{}, 1)}
}

// take returns an identifier. It waits only when the pool is empty.
func (p *idPool) take(ctx context.Context) (mail.MessageID, *mailerr.Error) {
	for tried := false; ; tried = true {
		p.mu.Lock()
		n := len(p.ids)
		if n <= idLow {
			p.ask()
		}
		if n > 0 {
			id := p.ids[n-1]
			p.ids = p.ids[:n-1]
			p.mu.Unlock()
			return id, nil
		}
		filled, err := p.filled, p.err
		p.mu.Unlock()
		if tried && err != nil {
			return 0, err
		}
		select {
		case <-filled:
		case <-ctx.Done():
			return 0, mailerr.Local(ctx.Err())
		}
	}
}

func (p *idPool) ask() {
	select {
	case p.want <- struct{}{}:
	default:
	}
}

// run refills until ctx ends.
func (p *idPool) run(ctx context.Context) {
	for {
		p.refill(ctx)
		select {
		case <-p.want:
		case <-ctx.Done():
			return
		}
	}
}

func (p *idPool) refill(ctx context.Context) {
	var got msg.ReservedIDs
	err := p.queue.Call(ctx, &msg.ReserveIDs{N: idBatch}, &got)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = mailerr.From(err)
	if err == nil {
		p.ids = append(p.ids, got.IDs...)
	}
	close(p.filled)
	p.filled = make(chan struct{})
}
