// Package dns asks the domain name system on behalf of a process that can open
// no file: what resolv.conf(5) and hosts(5) say is handed in. Answers are cached,
// failures too, so that a name server that does not answer delays one client and
// not every one.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail/addr"
)

const (
	// budget is how long a question may take, retries and all: an SMTP client
	// waits for it before the greeting.
	budget = 5 * time.Second
	// sulk is how long no server is asked after none of them answered.
	sulk = 10 * time.Second
	// The bounds of a cached answer's life: a TTL of 0 must not make every
	// connection ask, and one of weeks must not outlive a mistake.
	minTTL  = 10 * time.Second
	maxTTL  = time.Hour
	noTTL   = time.Minute      // of "there is none" without a SOA
	tempTTL = 30 * time.Second // of "no answer"
	// maxCache bounds the addresses that are remembered, some 200 bytes each.
	maxCache = 20_000
)

var (
	// ErrNone means that the name, or the type of record, does not exist.
	ErrNone = errors.New("no such record")
	// ErrTemp means that no server gave an answer.
	ErrTemp = errors.New("no answer from DNS")
)

// Name is what the reverse lookup of an address found.
type Name struct {
	Name    string // without a final dot; "" when there is none
	Forward bool   // the name resolves to the address
	Temp    bool   // it could not be found out, now
}

// Resolver asks the servers. It may be used by several goroutines.
type Resolver struct {
	clock  clock.Clock
	budget time.Duration
	life   context.Context // of the questions that outlive who asked
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	conf   resolvConf
	hosts  hosts
	dead   time.Duration // no question before this moment; zero: none failed
	cache  map[netip.Addr]cached
	flight map[netip.Addr]*flight
}

type cached struct {
	Name
	until time.Duration
}

// flight is a reverse lookup under way, which others wait for.
type flight struct {
	done chan struct{}
	name Name
}

// New returns a Resolver that goes by the contents of the two files. It must be
// closed.
func New(c clock.Clock, resolvConf, hosts []byte) *Resolver {
	r := &Resolver{clock: c, budget: budget, flight: make(map[netip.Addr]*flight)}
	r.life, r.stop = context.WithCancel(context.Background())
	r.Configure(resolvConf, hosts)
	return r
}

// Close gives up all questions and waits until none is left, which takes no
// longer than one try. RDNS must not be called any more.
func (r *Resolver) Close() {
	r.stop()
	r.wg.Wait()
}

// Configure takes new contents of the files, and forgets what the old ones led
// to.
func (r *Resolver) Configure(resolvConf, hosts []byte) {
	c, h := parseResolvConf(resolvConf), parseHosts(hosts)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conf, r.hosts, r.dead = c, h, 0
	r.cache = make(map[netip.Addr]cached)
}

// RDNS returns the name of an address, verified. It takes no longer than 5 s, or
// until ctx ends.
func (r *Resolver) RDNS(ctx context.Context, a netip.Addr) Name {
	a = a.WithZone("").Unmap()
	r.mu.Lock()
	if name, ok := r.hosts.names[a]; ok {
		r.mu.Unlock()
		return Name{Name: name, Forward: true}
	}
	if c, ok := r.cache[a]; ok && r.clock.Mono() < c.until {
		r.mu.Unlock()
		return c.Name
	}
	f := r.flight[a]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		r.flight[a] = f
		// It runs on when this caller gives up: others may wait, and the
		// answer is worth having. It ends by itself, within the budget.
		r.wg.Go(func() { r.fly(a, f) })
	}
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.name
	case <-ctx.Done():
		return Name{Temp: true}
	}
}

func (r *Resolver) fly(a netip.Addr, f *flight) {
	var ttl time.Duration
	f.name, ttl = r.reverse(r.life, a)
	r.mu.Lock()
	delete(r.flight, a)
	r.remember(a, f.name, ttl)
	r.mu.Unlock()
	close(f.done)
}

// remember is called with the lock held.
func (r *Resolver) remember(a netip.Addr, n Name, ttl time.Duration) {
	now := r.clock.Mono()
	if len(r.cache) >= maxCache {
		for old, c := range r.cache {
			if c.until <= now {
				delete(r.cache, old)
			}
		}
		// All of it fresh: any will do, the map picks at random.
		for old := range r.cache {
			if len(r.cache) < maxCache {
				break
			}
			delete(r.cache, old)
		}
	}
	r.cache[a] = cached{n, now + min(max(ttl, minTTL), maxTTL)}
}

// reverse asks for the name, then for the addresses of the name.
func (r *Resolver) reverse(ctx context.Context, a netip.Addr) (Name, time.Duration) {
	end := r.clock.Mono() + r.budget
	arpa, err := dns.ReverseAddr(a.String())
	if err != nil {
		return Name{}, noTTL
	}
	answer, ttl, err := r.ask(ctx, arpa, dns.TypePTR, end)
	if err != nil {
		return Name{Temp: !errors.Is(err, ErrNone)}, ttl
	}
	n := Name{Name: pointer(answer)}
	if n.Name == "" {
		return n, ttl
	}
	addrs, more, err := r.addrs(ctx, n.Name, a.Is4(), end)
	n.Temp = err != nil && !errors.Is(err, ErrNone)
	for _, b := range addrs {
		n.Forward = n.Forward || a == b
	}
	return n, min(ttl, more)
}

