// Package greylist decides which clients are asked to come again later. A server
// does so and is let in; most programs that send spam do not.
//
// What is remembered of a first try is the triplet of the client's network, the
// sender and the recipient. When one of them is tried again after the delay and
// before it expires, the network is proven: all mail from it passes, until it has
// not been seen for the time that the rule says. What an operator has entered
// stays.
//
// What is remembered is bounded, in all and of each site, so that one that tries
// many addresses drives nobody else out. First the oldest triplets go, and the
// networks that were not seen for the longest time.
package greylist

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/clock"
)

// Rule is how a filter greylists.
type Rule struct {
	Delay     time.Duration // a try before it is too early
	Expire    time.Duration // since the first try: what comes later is a first try again
	Whitelist time.Duration // how long a proven network passes after it was last seen
}

// Entry is a network that passes, or with a recipient a triplet that does not yet.
// Times are Unix seconds. That of the first try is rounded up, so that it cuts no
// delay short.
type Entry struct {
	Net   netip.Prefix
	From  string // "" is the null sender
	To    string // "" makes it a network
	Name  string // of the client by DNS, verified, "" when it has none
	First int64
	Ready int64 // of a triplet: when a try passes
	Until int64 // 0: for ever, as an operator wants it

	key   string
	seq   uint64 // in its order
	told  int64  // Until as Changes gave it last
	saved bool   // Changes gave it
	links [orders]link
}

// White tells whether it is a network that passes.
func (e *Entry) White() bool { return e.To == "" }

// ByHand tells whether an operator has entered it.
func (e *Entry) ByHand() bool { return e.Until == 0 }

// Place is where an entry stands in the list of all.
func (e *Entry) Place() Place { return Place{e.class(), e.seq} }

// over tells whether its time is up.
func (e *Entry) over(now time.Time) bool { return !e.ByHand() && now.Unix() > e.Until }

// Try is a recipient that a client offers.
type Try struct {
	Addr netip.Addr
	Name string
	From string
	To   string
}

// Answer is what becomes of a try.
type Answer struct {
	Pass bool
	// Proven is the network that has proven itself by this try, and After how
	// long after the first one that was.
	Proven netip.Prefix
	After  time.Duration
}

// Options are what a List needs: how many triplets and networks there can be in
// all, and of each how many of one site.
type Options struct {
	Clock    clock.Clock
	Changed  func() // there is something for Changes; must not wait. Optional
	Triplets int
	Networks int
	Site     int
}

// MaxByHand is how many networks an operator can enter: every client is compared
// with each. Who has more keeps a table.
const MaxByHand = 1000

// class is a kind of entries.
type class int

const (
	byHand class = iota
	networks
	triplets
	classes
)

func (e *Entry) class() class {
	switch {
	case !e.White():
		return triplets
	case e.ByHand():
		return byHand
	}
	return networks
}

// Place is where an entry stands in the list of all; the zero Place is before the
// first.
type Place struct {
	class class
	seq   uint64
}

// String returns what ParsePlace reads.
func (p Place) String() string { return fmt.Sprintf("%d.%d", p.class, p.seq) }

// ParsePlace reads a place; "" is the zero Place.
func ParsePlace(s string) (p Place, err error) {
	if s == "" {
		return p, nil
	}
	if _, err = fmt.Sscanf(s, "%d.%d", &p.class, &p.seq); err != nil || p.class < 0 || p.class >= classes {
		return Place{}, fmt.Errorf("%q is no place in the greylist", s)
	}
	return p, nil
}

// List is what is remembered. Its methods may be called at the same time.
type List struct {
	o Options

	mu      sync.Mutex
	entries map[string]*Entry // by key
	all     [classes]order
	sites   map[site]*[classes]order
	changed map[string]*Entry // since Changes, by key; nil: it is gone
	seq     uint64            // that was given last
}

// New returns an empty list.
func New(o Options) *List {
	return &List{
		o: o, entries: make(map[string]*Entry), sites: make(map[site]*[classes]order), changed: make(map[string]*Entry),
	}
}

