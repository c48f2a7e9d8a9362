package mta

import (
	"net/netip"
	"time"

	"opensmtpd/src/conf"
)

// host is a server: an address and a port, because another port is another
// program, which may be well when this one is not.
type host struct {
	counter
	m     *MTA
	at    netip.AddrPort
	name  string // by DNS, or the address; "" before it was asked for
	named bool   // it was asked for
	refs  int
}

func (m *MTA) hold(at netip.AddrPort) *host {
	h := m.hosts[at]
	if h == nil {
		h = &host{m: m, at: at}
		m.hosts[at] = h
		m.count.host.Add(1)
	}
	h.refs++
	return h
}

func (h *host) release() {
	if h.refs--; h.refs == 0 {
		delete(h.m.hosts, h.at)
		h.m.count.host.Sub(1)
	}
}

// text is the host in the words of the log.
func (h *host) text() string {
	if h.name == "" {
		return addrText(h.at.Addr())
	}
	return addrText(h.at.Addr()) + " (" + h.name + ")"
}

// addrText is an address as OpenSMTPD writes it.
func addrText(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "[]"
	case a.Is4():
		return a.String()
	}
	return "[" + a.String() + "]"
}

// source is one of our addresses; the zero one is what the system chooses.
type source struct {
	counter
	m    *MTA
	addr netip.Addr
	refs int
}

func (m *MTA) holdSource(a netip.Addr) *source {
	s := m.sources[a]
	if s == nil {
		s = &source{m: m, addr: a}
		m.sources[a] = s
		m.count.source.Add(1)
	}
	s.refs++
	return s
}

func (s *source) release() {
	if s.refs--; s.refs == 0 {
		delete(s.m.sources, s.addr)
		s.m.count.source.Sub(1)
	}
}

type routeKey struct {
	from netip.Addr
	to   netip.AddrPort
}

// route is a way from a source to a host, shared by all relays.
type route struct {
	counter
	m    *MTA
	id   uint64
	src  *source
	dst  *host
	lost time.Duration // when the last connection ended
	gone bool          // there was one that ended
	// fresh: no session over it has been ready yet, so that one at a time may
	// try.
	fresh bool
	// window is how many connections the server seems to bear.
	window   int
	disabled bool
	until    time.Duration // of disabled
	penalty  int
	since    time.Duration // of the penalty
}

// The back-off of a route that does not work: base·penalty², at most the limit.
const (
	routeBase  = 15 * time.Second
	routeLimit = time.Hour
)

func (m *MTA) routeOf(src *source, dst *host) *route {
	k := routeKey{src.addr, dst.at}
	rt := m.routes[k]
	if rt == nil {
		rt = &route{m: m, id: m.newID(), src: src, dst: dst, fresh: true, window: 1}
		src.refs++
		dst.refs++
		m.routes[k] = rt
		m.count.route.Add(1)
	}
	return rt
}

func (rt *route) text() string { return addrText(rt.src.addr) + " <-> " + rt.dst.text() }

// maxPenalty keeps the square of a penalty small; 16 is more than an hour.
const maxPenalty = 16

func (rt *route) backoff() time.Duration {
	return min(routeBase*time.Duration(rt.penalty*rt.penalty), routeLimit)
}

// disable takes a route out of use for a while.
func (rt *route) disable() {
	now := rt.m.Clock.Mono()
	rt.penalty = min(rt.penalty+1, maxPenalty)
	rt.since = now
	d := rt.backoff()
	rt.m.Log.MTARouteDisabled(rt.text(), d)
	rt.disabled, rt.until = true, now+d
	rt.m.at(rt.until, rt.enableDue)
}

func (rt *route) enableDue() {
	if rt.disabled && rt.m.Clock.Mono() >= rt.until {
		rt.enable("")
	}
}

// enable takes it into use again. The penalty is kept for as long again: a host
// that fails once more is left alone for longer.
func (rt *route) enable(by string) {
	rt.m.Log.MTARouteEnabled(rt.text(), by)
	rt.disabled, rt.fresh, rt.window = false, true, 1
	rt.since = rt.m.Clock.Mono()
	if by != "" {
		rt.penalty = 0
	}
	rt.settle()
}

// works notes that a session is ready.
func (rt *route) works() {
	rt.fresh, rt.penalty = false, 0
	rt.window = max(rt.window, 2)
}

// refuses deals with a connection that did not become ready: a route over which
// nothing else goes is left alone for a while, one that does work bears no more
// than it has.
func (rt *route) refuses() {
	if rt.fresh || rt.conns == 0 {
		rt.disable()
		return
	}
	rt.window = rt.conns
}

// settle forgets a route that nobody uses, when nothing about it must be
// remembered any more.
func (rt *route) settle() {
	k := routeKey{rt.src.addr, rt.dst.at}
	if rt.conns > 0 || rt.disabled || rt.m.routes[k] != rt {
		return
	}
	now := rt.m.Clock.Mono()
	until := time.Duration(0)
	if rt.penalty > 0 {
		until = rt.since + rt.backoff()
	}
	if d := rt.m.longestDelay(); d > 0 {
		until = max(until, rt.last+d, rt.lost+d)
	}
	if until > now {
		rt.m.at(until, rt.settle)
		return
	}
	delete(rt.m.routes, k)
	rt.m.count.route.Sub(1)
	rt.src.release()
	rt.dst.release()
}

// longestDelay is how long a pause between connections over a route can be.
func (m *MTA) longestDelay() time.Duration {
	var d time.Duration
	for i := range m.conf.Limits {
		l := limitsOf(m.conf, m.conf.Limits[i].Domain)
		d = max(d, l.ConnDelayRoute, l.ReconnDelayRoute)
	}
	return d
}

// family tells whether a source and the limits allow an address.
func (s *source) family(f conf.Family, to netip.Addr) bool {
	if s.addr.IsValid() && s.addr.Is4() != to.Is4() {
		return false
	}
	return f == conf.AnyFamily || (f == conf.Inet4) == to.Is4()
}
