package parent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

type readerKey struct{ uid, gid uint32 }

// reader is an agent that reads files for us as a user, one at a time.
type reader struct {
	key   readerKey
	users int // how many speak with the agent or want to; guarded by Deliveries.mu

	turn  sync.Mutex // held by who speaks; taken before Deliveries.mu
	agent *agent
	calls uint64
	used  time.Duration
}

// read lets an agent with the rights of u answer m.
func (d *Deliveries) read(ctx context.Context, u User, m msg.Message, reply msg.Parser) error {
	k := readerKey{u.UID, u.GID}
	d.mu.Lock()
	r := d.readers[k]
	if r == nil {
		r = &reader{key: k}
		d.readers[k] = r
	}
	r.users++
	d.mu.Unlock()
	r.turn.Lock()
	defer r.turn.Unlock()
	err := d.converse(ctx, r, u, m, reply)
	r.used = d.o.Clock.Mono()
	d.mu.Lock()
	defer d.mu.Unlock()
	r.users--
	if r.users == 0 && r.agent == nil {
		delete(d.readers, k)
	}
	return err
}

// converse asks and takes the answer; r.turn is held.
func (d *Deliveries) converse(ctx context.Context, r *reader, u User, m msg.Message, reply msg.Parser) error {
	if r.agent == nil {
		if err := d.begin(ctx, r, u); err != nil {
			return err
		}
	}
	a := r.agent
	late, stop := d.o.Clock.After(readTime)
	answered := make(chan struct{})
	guard := make(chan struct{})
	go func() {
		defer close(guard)
		select {
		case <-late:
		case <-ctx.Done():
		case <-answered:
			stop()
			return
		}
		a.proc.Kill()
		a.link.Close()
	}()
	r.calls++
	a.put(imsg.Header{Flags: imsg.FlagCall, Call: r.calls}, m, nil)
	f, err := a.link.Next()
	close(answered)
	<-guard
	if err == nil && (f.Call != r.calls || msg.Type(f.Type) != reply.Type()) {
		err = fmt.Errorf("agent answered with message %d", f.Type)
	}
	if err == nil {
		err = reply.Parse(f.Body)
	}
	if err != nil {
		r.agent = nil
		a.link.Close()
		a.giveUp()
		return errors.Join(fmt.Errorf("agent of uid %d: %w", u.UID, err), ctx.Err())
	}
	return nil
}

// begin starts the agent of a reader.
func (d *Deliveries) begin(ctx context.Context, r *reader, u User) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return errTooMany
	}
	d.wg.Add(1) // for retire
	d.mu.Unlock()
	a, _, err := d.spawn(ctx, u, &msg.AgentConf{UID: u.UID}, 0, false)
	if err != nil {
		d.wg.Done()
		return err
	}
	r.agent = a
	go func() {
		defer d.wg.Done()
		d.retire(r, a)
	}()
	return nil
}

// retire ends the agent of a reader when nobody has used it for a while.
func (d *Deliveries) retire(r *reader, a *agent) {
	for {
		tick, stop := d.o.Clock.After(readerIdle)
		select {
		case <-a.ended:
			stop()
		case <-tick:
		}
		r.turn.Lock()
		ended := false
		select {
		case <-a.ended:
			ended = true
		default:
		}
		if ended || r.agent != a || d.o.Clock.Mono()-r.used >= readerIdle {
			if r.agent == a {
				r.agent = nil
			}
			d.mu.Lock()
			if r.users == 0 && r.agent == nil && d.readers[r.key] == r {
				delete(d.readers, r.key)
			}
			d.mu.Unlock()
			r.turn.Unlock()
			a.link.Close()
			a.giveUp()
			return
		}
		r.turn.Unlock()
	}
}