// Allow tells whether a recipient may be accepted from a client, and remembers
// that it was tried.
func (l *List) Allow(r Rule, t Try) Answer {
	net := Network(t.Addr)
	if !net.IsValid() {
		return Answer{Pass: true} // it has no address: a local process
	}
	from, to := Sender(t.From), Recipient(t.To)
	key := keyOf(net, from, to)

	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	if l.passesLocked(r, net, t.Addr, now) {
		return Answer{Pass: true}
	}
	if old := l.entries[key]; old != nil {
		since := now.Sub(time.Unix(old.First, 0))
		switch {
		case since > r.Expire || since <= -time.Second: // too late, or the clock was set back
			l.dropLocked(old)
		case since < r.Delay:
			return Answer{}
		default:
			l.provenLocked(net)
			l.putLocked(&Entry{
				key: keyOf(net, "", ""), Net: net, Name: shown(t.Name), First: old.First, Until: now.Add(r.Whitelist).Unix(),
			})
			return Answer{Pass: true, Proven: net, After: since}
		}
	}
	first := now.Add(time.Second - 1)
	l.putLocked(&Entry{
		key: key, Net: net, From: shown(from), To: shown(to), Name: shown(t.Name),
		First: first.Unix(), Ready: first.Add(r.Delay).Unix(), Until: first.Add(r.Expire).Unix(),
	})
	return Answer{}
}

// provenLocked forgets the triplets of a network, which are of no use any more:
// were it removed they would let it pass again at once.
func (l *List) provenLocked(net netip.Prefix) {
	l.sites[siteOf(net)][triplets].all(inSite, func(e *Entry) bool {
		if e.Net == net {
			l.dropLocked(e)
		}
		return true
	})
}

// renewPart is by which part of its time the end of a network must move to be
// saved anew: a busy server is not a record for each of its messages.
const renewPart = 32

// passesLocked tells whether a network passes, and lets it pass for longer.
func (l *List) passesLocked(r Rule, net netip.Prefix, a netip.Addr, now time.Time) bool {
	a = plain(a)
	if !l.all[byHand].all(inAll, func(e *Entry) bool { return !e.Net.Contains(a) }) {
		return true
	}
	e := l.entries[keyOf(net, "", "")]
	switch {
	case e == nil:
		return false
	case e.ByHand():
		return true
	case e.over(now):
		l.dropLocked(e)
		return false
	}
	l.unlinkLocked(e)
	e.Until = now.Add(r.Whitelist).Unix()
	l.linkLocked(e)
	if moved := time.Duration(e.Until-e.told) * time.Second; moved.Abs() >= max(r.Whitelist/renewPart, time.Second) {
		l.changedLocked(e)
	}
	return true
}

// linkLocked puts an entry at the end of its orders.
func (l *List) linkLocked(e *Entry) {
	l.seq++
	e.seq = l.seq
	c, of := e.class(), siteOf(e.Net)
	if l.sites[of] == nil {
		l.sites[of] = new([classes]order)
	}
	l.all[c].push(inAll, e)
	l.sites[of][c].push(inSite, e)
}

func (l *List) unlinkLocked(e *Entry) {
	c, of := e.class(), siteOf(e.Net)
	l.all[c].remove(inAll, e)
	l.sites[of][c].remove(inSite, e)
	if *l.sites[of] == ([classes]order{}) {
		delete(l.sites, of)
	}
}

// insertLocked takes an entry in, in the place of the one with its key, and drops
// what is too much.
func (l *List) insertLocked(e *Entry) {
	if old := l.entries[e.key]; old != nil {
		e.saved = e.saved || old.saved
		l.unlinkLocked(old)
	}
	l.entries[e.key] = e
	l.linkLocked(e)
	c := e.class()
	if c == byHand {
		return
	}
	most := l.o.Networks
	if c == triplets {
		most = l.o.Triplets
	}
	switch own := &l.sites[siteOf(e.Net)][c]; {
	case own.n > l.o.Site:
		l.dropLocked(own.first)
	case l.all[c].n > most:
		l.dropLocked(l.all[c].first)
	}
}

// putLocked remembers an entry.
func (l *List) putLocked(e *Entry) {
	l.insertLocked(e)
	if l.entries[e.key] == e {
		l.changedLocked(e)
	}
}

