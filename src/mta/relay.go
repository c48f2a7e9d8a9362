package mta

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

// relayKey names a relay: mail with equal ones shares connections.
type relayKey struct {
	gen    mail.Gen
	action string
	policy policy
	url    conf.RelayURL // of a relay that the configuration names
	domain string        // else of the recipients
}

// relay is a destination under an action.
type relay struct {
	m      *MTA
	id     uint64
	key    relayKey
	conf   *Config
	act    *Action
	limits *project.MTALimits
	domain *counter // shared by all relays of the same name

	line     []*task
	idle     []*session // the one that became idle last is woken first
	starting int        // connections that are not ready yet
	counter             // all its connections

	state      relayState
	until      time.Duration // when the servers must be looked up again
	servers    []server
	connectors []*connector
	user       string // credentials; "" without
	password   string
	alarm      time.Duration // of the next look, 0: none is set
	trouble    string        // what the last session that failed before it was ready said
}

type relayState uint8

const (
	relayNew     relayState = iota // nothing is known yet
	relayAsking                    // look-ups are under way
	relayReady                     // servers are known
	relayRenewed                   // servers are known and being looked up again
)

// server is one address of an MX.
type server struct {
	name string
	pref int
	addr netip.Addr
	host *host
	// lacks is why it gets no strict mail; nil: it has not said so.
	lacks *mailerr.Error
}

// counter counts connections of something that is limited.
type counter struct {
	conns int
	last  time.Duration // when the last one began
	begun bool          // there was one
}

func (c *counter) opened(now time.Duration) { c.conns, c.last, c.begun = c.conns+1, now, true }

// route finds the relay of a task, asking a table for it where the action says
// so.
func (m *MTA) route(c *Config, act *Action, t *task) {
	dest := t.Envelopes[0].Dest.Domain
	key := relayKey{gen: c.Gen, action: act.Name, policy: act.policy}
	switch {
	case act.Hosts != "":
		m.goWork(func(ctx context.Context) { m.routeByTable(ctx, c, act, t, key) }, t)
		return
	case act.url != nil:
		key.url = *act.url
	default:
		key.domain = addr.Lower(dest)
	}
	m.join(c, act, t, key)
}

// goWork runs f in a goroutine, or gives t back when there is no time for that.
func (m *MTA) goWork(f func(context.Context), t *task) {
	m.mu.Lock()
	stopping := m.stopping
	if !stopping {
		m.work.Go(func() { f(m.asking) })
	}
	m.mu.Unlock()
	if stopping {
		m.giveBack(t)
	}
}

// routeByTable asks for the relay of a domain, or for the next one of a list.
func (m *MTA) routeByTable(ctx context.Context, c *Config, act *Action, t *task, key relayKey) {
	q := &msg.RelayLookup{Gen: c.Gen, Service: msg.RelayHost, Table: act.Hosts}
	if act.ByDomain {
		q.Key = t.Envelopes[0].Dest.Domain
	}
	got, err := m.Lookup.Table(ctx, q)
	switch {
	case ctx.Err() != nil:
		m.giveBack(t)
		return
	case err != nil || got.Err != nil || !got.Found:
		m.Log.MTAWarn("Failed to retrieve smarthost from "+act.Hosts, failure(err, got))
		m.refuse(t, "-", mailerr.Temporary(451, 4, 3, "Cannot retrieve smarthost", nil), false)
		return
	}
	u, err := conf.ParseRelay(got.Value)
	if err != nil {
		m.Log.MTAWarn("Failed to parse smarthost "+got.Value, err)
		m.refuse(t, "-", mailerr.Temporary(451, 3, 5, "Cannot parse smarthost", nil), false)
		return
	}
	key.url = u
	m.join(c, act, t, key)
}

func failure(err error, got *msg.RelayLookupReply) error {
	switch {
	case err != nil:
		return err
	case got.Err != nil:
		return got.Err
	}
	return fmt.Errorf("no such entry")
}

// join puts a task into the line of its relay.
func (m *MTA) join(c *Config, act *Action, t *task, key relayKey) {
	if err := check(act, &key.url); err != nil {
		m.Log.MTAWarn(fmt.Sprintf("action %q, relay %s", act.Name, key.url.Host), err)
		m.refuse(t, "-", err, false)
		return
	}
	m.mu.Lock()
	if m.stopping {
		m.mu.Unlock()
		m.giveBack(t)
		return
	}
	r := m.relays[key]
	if r == nil {
		r = &relay{m: m, id: m.newID(), key: key, conf: c, act: act}
		r.limits = limitsOf(c, r.name())
		if r.domain = m.domains[r.name()]; r.domain == nil {
			r.domain = new(counter)
			m.domains[r.name()] = r.domain
			m.count.domain.Add(1)
		}
		m.relays[key] = r
		m.count.relay.Add(1)
	}
	if n := len(r.idle); n > 0 && len(r.line) == 0 {
		s := r.idle[n-1]
		r.idle = r.idle[:n-1]
		s.next <- t
		m.mu.Unlock()
		return
	}
	r.line = append(r.line, t)
	r.look()
	m.unlock()
}