// hostName makes a name of what a PTR record holds, "" when it is none.
func hostName(fqdn string) string {
	name := fqdn
	if l := len(name); l > 1 && name[l-1] == '.' {
		name = name[:l-1]
	}
	if !validName(name) {
		return ""
	}
	return name
}

// Addrs returns the addresses of a host, by hosts(5) or else DNS: of IPv4 alone,
// or of IPv6 alone. No address is ErrNone.
func (r *Resolver) Addrs(ctx context.Context, host string, v4 bool) ([]netip.Addr, error) {
	list, _, err := r.addrs(ctx, host, v4, r.clock.Mono()+r.budget)
	return list, err
}

func (r *Resolver) addrs(ctx context.Context, host string, v4 bool, end time.Duration) ([]netip.Addr, time.Duration, error) {
	r.mu.Lock()
	local := r.hosts.addrs[addr.Lower(host)]
	r.mu.Unlock()
	var list []netip.Addr
	for _, a := range local {
		if a.Is4() == v4 {
			list = append(list, a)
		}
	}
	if len(list) > 0 {
		return list, maxTTL, nil
	}
	qtype := dns.TypeAAAA
	if v4 {
		qtype = dns.TypeA
	}
	answer, ttl, err := r.ask(ctx, host, qtype, end)
	if err != nil {
		return nil, ttl, err
	}
	if list = addresses(answer, v4); len(list) == 0 {
		return nil, ttl, ErrNone
	}
	return list, ttl, nil
}

// addresses reads A or AAAA records.
func addresses(answer []dns.RR, v4 bool) []netip.Addr {
	var list []netip.Addr
	for _, rr := range answer {
		switch rr := rr.(type) {
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok && v4 {
				list = append(list, a)
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA); ok && !v4 {
				list = append(list, a.Unmap())
			}
		}
	}
	return list
}

// pointer reads PTR records: the first that holds a name, "" without one.
func pointer(answer []dns.RR) string {
	for _, rr := range answer {
		if ptr, ok := rr.(*dns.PTR); ok {
			if name := hostName(ptr.Ptr); name != "" {
				return name
			}
		}
	}
	return ""
}

// ask puts one question to the servers in turn, until end on the monotonic
// clock, and returns the answer section with its shortest TTL. The error is
// ErrNone or wraps ErrTemp.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16, end time.Duration) ([]dns.RR, time.Duration, error) {
	r.mu.Lock()
	conf, dead := r.conf, r.dead
	r.mu.Unlock()
	if now := r.clock.Mono(); dead != 0 && now < dead {
		return nil, min(tempTTL, dead-now), fmt.Errorf("%w: servers did not answer before", ErrTemp)
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	var last error
	silent := true
	for range conf.attempts {
		for _, server := range conf.servers {
			left := end - r.clock.Mono()
			if left <= 0 || ctx.Err() != nil {
				return nil, tempTTL, r.failed(last, silent && ctx.Err() == nil)
			}
			m, err := exchange(ctx, q, server, min(conf.timeout, left))
			if err != nil {
				last = err
				continue
			}
			silent = false
			r.mu.Lock()
			r.dead = 0
			r.mu.Unlock()
			switch m.Rcode {
			case dns.RcodeSuccess, dns.RcodeNameError:
				return result(m)
			}
			last = fmt.Errorf("%v: %s", server, dns.RcodeToString[m.Rcode])
		}
	}
	return nil, tempTTL, r.failed(last, silent && ctx.Err() == nil)
}

// failed notes that no server answered at all, which spares the next questions
// the wait.
func (r *Resolver) failed(last error, silent bool) error {
	if silent && last != nil {
		r.mu.Lock()
		r.dead = r.clock.Mono() + sulk
		r.mu.Unlock()
	}
	return fmt.Errorf("%w: %v", ErrTemp, last)
}

// exchange sends q to one server: by UDP, and by TCP when the answer was cut.
func exchange(ctx context.Context, q *dns.Msg, server netip.AddrPort, timeout time.Duration) (*dns.Msg, error) {
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: timeout, UDPSize: 1232}
		m, _, err := c.ExchangeContext(ctx, q, server.String())
		if err != nil {
			return nil, err
		}
		if len(m.Question) != 1 || m.Question[0].Qtype != q.Question[0].Qtype || !addr.EqualDomain(m.Question[0].Name, q.Question[0].Name) {
			return nil, fmt.Errorf("%v answers another question", server)
		}
		if !m.Truncated {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%v: answer cut short over TCP", server)
}

// result reads a reply. Without an answer the SOA says how long that holds (RFC
// 2308 section 5).
func result(m *dns.Msg) ([]dns.RR, time.Duration, error) {
	if len(m.Answer) == 0 || m.Rcode != dns.RcodeSuccess {
		none := ErrNone
		if m.Rcode == dns.RcodeNameError {
			none = errNoName
		}
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				return nil, time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second, none
			}
		}
		return nil, noTTL, none
	}
	ttl := maxTTL
	for _, rr := range m.Answer {
		ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
	}
	return m.Answer, ttl, nil
}
