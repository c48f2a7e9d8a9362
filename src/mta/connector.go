package mta

import (
	"net/netip"
	"time"

	"opensmtpd/src/mailerr"
)

// connector is a relay from one of our addresses.
type connector struct {
	counter
	relay  *relay
	source *source
	broken bool // the address cannot be used
}

// verdict is why a connector opens no connection.
type verdict uint8

const (
	noServer verdict = iota
	badSource
	familyMismatch
	lacking   // strict mail: no server has what it needs
	suspended // all routes are disabled
	limited   // something else must happen first: a connection ends, time passes
)

// found is what a search for a route has to say.
type found struct {
	connector *connector // nil: none, and why
	server    server
	conns     int // that the route has
	why       verdict
	next      time.Duration // when a pause is over; 0: none
}

// better joins what two searches found: a route with few connections is best,
// and of several reasons why there is none the last in the list of verdicts.
func (f found) better(g found) found {
	switch {
	case g.connector != nil && (f.connector == nil || g.conns < f.conns):
		return g
	case f.connector != nil || g.connector != nil:
		return f
	case f.why == limited && g.why == limited:
		if g.next != 0 && (f.next == 0 || g.next < f.next) {
			f.next = g.next
		}
		return f
	case g.why > f.why:
		return g
	}
	return f
}

// checkLimit is how often a relay that only limits hold back looks again, in
// case the connection that it waits for was another relay's.
const checkLimit = 5 * time.Second

// connect opens connections as long as there is need and a way. The lock is
// held.
func (r *relay) connect() {
	for r.needy() {
		best := r.search()
		switch {
		case best.connector != nil:
			r.open(best)
		case best.why == limited:
			now := r.m.Clock.Mono()
			at := now + checkLimit
			if best.next > now {
				at = best.next
			}
			r.lookLater(at)
			return
		case r.conns > 0:
			return // what works goes on
		default:
			r.unreachable(best.why)
			return
		}
	}
}

// needy tells whether one more connection is worth having: there is more to do
// than are getting ready or free, and than those at work will do in no time.
func (r *relay) needy() bool {
	n := len(r.line)
	if n == 0 || r.starting+len(r.idle) >= n {
		return false
	}
	return r.conns <= 2 || r.conns < n/2
}

// unreachable fails what waits, and says why.
func (r *relay) unreachable(why verdict) {
	lack := r.lack()
	if why == lacking {
		r.m.Log.MTANoRoute(lack.Text, r.text())
		r.fail(lack, false)
		return
	}
	text, about := "No valid route to destination", "No valid route"
	detail := uint16(1) // 4.4.1: no answer from host
	switch why {
	case noServer:
		text, about, detail = "No MX found for destination", "No MX found", 4
	case familyMismatch:
		text, about, detail = "Address family mismatch on destination MXs", "Address family mismatch", 4
	case suspended:
		text = "Network error on destination MXs"
		if r.trouble != "" {
			text += " (" + r.trouble + ")"
		}
	case badSource, lacking, limited:
	}
	r.m.Log.MTANoRoute(about, r.text())
	// A server that is nothing for this mail may be good for other.
	r.fail(mailerr.Temporary(451, 4, detail, text, nil), lack == nil)
}

// lack is the least that the servers of r lack: the promise of REQUIRETLS, or else
// TLS; nil when they lack nothing that is known.
func (r *relay) lack() (least *mailerr.Error) {
	for i := range r.servers {
		if e := r.servers[i].lacks; e != nil && (least == nil || e.Enhanced[2] == noPromiseDetail) {
			least = e
		}
	}
	return least
}

// search looks for a route over all connectors.
func (r *relay) search() found {
	if f, held := r.held(&r.counter, r.limits.MaxConnPerRelay, r.limits.ConnDelayRelay); held {
		return f
	}
	if f, held := r.held(r.domain, r.limits.MaxConnPerDomain, r.limits.ConnDelayDomain); held {
		return f
	}
	best := found{why: noServer}
	for _, c := range r.connectors {
		best = best.better(c.search())
	}
	return best
}

// held tells whether a limit or a pause forbids a connection now.
func (r *relay) held(c *counter, most int, pause time.Duration) (found, bool) {
	if c.conns >= most {
		return found{why: limited}, true
	}
	if at := c.last + pause; pause > 0 && c.begun && at > r.m.Clock.Mono() {
		return found{why: limited, next: at}, true
	}
	return found{}, false
}

