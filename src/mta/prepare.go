package mta

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

// answers is what a relay must know before it can connect.
type answers struct {
	servers        []server
	sources        []netip.Addr
	ttl            time.Duration
	user, password string
}

// prepare finds the servers, our addresses and the credentials.
func (r *relay) prepare(ctx context.Context) {
	got, err := r.ask(ctx)
	r.m.mu.Lock()
	defer r.m.unlock()
	again := r.state == relayRenewed
	r.state = relayReady
	switch {
	case err != nil && again && err.Class == mailerr.Temp:
		r.until = r.m.Clock.Mono() + time.Minute // the old servers will do
	case err != nil && ctx.Err() != nil: // we are stopping
	case err != nil:
		r.m.Log.MTAUnresolved(r.text(), err.Text)
		r.fail(err, err.Class == mailerr.Temp)
		return
	default:
		r.take(got)
	}
	r.look()
}

// take notes what was found, with the lock held.
func (r *relay) take(got answers) {
	oldServers, oldConnectors := r.servers, r.connectors
	r.until = r.m.Clock.Mono() + max(got.ttl, 10*time.Second)
	r.user, r.password = got.user, got.password
	r.servers, r.connectors = got.servers, nil
	for i := range r.servers {
		r.servers[i].host = r.m.hold(netip.AddrPortFrom(r.servers[i].addr, r.port()))
	}
	for _, a := range got.sources {
		c := &connector{relay: r}
		for _, old := range oldConnectors {
			if old.source.addr == a {
				c = old
				c.broken = false
			}
		}
		c.source = r.m.holdSource(a)
		r.connectors = append(r.connectors, c)
	}
	r.m.count.connector.Add(int64(len(r.connectors)))
	r.release(oldServers, oldConnectors)
}

func (r *relay) ask(ctx context.Context) (a answers, err *mailerr.Error) {
	if a.servers, a.ttl, err = r.askServers(ctx); err != nil {
		return a, err
	}
	if a.sources, err = r.askSources(ctx); err != nil {
		return a, err
	}
	if r.key.url.Label == "" {
		return a, nil
	}
	got, fail := r.m.Lookup.Table(ctx, &msg.RelayLookup{
		Gen: r.conf.Gen, Service: msg.RelaySecret, Table: r.act.AuthTable, Key: r.key.url.Label,
	})
	if fail != nil || got.Err != nil || !got.Found {
		r.m.Log.MTAWarn("Failed to retrieve secret for "+r.text(), failure(fail, got))
		return a, mailerr.Temporary(451, 7, 0, "Could not retrieve credentials", nil)
	}
	a.user, a.password = got.Value, got.Password
	return a, nil
}

// askServers looks up the MXs, and leaves out those that lead back to us.
func (r *relay) askServers(ctx context.Context) ([]server, time.Duration, *mailerr.Error) {
	var got msg.MXReply
	reply, err := r.m.Lookup.MX(ctx, &msg.MX{Domain: r.name(), Host: r.named()})
	if err != nil {
		return nil, 0, mailerr.Temporary(451, 4, 3, "Temporary failure in MX lookup", err)
	}
	if got = *reply; got.Err != nil {
		return nil, 0, got.Err
	}
	limit := 1 << 16 // preferences from here on are not used
	if name := r.backup(); name != "" {
		limit = backupLimit(got.Hosts, name)
	}
	loops := false
	if !r.named() {
		if own := r.ownPref(got.Hosts); own < limit {
			limit, loops = own, true
		}
	}
	var list []server
	for _, h := range got.Hosts {
		if int(h.Pref) >= limit {
			continue
		}
		for _, a := range h.Addrs {
			list = append(list, server{name: h.Name, pref: int(h.Pref), addr: a.Unmap()})
		}
	}
	if len(list) == 0 && loops {
		return nil, 0, mailerr.Permanent(554, 4, 6, "Mail for "+r.name()+" loops back to this host", nil)
	}
	// Equals in any order (RFC 5321 section 5.1).
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b server) int { return a.pref - b.pref })
	return list, got.TTL, nil
}

// backupLimit is the preference of the MX that we are ourselves: mail goes to
// better ones only. One that is not in the list forwards to all.
func backupLimit(hosts []msg.MXHost, name string) int {
	for _, h := range hosts {
		if addr.EqualDomain(h.Name, name) {
			return int(h.Pref)
		}
	}
	return 1 << 16
}

// ownPref is the best preference among the MXs that lead back to us: that one
// and those behind it would only send the mail in a circle (RFC 5321 section
// 5.1).
func (r *relay) ownPref(hosts []msg.MXHost) int {
	best := 1 << 16
	for _, h := range hosts {
		for i, a := range h.Addrs {
			if r.conf.own(netip.AddrPortFrom(a, r.port()), i < len(h.Local) && h.Local[i]) {
				best = min(best, int(h.Pref))
			}
		}
	}
	return best
}

// maxSources bounds the addresses taken from a table.
const maxSources = 64

// askSources reads our addresses until the table begins anew. Without a table
// the system chooses: the zero address.
func (r *relay) askSources(ctx context.Context) ([]netip.Addr, *mailerr.Error) {
	if r.act.Src == "" {
		return []netip.Addr{{}}, nil
	}
	var list []netip.Addr
	for len(list) < maxSources {
		got, err := r.m.Lookup.Table(ctx, &msg.RelayLookup{Gen: r.conf.Gen, Service: msg.RelaySource, Table: r.act.Src})
		if err != nil || got.Err != nil || !got.Found {
			r.m.Log.MTAWarn("Failed to get source address for "+r.text(), failure(err, got))
			break
		}
		a, ok := addr.Literal(got.Value)
		if !ok {
			a, err = netip.ParseAddr(got.Value)
		}
		if err != nil {
			r.m.Log.MTAWarn("Failed to get source address for "+r.text(), err)
			break
		}
		if a = a.Unmap(); slices.Contains(list, a) {
			return list, nil
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		return nil, mailerr.Temporary(451, 3, 5, "Could not retrieve source address", nil)
	}
	return list, nil
}