// check refuses what the configuration should have refused.
func check(act *Action, u *conf.RelayURL) *mailerr.Error {
	notls := u.Scheme == "smtp+notls" || u.Scheme == "lmtp"
	switch {
	case act.policy == strict && notls:
		return lacks(lackError("the relay is reached without TLS"))
	case u.Label != "" && act.AuthTable == "":
		return mailerr.Temporary(451, 3, 5, "No auth table for relaying", nil)
	case act.TLS && notls:
		return mailerr.Temporary(451, 7, 4, "TLS required for relaying", nil)
	}
	return nil
}

// name is that of the domain, or of the host that the configuration names.
func (r *relay) name() string {
	if r.key.url.Host != "" {
		return r.key.url.Host
	}
	return r.key.domain
}

// named tells whether the configuration names the server, so that no MX is
// looked up.
func (r *relay) named() bool { return r.key.url.Host != "" }

// scheme is how to speak: smtp, smtp+tls, smtp+notls, smtps or lmtp.
func (r *relay) scheme() string {
	s := r.key.url.Scheme
	if s == "" {
		s = "smtp"
	}
	if s == "smtp" && r.act.TLS {
		return "smtp+tls"
	}
	return s
}

// verify tells whether the server must prove who it is.
func (r *relay) verify() bool {
	s := r.scheme()
	return (s == "smtp+tls" || s == "smtps") && !r.act.NoVerify
}

func (r *relay) port() uint16 {
	if r.named() {
		return r.key.url.Port
	}
	return 25
}

// text is the relay in the words of smtpctl(8).
func (r *relay) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[relay:%s", r.name())
	if r.named() {
		fmt.Fprintf(&b, ",port=%d", r.port())
	}
	b.WriteString("," + r.scheme())
	for _, opt := range []struct{ name, value string }{
		{"auth", r.key.url.Label}, {"pki_name", r.act.PKI}, {"backup", r.backup()},
		{"sourcetable", r.act.Src}, {"helotable", r.act.HeloSrc}, {"heloname", r.act.Helo},
	} {
		switch {
		case opt.value == "":
		case opt.name == "auth":
			fmt.Fprintf(&b, ",auth=%s:%s", r.act.AuthTable, opt.value)
		default:
			fmt.Fprintf(&b, ",%s=%s", opt.name, opt.value)
		}
	}
	if r.named() {
		b.WriteString(",mx")
	}
	b.WriteByte(']')
	return b.String()
}

// backup is the name that a backup MX has among the others.
func (r *relay) backup() string {
	if !r.act.Backup || r.named() {
		return ""
	}
	if r.act.BackupMX != "" {
		return r.act.BackupMX
	}
	return r.conf.Server
}

// look does what can be done for the line of r, with the lock held.
func (r *relay) look() {
	if len(r.line) == 0 || r.m.stopping {
		r.rest()
		return
	}
	switch r.state {
	case relayNew:
		r.state = relayAsking
		r.m.work.Go(func() { r.prepare(r.m.asking) })
		return
	case relayAsking:
		return
	case relayReady:
		if r.m.Clock.Mono() >= r.until {
			r.state = relayRenewed
			r.m.work.Go(func() { r.prepare(r.m.asking) })
		}
	case relayRenewed:
	}
	r.connect()
}

// lookLater calls look at a moment.
func (r *relay) lookLater(at time.Duration) {
	if r.alarm != 0 && r.alarm <= at {
		return
	}
	r.alarm = at
	r.m.at(at, func() {
		if r.alarm == at {
			r.alarm = 0
			r.look()
		}
	})
}

// rest forgets a relay that nothing waits for.
func (r *relay) rest() {
	if len(r.line) > 0 || r.conns > 0 || r.state == relayAsking || r.state == relayRenewed || r.m.relays[r.key] != r {
		return
	}
	// Pauses between connections hold beyond the mail that began them.
	l := r.limits
	pause := max(l.ConnDelayRelay, l.ConnDelayConnector, l.ConnDelayDomain, l.ConnDelaySource, l.ConnDelayHost)
	if until := r.last + pause; pause > 0 && r.begun && until > r.m.Clock.Mono() {
		r.m.at(until, r.rest)
		return
	}
	delete(r.m.relays, r.key)
	r.m.count.relay.Sub(1)
	r.letGo()
	for _, o := range r.m.relays {
		if o.domain == r.domain {
			return
		}
	}
	if r.m.domains[r.name()] == r.domain {
		delete(r.m.domains, r.name())
		r.m.count.domain.Sub(1)
	}
}

// letGo drops hosts and connectors.
func (r *relay) letGo() {
	r.release(r.servers, r.connectors)
	r.servers, r.connectors = nil, nil
}

func (r *relay) release(servers []server, connectors []*connector) {
	r.m.count.connector.Sub(int64(len(connectors)))
	for i := range servers {
		servers[i].host.release()
	}
	for _, c := range connectors {
		c.source.release()
	}
}

// fail ends all that waits for r; unreachable when the rest in the queue need
// not be tried either. The lock is held.
func (r *relay) fail(err *mailerr.Error, unreachable bool) {
	line := r.line
	r.line = nil
	if r.state == relayReady {
		r.state = relayNew // the next task begins anew
		r.letGo()
		r.rest()
	}
	where := r.name()
	r.m.later = append(r.m.later, func() {
		for _, t := range line {
			r.m.refuse(t, where, err, unreachable)
		}
	})
}