func (c *connector) search() found {
	if c.broken {
		return found{why: badSource}
	}
	r := c.relay
	if f, held := r.held(&c.source.counter, r.limits.MaxConnPerSource, r.limits.ConnDelaySource); held {
		return f
	}
	if f, held := r.held(&c.counter, r.limits.MaxConnPerConnector, r.limits.ConnDelayConnector); held {
		return f
	}
	best := found{why: noServer}
	level := -1
	for _, s := range r.servers {
		if s.pref > level {
			// A server of this preference is waited for rather than one that
			// is less preferred used.
			if best.connector != nil || best.why == limited {
				break
			}
			level = s.pref
		}
		best = best.better(c.try(s))
	}
	return best
}

// try tells whether a server may be connected to now.
func (c *connector) try(s server) found {
	r, l := c.relay, c.relay.limits
	if !c.source.family(l.Family, s.addr) {
		return found{why: familyMismatch}
	}
	if s.lacks != nil {
		return found{why: lacking}
	}
	if f, held := r.held(&s.host.counter, l.MaxConnPerHost, l.ConnDelayHost); held {
		return f
	}
	rt := r.m.routes[routeKey{c.source.addr, s.host.at}]
	if rt == nil {
		return found{connector: c, server: s}
	}
	switch {
	case rt.disabled:
		return found{why: suspended}
	case rt.fresh && rt.conns > 0, rt.conns >= rt.window:
		return found{why: limited}
	}
	if f, held := r.held(&rt.counter, l.MaxConnPerRoute, l.ConnDelayRoute); held {
		return f
	}
	if at := rt.lost + l.ReconnDelayRoute; rt.gone && l.ReconnDelayRoute > 0 && at > r.m.Clock.Mono() {
		return found{why: limited, next: at}
	}
	return found{connector: c, server: s, conns: rt.conns}
}

// open begins a session.
func (r *relay) open(f found) {
	now := r.m.Clock.Mono()
	rt := r.m.routeOf(f.connector.source, f.server.host)
	s := newSession(r, f.connector, rt, f.server)
	for _, n := range s.counters() {
		n.opened(now)
	}
	r.starting++
	r.m.sessions[s] = struct{}{}
	r.m.count.session.Add(1)
	r.m.work.Go(func() { s.run(r.m.ctx) })
}

// counters are what a session counts for.
func (s *session) counters() [6]*counter {
	return [6]*counter{
		&s.relay.counter, s.relay.domain, &s.connector.counter,
		&s.route.counter, &s.route.src.counter, &s.route.dst.counter,
	}
}

// markReady notes that a session can send.
func (m *MTA) markReady(s *session) {
	m.mu.Lock()
	defer m.unlock()
	s.ready = true
	s.relay.starting--
	s.relay.trouble = ""
	s.route.works()
}

// collect notes the end of a session.
func (m *MTA) collect(s *session) {
	m.mu.Lock()
	defer m.unlock()
	r, rt := s.relay, s.route
	delete(m.sessions, s)
	m.count.session.Sub(1)
	for _, n := range s.counters() {
		n.conns--
	}
	rt.lost, rt.gone = m.Clock.Mono(), true
	if !s.ready {
		r.starting--
		switch {
		case s.lacks != nil:
			r.mark(s.server.addr, s.lacks)
		case s.badSource:
			s.connector.broken = true
			m.Log.MTASourceError(rt.text(), s.trouble)
		case !m.stopping:
			r.trouble = s.trouble
			rt.refuses()
		}
	}
	r.look()
	rt.settle()
}

// mark notes that a server is nothing for the mail of r.
func (r *relay) mark(a netip.Addr, lacks *mailerr.Error) {
	for i := range r.servers {
		if r.servers[i].addr == a {
			r.servers[i].lacks = lacks
		}
	}
}

// grow lets a route that takes mail have one more connection.
func (m *MTA) grow(s *session) {
	m.mu.Lock()
	defer m.unlock()
	if s.route.window >= s.relay.limits.MaxConnPerRoute {
		return
	}
	s.route.window++
	if len(s.relay.line) > 0 {
		s.relay.look()
	}
}
