package dispatcher

import (
	"context"
	"net/netip"
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

// The bounds of the greylist. 50,000 triplets of usual addresses were measured to
// take 35 MB here, 28 MB in queue, and 9 MB on disk.
const (
	maxTriplets = 50_000
	maxNetworks = 50_000
	maxOfSite   = 1_000 // of each
)

const (
	greyKind  = "greylist" // of what queue keeps
	greyDelay = time.Second
	greySweep = 10 * time.Minute
	greyBatch = 256 // values in a message
	greyRows  = 256 // in a page: of the longest names, half a frame
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
	wake    chan struct{} // something has changed
	telling sync.Mutex    // held by who tells queue of it
	told    bool          // of anything, which may not have arrived; with telling
}

func newGreylisting(env proc.Env) *greylisting {
	g := &greylisting{
		clock: env.Clock, log: env.Log, queue: env.Peers[proc.Queue],
		loading: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
	g.loading <- struct{}{}
	g.list = greylist.New(greylist.Options{
		Clock: env.Clock, Changed: g.changed, Triplets: maxTriplets, Networks: maxNetworks, Site: maxOfSite,
	})
	return g
}

func (g *greylisting) changed() {
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
	var kept []greylist.Kept
	for after := ""; ; {
		var page msg.KeptReply
		if err := g.queue.Call(ctx, &msg.Kept{Kind: greyKind, After: after}, &page); err != nil {
			return err
		}
		if len(page.Values) == 0 {
			break
		}
		for _, v := range page.Values {
			kept, after = append(kept, greylist.Kept{Key: v.Key, Value: v.Data}), v.Key
		}
	}
	if bad := g.list.Restore(kept); bad > 0 {
		g.log.Warnf("warn: greylist: %d of %d entries could not be read, and are forgotten", bad, len(kept))
	}
	g.loaded = true
	return nil
}

// Allow implements filter.Greylist.
func (g *greylisting) Allow(ctx context.Context, r greylist.Rule, t greylist.Try) (greylist.Answer, error) {
	if err := g.load(ctx); err != nil {
		return greylist.Answer{}, err
	}
	return g.list.Allow(r, t), nil
}

// run tells queue what is to be kept, at most once in a second. What it has kept is
// asked for before the first client has to wait for that.
func (g *greylisting) run(ctx context.Context) {
	if err := g.load(ctx); err != nil {
		g.log.Debugf("debug: greylist: %v", err)
	}
	swept := g.clock.Mono()
	for {
		select {
		case <-g.wake:
		case <-ctx.Done():
			g.end()
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

// flush tells queue what has changed. It fails when queue is gone, and then the
// daemon stops.
func (g *greylisting) flush() {
	g.telling.Lock()
	defer g.telling.Unlock()
	for m := g.changes(); len(m.Values) > 0; m = g.changes() {
		g.told = true
		if err := g.queue.Send(context.Background(), m); err != nil {
			g.log.Debugf("debug: greylist: %v", err)
		}
	}
}

// settle returns when all that was changed before is on stable storage.
func (g *greylisting) settle(ctx context.Context) error {
	g.flush()
	return g.queue.Call(ctx, &msg.Keep{Kind: greyKind, Sync: true}, &msg.KeptReply{})
}

// end is flush for the last time: what is only sent ends with the process.
func (g *greylisting) end() {
	g.flush()
	g.telling.Lock()
	told := g.told
	g.telling.Unlock()
	if !told {
		return
	}
	if err := g.settle(context.Background()); err != nil {
		g.log.Debugf("debug: greylist: %v", err)
	}
}

// changes is a message with some of what has changed.
func (g *greylisting) changes() *msg.Keep {
	m := &msg.Keep{Kind: greyKind}
	for _, v := range g.list.Changes(greyBatch) {
		m.Values = append(m.Values, msg.KeptValue{Key: v.Key, Remove: v.Value == nil, Data: v.Value})
	}
	return m
}

// control serves what smtpctl asks about the greylist; false when the verb is
// about something else.
func (g *greylisting) control(ctx context.Context, m *msg.Control) (*msg.ControlRows, *mailerr.Error, bool) {
	do, mine := map[msg.Verb]func(*msg.Control) (*msg.ControlRows, error){
		msg.VerbShowGreylist: g.show, msg.VerbWhitelist: g.whitelist, msg.VerbUnwhitelist: g.unwhitelist,
	}[m.Verb]
	if !mine {
		return nil, nil, false
	}
	err := g.load(ctx)
	var rows *msg.ControlRows
	if err == nil {
		rows, err = do(m)
	}
	if err == nil && m.Verb != msg.VerbShowGreylist {
		err = g.settle(ctx)
	}
	if err != nil {
		return nil, mailerr.From(err), true
	}
	return rows, nil, true
}

// network is the argument of a request.
func network(m *msg.Control) (netip.Prefix, error) {
	if len(m.Args) != 1 {
		return netip.Prefix{}, mailerr.Permanent(501, 5, 4, "one network is needed", nil)
	}
	net, err := greylist.ParseNet(m.Args[0])
	if err != nil {
		return netip.Prefix{}, mailerr.Permanent(501, 5, 4, err.Error(), nil)
	}
	return net, nil
}

func (g *greylisting) whitelist(m *msg.Control) (*msg.ControlRows, error) {
	net, err := network(m)
	if err != nil {
		return nil, err
	}
	by, added, err := g.list.Whitelist(net)
	if err != nil {
		return nil, mailerr.Permanent(552, 5, 0, err.Error(), nil)
	}
	row := ctl.PassRow{Net: net.String(), Done: ctl.PassAdded}
	if !added {
		row.Done, row.By = ctl.PassCovered, by.String()
	}
	return page([]ctl.PassRow{row}, "")
}

// unwhitelist removes a page of networks at a time, so that the answer fits
// whatever is removed.
func (g *greylisting) unwhitelist(m *msg.Control) (*msg.ControlRows, error) {
	net, err := network(m)
	if err != nil {
		return nil, err
	}
	gone := g.list.Remove(net, greyRows)
	if len(gone) == 0 && m.Cursor == "" {
		return nil, mailerr.Permanent(550, 5, 0, "nothing in the whitelist has to do with "+net.String(), nil)
	}
	rows := make([]ctl.PassRow, len(gone))
	for i := range gone {
		rows[i] = ctl.PassRow{Net: gone[i].Net.String(), Done: ctl.PassRemoved, Entered: gone[i].ByHand()}
	}
	next := ""
	if len(gone) == greyRows {
		done, _ := strconv.Atoi(m.Cursor)
		next = strconv.Itoa(done + 1)
	}
	return page(rows, next)
}

func (g *greylisting) show(m *msg.Control) (*msg.ControlRows, error) {
	after, err := greylist.ParsePlace(m.Cursor)
	if err != nil {
		return nil, err
	}
	some := g.list.Entries(after, greyRows)
	rows := make([]ctl.GreyRow, len(some))
	next := ""
	for i := range some {
		e := &some[i]
		rows[i] = ctl.GreyRow{
			State: "white", Net: e.Net.String(), Name: e.Name, Sender: e.From, Rcpt: e.To, First: e.First, Ready: e.Ready, Until: e.Until,
		}
		if !e.White() {
			rows[i].State = "grey"
		}
		next = e.Place().String()
	}
	if len(some) < greyRows {
		next = ""
	}
	return page(rows, next)
}

// page is rows, which are few enough, before those at next.
func page[T any](rows []T, next string) (*msg.ControlRows, error) {
	var p ctl.Page
	for i := range rows {
		if _, err := p.Add(rows[i]); err != nil {
			return nil, err
		}
	}
	return p.More(next), nil
}
