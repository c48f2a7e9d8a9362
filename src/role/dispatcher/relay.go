package dispatcher

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mlog"
	"opensmtpd/src/mta"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// relaying ties package mta to the other processes.
type relaying struct {
	mta   *mta.MTA
	queue proc.Caller
	lka   proc.Caller
	log   *mlog.Logger
	out   outbox
}

// newRelaying makes the part of dispatcher that takes mail to other servers.
func newRelaying(env proc.Env, stats *counters, conf *mta.Config) *relaying {
	r := &relaying{queue: env.Peers[proc.Queue], lka: env.Peers[proc.Lookup], log: env.Log}
	r.out.more.L = &r.out.mu
	r.mta = mta.New(mta.Options{
		Clock: env.Clock, Log: env.Log, Queue: r, Lookup: r, NewID: rand.Uint64, Stats: &stats.set,
	}, conf)
	return r
}

// run works until ctx ends; what sessions still have to tell is told.
func (r *relaying) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.mta.Run(ctx) })
	wg.Go(func() { r.tell() })
	<-ctx.Done()
	r.out.close()
	wg.Wait()
}

// relayConf is the configuration of relaying.
func relayConf(c proc.Conf, p *project.DispatcherConf, certs *certificates) (*mta.Config, error) {
	conf, err := mta.NewConfig(c.Gen, p, c.Resources.CABundle, certs.authority)
	if err == nil {
		err = conf.Identify(certs.identity)
	}
	return conf, err
}

// task takes mail from queue.
func (r *relaying) task(_ context.Context, q proc.Request) {
	m := new(msg.RelayTask)
	if err := q.Parse(m); err != nil {
		r.log.Warnf("warn: mta: task from %s: %v", q.From(), err)
		return
	}
	r.mta.Submit(m)
}

// Taken implements mta.Queue.
func (r *relaying) Taken(task uint64) { r.out.add(&msg.RelayTaken{Task: task}) }

// Result implements mta.Queue.
func (r *relaying) Result(m *msg.RelayResult) { r.out.add(m) }

// Body implements mta.Queue.
func (r *relaying) Body(ctx context.Context, task, offset uint64, buf []byte) ([]byte, error) {
	got := msg.RelayBodyReply{Data: buf}
	if err := r.queue.Call(ctx, &msg.RelayBody{Task: task, Offset: offset}, &got); err != nil {
		return nil, err
	}
	if got.Err != nil {
		return nil, got.Err
	}
	return got.Data, nil
}

// MX implements mta.Lookup.
func (r *relaying) MX(ctx context.Context, m *msg.MX) (*msg.MXReply, error) {
	got := new(msg.MXReply)
	return got, r.lka.Call(ctx, m, got)
}

// Table implements mta.Lookup.
func (r *relaying) Table(ctx context.Context, m *msg.RelayLookup) (*msg.RelayLookupReply, error) {
	got := new(msg.RelayLookupReply)
	return got, r.lka.Call(ctx, m, got)
}

// Name implements mta.Lookup.
func (r *relaying) Name(ctx context.Context, a netip.Addr) string {
	var got msg.RDNSReply
	if err := r.lka.Call(ctx, &msg.RDNS{Addr: a}, &got); err != nil {
		return ""
	}
	return got.Name
}

// outbox is what sessions tell queue. One goroutine sends it, so that nobody
// waits who must not: a task that fails at once is told by whoever reads from
// queue. It holds no more than queue has given out.
type outbox struct {
	mu     sync.Mutex
	more   sync.Cond
	list   []msg.Message
	closed bool
}

func (o *outbox) add(m msg.Message) {
	o.mu.Lock()
	o.list = append(o.list, m)
	o.mu.Unlock()
	o.more.Signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.more.Signal()
}

// take waits for something to send; false at the end.
func (o *outbox) take(free []msg.Message) ([]msg.Message, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.list) == 0 && !o.closed {
		o.more.Wait()
	}
	list := o.list
	o.list = free[:0]
	return list, len(list) > 0
}

// tell sends what sessions have to tell, until the end.
func (r *relaying) tell() {
	var free []msg.Message
	for {
		list, ok := r.out.take(free)
		if !ok {
			return
		}
		for i, m := range list {
			// Waits only while queue takes nothing, and fails when it is gone.
			if err := r.queue.Send(context.Background(), m); err != nil {
				r.log.Debugf("debug: mta: telling queue: %v", err)
			}
			list[i] = nil
		}
		free = list
	}
}
