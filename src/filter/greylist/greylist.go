// Package greylist decides which clients are asked to come again later. A server
// does so and is let in; most programs that send spam do not.
//
// What is remembered of a first try is the triplet of the client's network, the
// sender and the recipient. When one of them is tried again after the delay and
// before it expires, the network is proven: all mail from it passes, until it has
// not been seen for the time that the rule says. What is remembered is bounded:
// first the oldest triplets go, then nothing but networks that were not seen for
// the longest time. What an operator has entered stays.
package greylist

import (
	"container/list"
	"fmt"
	"net/netip"
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
type Entry struct {
	Net   netip.Prefix
	From  string // "" is the null sender
	To    string // "" makes it a network
	Name  string // of the client by DNS, verified, "" when it has none
	First time.Time
	Ready time.Time // of a triplet: when a try passes
	Until time.Time // zero: for ever, as an operator wants it
}

// White tells whether it is a network that passes.
func (e *Entry) White() bool { return e.To == "" }

// Try is a recipient that a client offers.
type Try struct {
	Addr netip.Addr
	Name string
	From string
	To   string
}

// Store keeps entries over a restart. It is called with a lock held, and does not
// wait.
type Store interface {
	Put(key string, value []byte) // a nil value removes
}

// Options are what a List needs. Triplets and Networks are how many there can be
// of each.
type Options struct {
	Clock    clock.Clock
	Store    Store
	Triplets int
	Networks int
}

// List is what is remembered. Its methods may be called at the same time.
type List struct {
	o Options

	mu       sync.Mutex
	entries  map[string]*list.Element // by key
	triplets list.List                // of *Entry, the first seen at the front
	networks list.List                // of *Entry, the last seen at the back
	byHand   list.List                // of *Entry, of an operator
}

// New returns an empty list.
func New(o Options) *List { return &List{o: o, entries: make(map[string]*list.Element)} }

// ParseNet reads a network, or an address, which is a network of one.
func ParseNet(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network like 192.0.2.0/24", s)
	}
	return p.Masked(), nil
}

// Network is the part of an address that counts: servers of one site share it.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address
	}
	return p
}

// Plain is an address as triplets have it: in lower case, without what follows a
// plus sign, and with every number in its local part as a single zero, so that
// the senders of a mailing list, which hold the number of a message, are one.
func Plain(address string) string {
	s := strings.ToLower(address)
	local, domain := s, ""
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		local, domain = s[:i], s[i:]
	}
	if i := strings.IndexByte(local, '+'); i > 0 {
		local = local[:i]
	}
	var b strings.Builder
	digit := false
	for _, c := range []byte(local) {
		was := digit
		digit = c >= '0' && c <= '9'
		switch {
		case !digit:
			b.WriteByte(c)
		case !was:
			b.WriteByte('0')
		}
	}
	return b.String() + domain
}

// Allow tells whether a recipient may be accepted from a client, and remembers
// that it was tried.
func (l *List) Allow(r Rule, t Try) bool {
	net := Network(t.Addr)
	if !net.IsValid() {
		return true // it has no address: a local process
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	if l.passesLocked(r, net, t.Addr, now) {
		return true
	}
	e := &Entry{Net: net, From: Plain(t.From), To: Plain(t.To), Name: t.Name, First: now, Ready: now.Add(r.Delay), Until: now.Add(r.Expire)}
	if el := l.entries[e.key()]; el != nil {
		switch old := el.Value.(*Entry); {
		case now.After(old.Until) || old.First.After(now): // too late, or the clock was set back
			l.dropLocked(el)
		case now.Sub(old.First) < r.Delay:
			return false
		default:
			l.dropLocked(el)
			l.putLocked(&Entry{Net: net, Name: t.Name, First: old.First, Until: now.Add(r.Whitelist)})
			return true
		}
	}
	l.putLocked(e)
	return false
}

// renewPart is by which part of its time the end of a network must move to be
// kept anew: a busy server is not a record for each of its messages.
const renewPart = 32

// passesLocked tells whether a network passes, and lets it pass for longer.
func (l *List) passesLocked(r Rule, net netip.Prefix, a netip.Addr, now time.Time) bool {
	for el := l.byHand.Front(); el != nil; el = el.Next() {
		if el.Value.(*Entry).Net.Contains(a.Unmap().WithZone("")) {
			return true
		}
	}
	el := l.entries[(&Entry{Net: net}).key()]
	if el == nil {
		return false
	}
	e := el.Value.(*Entry)
	if e.Until.IsZero() {
		return true
	}
	if now.After(e.Until) {
		l.dropLocked(el)
		return false
	}
	l.networks.MoveToBack(el)
	if until := now.Add(r.Whitelist); until.Sub(e.Until) >= r.Whitelist/renewPart {
		e.Until = until
		l.o.Store.Put(e.key(), e.encode())
	}
	return true
}

// of returns the list that an entry is in, and how many there can be.
func (l *List) of(e *Entry) (in *list.List, most int) {
	switch {
	case !e.White():
		return &l.triplets, l.o.Triplets
	case e.Until.IsZero():
		return &l.byHand, 0
	}
	return &l.networks, l.o.Networks
}

// putLocked remembers an entry, in the place of the one with its key.
func (l *List) putLocked(e *Entry) {
	l.insertLocked(e)
	l.o.Store.Put(e.key(), e.encode())
}

func (l *List) insertLocked(e *Entry) {
	if el := l.entries[e.key()]; el != nil {
		l.unlinkLocked(el)
	}
	in, most := l.of(e)
	l.entries[e.key()] = in.PushBack(e)
	if most > 0 && in.Len() > most {
		l.dropLocked(in.Front())
	}
}

func (l *List) unlinkLocked(el *list.Element) {
	e := el.Value.(*Entry)
	in, _ := l.of(e)
	in.Remove(el)
	delete(l.entries, e.key())
}

// dropLocked forgets an entry.
func (l *List) dropLocked(el *list.Element) {
	l.unlinkLocked(el)
	l.o.Store.Put(el.Value.(*Entry).key(), nil)
}

// Sweep forgets what is over.
func (l *List) Sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Clock.Now()
	for _, in := range []*list.List{&l.triplets, &l.networks} {
		for el := in.Front(); el != nil; {
			next := el.Next()
			if now.After(el.Value.(*Entry).Until) {
				l.dropLocked(el)
			}
			el = next
		}
	}
}

// Whitelist lets a network pass for ever.
func (l *List) Whitelist(net netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putLocked(&Entry{Net: net.Masked(), First: l.o.Clock.Now()})
}

// Remove forgets that a network passes, and is false when it did not.
func (l *List) Remove(net netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	el := l.entries[(&Entry{Net: net.Masked()}).key()]
	if el != nil {
		l.dropLocked(el)
	}
	return el != nil
}

// Entries returns what is remembered: what an operator has entered, networks, then
// triplets, of each the oldest first.
func (l *List) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Entry, 0, len(l.entries))
	now := l.o.Clock.Now()
	for _, in := range []*list.List{&l.byHand, &l.networks, &l.triplets} {
		for el := in.Front(); el != nil; el = el.Next() {
			if e := el.Value.(*Entry); e.Until.IsZero() || !now.After(e.Until) {
				out = append(out, *e)
			}
		}
	}
	return out
}
