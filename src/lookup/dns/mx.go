package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"opensmtpd/src/mail/addr"
)

// Why mail for a domain cannot be sent.
var (
	// ErrNoDomain means that the domain does not exist.
	ErrNoDomain = errors.New("no such domain")
	// ErrNullMX means that the domain says that it takes no mail (RFC 7505), or
	// that its only server is called localhost.
	ErrNullMX = errors.New("domain does not accept mail")
	// ErrBadName means that what was asked for is no domain.
	ErrBadName = errors.New("not a domain name")
	// errNoName is an ErrNone of a name that does not exist with any record.
	errNoName = fmt.Errorf("%w: the name does not exist", ErrNone)
)

// MX is one server of a mail domain.
type MX struct {
	Name  string
	Pref  uint16
	Addrs []netip.Addr // IPv6 and IPv4; empty: none that can be found now
}

const (
	// mxBudget is how long the servers of a domain may take to find.
	mxBudget = 30 * time.Second
	// maxMX bounds the servers of one domain that are used.
	maxMX = 32
	// maxMXAddrs bounds the addresses of one server that are used.
	maxMXAddrs = 16
	// maxMXCache bounds the domains remembered, some 500 bytes each.
	maxMXCache = 10_000
)

// Exchanger finds mail servers, and remembers them as long as DNS allows. It may
// be used by several goroutines.
type Exchanger struct {
	r *Resolver

	mu     sync.Mutex
	cache  map[mxKey]mxAnswer
	flight map[mxKey]*mxFlight
}

type mxKey struct {
	name string
	host bool
}

type mxAnswer struct {
	list  []MX
	err   error
	until time.Duration
}

// mxFlight is a question under way, which others wait for.
type mxFlight struct {
	done chan struct{}
	got  mxAnswer
}

// NewExchanger returns one that asks through r.
func NewExchanger(r *Resolver) *Exchanger {
	return &Exchanger{r: r, cache: make(map[mxKey]mxAnswer), flight: make(map[mxKey]*mxFlight)}
}

// Forget drops what is remembered, because the files of the resolver changed.
func (x *Exchanger) Forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cache = make(map[mxKey]mxAnswer)
}

// Find returns the servers of a domain by preference and for how long that
// holds; with host the addresses of one host, as if it were the only server. An
// address literal stands for itself. The error is ErrNoDomain, ErrNullMX,
// ErrBadName, ErrNone (there is nobody), or wraps ErrTemp.
func (x *Exchanger) Find(ctx context.Context, domain string, host bool) ([]MX, time.Duration, error) {
	if a, ok := literal(domain); ok {
		return []MX{{Name: domain, Addrs: []netip.Addr{a}}}, maxTTL, nil
	}
	ascii, ok := addr.ASCIIDomain(domain)
	name := strings.TrimSuffix(addr.Lower(ascii), ".")
	if !ok || !validName(name) {
		return nil, noTTL, ErrBadName
	}
	key := mxKey{name, host}
	x.mu.Lock()
	if a, ok := x.cache[key]; ok && x.r.clock.Mono() < a.until {
		x.mu.Unlock()
		return a.list, a.until - x.r.clock.Mono(), a.err
	}
	f := x.flight[key]
	if f == nil {
		f = &mxFlight{done: make(chan struct{})}
		x.flight[key] = f
		// As with names: it ends by itself, and others may wait for it.
		x.r.wg.Go(func() { x.fly(key, f) })
	}
	x.mu.Unlock()
	select {
	case <-f.done:
		return f.got.list, f.got.until - x.r.clock.Mono(), f.got.err
	case <-ctx.Done():
		return nil, 0, ErrTemp
	}
}

