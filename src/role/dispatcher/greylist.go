package dispatcher

import (
	"context"
	"strconv"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/ctl"
	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// The bounds of the greylist: with addresses of usual length 20 MiB.
const (
	maxTriplets = 50_000
	maxNetworks = 50_000
)

const (
	greyKind  = "greylist" // of what queue keeps
	greyDelay = time.Second
	greySweep = 10 * time.Minute
	greyBatch = 256 // values in a message
)

// greylisting is the greylist, which queue keeps over restarts. It implements
// filter.Greylist.
type greylisting struct {
	clock clock.Clock
	log   *mlog.Logger
	queue proc.Caller
	list  *greylist.List

	loading chan struct{} // holds a token: who has it may load
	loaded  bool          // with the token
	wake    chan struct{}

	mu      sync.Mutex
	pending map[string][]byte // what queue has not been told
}

func newGreylisting(env proc.Env) *greylisting {
	g := &greylisting{
		clock: env.Clock, log: env.Log, queue: env.Peers[proc.Queue],
		loading: make(chan struct{}, 1), wake: make(chan struct{}, 1), pending: make(map[string][]byte),
	}
	g.loading <- struct{}{}
	g.list = greylist.New(greylist.Options{Clock: env.Clock, Store: g, Triplets: maxTriplets, Networks: maxNetworks})
	return g
}

// Put implements greylist.Store.
func (g *greylisting) Put(key string, value []byte) {
	g.mu.Lock()
	g.pending[key] = value
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// load asks queue for what it has kept, when that has not been done.
func (g *greylisting) load(ctx context.Context) error {
	select {
	case <-g.loading:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { g.loading <- struct{}{} }()
	if g.loaded {
		return nil
	}
	kept := make(map[string][]byte)
	for after := ""; ; {
		var page msg.KeptReply
		if err := g.queue.Call(ctx, &msg.Kept{Kind: greyKind, After: after}, &page); err != nil {
			return err
		}
		if len(page.Values) == 0 {
			break
		}
		for _, v := range page.Values {
			kept[v.Key], after = v.Data, v.Key
		}
	}
	if bad := g.list.Restore(kept); bad > 0 {
		g.log.Warnf("warn: greylist: %d of %d entries could not be read, and are forgotten", bad, len(kept))
	}
	g.loaded = true
	return nil
}

// Allow implements filter.Greylist.
func (g *greylisting) Allow(ctx context.Context, r greylist.Rule, t greylist.Try) (bool, error) {
	if err := g.load(ctx); err != nil {
		return false, err
	}
	return g.list.Allow(r, t), nil
}

// run tells queue what is to be kept, at most once in a second.
func (g *greylisting) run(ctx context.Context) {
	swept := g.clock.Mono()
	for {
		select {
		case <-g.wake:
		case <-ctx.Done():
			g.flush()
			return
		}
		later, cancel := g.clock.After(greyDelay)
		select {
		case <-later:
		case <-ctx.Done():
			cancel()
		}
		if now := g.clock.Mono(); now-swept >= greySweep {
			swept = now
			g.list.Sweep()
		}
		g.flush()
	}
}

func (g *greylisting) flush() {
	g.mu.Lock()
	pending := g.pending
	g.pending = make(map[string][]byte)
	g.mu.Unlock()
	m := &msg.Keep{Kind: greyKind}
	send := func() {
		// It fails when queue is gone, and then the daemon stops.
		if err := g.queue.Send(context.Background(), m); err != nil {
			g.log.Debugf("debug: greylist: %v", err)
		}
		m.Values = nil
	}
	for key, value := range pending {
		m.Values = append(m.Values, msg.KeptValue{Key: key, Remove: value == nil, Data: value})
		if len(m.Values) == greyBatch {
			send()
		}
	}
	if len(m.Values) > 0 {
		send()
	}
}

// control serves what smtpctl asks about the greylist; false when the verb is
// about something else.
func (g *greylisting) control(ctx context.Context, m *msg.Control) (*msg.ControlRows, *mailerr.Error, bool) {
	switch m.Verb {
	case msg.VerbShowGreylist, msg.VerbWhitelist, msg.VerbUnwhitelist:
	default:
		return nil, nil, false
	}
	if err := g.load(ctx); err != nil {
		return nil, mailerr.From(err), true
	}
	if m.Verb == msg.VerbShowGreylist {
		from, _ := strconv.Atoi(m.Cursor)
		return reply(g.rows(), from)
	}
	if len(m.Args) != 1 {
		return nil, mailerr.Permanent(501, 5, 4, "one network is needed", nil), true
	}
	net, err := greylist.ParseNet(m.Args[0])
	switch {
	case err != nil:
		return nil, mailerr.Permanent(501, 5, 4, err.Error(), nil), true
	case m.Verb == msg.VerbWhitelist:
		g.list.Whitelist(net)
	case !g.list.Remove(net):
		return nil, mailerr.Permanent(550, 5, 0, "not in the whitelist: "+net.String(), nil), true
	}
	return &msg.ControlRows{}, nil, true
}

func (g *greylisting) rows() []ctl.GreyRow {
	all := g.list.Entries()
	out := make([]ctl.GreyRow, len(all))
	for i := range all {
		e := &all[i]
		r := &out[i]
		*r = ctl.GreyRow{State: "white", Net: e.Net.String(), Name: e.Name, Sender: e.From, Rcpt: e.To, First: e.First.Unix()}
		if !e.White() {
			r.State, r.Ready = "grey", e.Ready.Unix()
		}
		if !e.Until.IsZero() {
			r.Until = e.Until.Unix()
		}
	}
	return out
}