// dropLocked forgets an entry.
func (l *List) dropLocked(e *Entry) {
	l.unlinkLocked(e)
	delete(l.entries, e.key)
	if !e.saved { // nobody else has heard of it
		delete(l.changed, e.key)
		return
	}
	l.goneLocked(e.key)
}

func (l *List) goneLocked(key string) {
	l.changed[key] = nil
	l.tellLocked()
}

func (l *List) changedLocked(e *Entry) {
	if last, ok := l.changed[e.key]; ok && last == nil {
		e.saved = true // one of this key is still kept
	}
	e.told = e.Until
	l.changed[e.key] = e
	l.tellLocked()
}

func (l *List) tellLocked() {
	if l.o.Changed != nil {
		l.o.Changed()
	}
}

// Sweep forgets what is over.
func (l *List) Sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	for _, e := range l.entries {
		if e.over(now) {
			l.dropLocked(e)
		}
	}
}

// ErrFull tells that an operator has entered too many networks.
var ErrFull = errors.New("too many networks are entered; a table and a filter with bypass have room for more")

// Whitelist lets a network pass for ever. It returns the network by which it does:
// one that an operator had entered before, or itself, which is then new.
func (l *List) Whitelist(net netip.Prefix) (by netip.Prefix, added bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[byHand].all(inAll, func(e *Entry) bool {
		if e.Net.Bits() <= net.Bits() && e.Net.Contains(net.Addr()) {
			by = e.Net
		}
		return !by.IsValid()
	})
	switch {
	case by.IsValid():
		return by, false, nil
	case l.all[byHand].n >= MaxByHand:
		return net, false, ErrFull
	}
	now := l.o.Clock.Now()
	l.putLocked(&Entry{key: keyOf(net, "", ""), Net: net, First: now.Unix()})
	return net, true, nil
}

// Remove forgets the networks by which an address of net passes, at most n of
// them, and returns them. What it has tried before is forgotten, too.
func (l *List) Remove(net netip.Prefix, n int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	var out []Entry
	for _, c := range []class{byHand, networks} {
		l.all[c].all(inAll, func(e *Entry) bool {
			if e.Net.Overlaps(net) && !e.over(now) && len(out) < n {
				out = append(out, *e)
				l.dropLocked(e)
			}
			return len(out) < n
		})
	}
	if len(out) > 0 {
		l.all[triplets].all(inAll, func(e *Entry) bool {
			if e.Net.Overlaps(net) {
				l.dropLocked(e)
			}
			return true
		})
	}
	return out
}

// Entries returns at most n of what is remembered, after a place: what an operator
// has entered, networks, then triplets, of each the one that is forgotten first.
// What is seen meanwhile may come twice; nothing is left out.
func (l *List) Entries(after Place, n int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	var out []Entry
	for c := after.class; c < classes; c++ {
		l.all[c].all(inAll, func(e *Entry) bool {
			if (c > after.class || e.seq > after.seq) && !e.over(now) {
				out = append(out, *e)
			}
			return len(out) < n
		})
		if len(out) >= n {
			break
		}
	}
	return out
}

// Restore takes in what was kept, in any order. What has been learnt since goes
// before it, and what is over is forgotten. It returns how many values could not
// be read; those are forgotten, too.
func (l *List) Restore(kept []Kept) (bad int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	var all []*Entry
	for i := range kept {
		e, err := decode(&kept[i])
		have := l.entries[e.key]
		switch {
		case have != nil:
			have.saved = true
		case err != nil:
			bad++
			l.goneLocked(e.key)
		case e.over(now):
			l.goneLocked(e.key)
		default:
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *Entry) int {
		if a.White() && b.White() {
			return cmp.Compare(a.Until, b.Until) // the last seen has most time left
		}
		return cmp.Or(cmp.Compare(a.First, b.First), strings.Compare(a.key, b.key))
	})
	for _, e := range all {
		l.insertLocked(e)
	}
	return bad
}

// Changes returns what is to be kept over a restart and was not returned before, at
// most n values of it.
func (l *List) Changes(n int) []Kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Kept, 0, min(n, len(l.changed)))
	for key, e := range l.changed {
		if len(out) == n {
			break
		}
		delete(l.changed, key)
		v := Kept{Key: key}
		if e != nil {
			e.saved = true
			v.Value = e.encode()
		}
		out = append(out, v)
	}
	return out
}