// literal reads an address, in brackets or without.
func literal(s string) (netip.Addr, bool) {
	if a, ok := addr.Literal(s); ok {
		return a.Unmap(), true
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

func (x *Exchanger) fly(key mxKey, f *mxFlight) {
	end := x.r.clock.Mono() + mxBudget
	var ttl time.Duration
	if key.host {
		f.got.list, ttl, f.got.err = x.alone(x.r.life, key.name, end)
	} else {
		f.got.list, ttl, f.got.err = x.servers(x.r.life, key.name, end)
	}
	f.got.until = x.r.clock.Mono() + min(max(ttl, minTTL), maxTTL)
	x.mu.Lock()
	delete(x.flight, key)
	x.remember(key, f.got)
	x.mu.Unlock()
	close(f.done)
}

// remember is called with the lock held.
func (x *Exchanger) remember(key mxKey, a mxAnswer) {
	if len(x.cache) >= maxMXCache {
		now := x.r.clock.Mono()
		for k, old := range x.cache {
			if old.until <= now {
				delete(x.cache, k)
			}
		}
		for k := range x.cache {
			if len(x.cache) < maxMXCache {
				break
			}
			delete(x.cache, k)
		}
	}
	x.cache[key] = a
}

// servers asks for the MX records (RFC 5321 section 5.1), and for the addresses
// of each.
func (x *Exchanger) servers(ctx context.Context, name string, end time.Duration) ([]MX, time.Duration, error) {
	answer, ttl, err := x.r.ask(ctx, name, dns.TypeMX, end)
	if err != nil {
		// A name that hosts(5) knows need not be in DNS, nor DNS there at all.
		if (errors.Is(err, ErrNone) && !errors.Is(err, errNoName)) || x.r.inHosts(name) {
			return x.alone(ctx, name, end)
		}
		if errors.Is(err, errNoName) {
			err = ErrNoDomain
		}
		return nil, ttl, err
	}
	list, null := exchanges(answer)
	switch {
	case len(list) == 0 && null:
		return nil, ttl, ErrNullMX
	case len(list) == 0:
		return x.alone(ctx, name, end)
	}
	found := 0
	for i := range list {
		// No name, against RFC 5321 section 5.1; but getaddrinfo(3) takes it,
		// and so OpenSMTPD delivers there.
		if a, ok := literal(list[i].Name); ok {
			list[i].Addrs = []netip.Addr{a}
			found++
			continue
		}
		var more time.Duration
		list[i].Addrs, more, err = x.both(ctx, list[i].Name, end)
		ttl = min(ttl, more)
		found += len(list[i].Addrs)
	}
	switch {
	case found > 0:
		return list, ttl, nil
	case errors.Is(err, ErrTemp):
		return nil, ttl, err
	}
	return nil, ttl, ErrNone
}

// exchanges reads MX records, the best first. null tells of one that says that
// there is no server: "." (RFC 7505), or localhost.
func exchanges(answer []dns.RR) (list []MX, null bool) {
	for _, rr := range answer {
		mx, ok := rr.(*dns.MX)
		if !ok {
			continue
		}
		name := strings.TrimSuffix(addr.Lower(mx.Mx), ".")
		switch {
		case name == "" || name == "localhost":
			null = true
		case validName(name):
			list = append(list, MX{Name: name, Pref: mx.Preference})
		}
	}
	slices.SortStableFunc(list, func(a, b MX) int { return int(a.Pref) - int(b.Pref) })
	return list[:min(len(list), maxMX)], null
}

// alone takes a name for that of the only server.
func (x *Exchanger) alone(ctx context.Context, name string, end time.Duration) ([]MX, time.Duration, error) {
	addrs, ttl, err := x.both(ctx, name, end)
	if len(addrs) == 0 {
		return nil, ttl, err
	}
	return []MX{{Name: name, Addrs: addrs}}, ttl, nil
}

// both asks for the addresses of both families. The error is that of the answer
// that may get better.
func (x *Exchanger) both(ctx context.Context, name string, end time.Duration) ([]netip.Addr, time.Duration, error) {
	six, ttl6, err6 := x.r.addrs(ctx, name, false, end)
	four, ttl4, err4 := x.r.addrs(ctx, name, true, end)
	list := slices.Concat(six, four)
	err := err4
	if errors.Is(err6, ErrTemp) {
		err = err6
	}
	ttl := min(ttl4, ttl6)
	switch { // what one family does not have need not be asked again soon
	case err4 == nil && errors.Is(err6, ErrNone):
		ttl = ttl4
	case err6 == nil && errors.Is(err4, ErrNone):
		ttl = ttl6
	}
	return list[:min(len(list), maxMXAddrs)], ttl, err
}

// inHosts tells whether hosts(5) has a name.
func (r *Resolver) inHosts(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.hosts.addrs[name]) > 0
}
