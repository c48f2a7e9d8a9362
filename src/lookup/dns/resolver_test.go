package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"opensmtpd/src/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stub is a name server: it answers from records in the form of a zone file, and
// counts questions.
type stub struct {
	addr    string
	count   atomic.Int64
	heard   chan struct{} // receives when it keeps silent
	mu      sync.Mutex
	records []dns.RR
	rcode   int
	mute    bool
}

func newStub(t *testing.T, zone string) *stub {
	t.Helper()
	s := &stub{heard: make(chan struct{}, 9)}
	for line := range strings.Lines(zone) {
		rr, err := dns.NewRR(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			s.records = append(s.records, rr)
		}
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = pc.LocalAddr().String()
	ln, err := net.Listen("tcp", s.addr)
	if err != nil { // the port of TCP is taken
		pc.Close()
		return newStub(t, zone)
	}
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: ln, Handler: s}} {
		started, done := make(chan struct{}), make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = srv.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = srv.Shutdown()
			<-done
		})
	}
	return s
}

func (s *stub) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.count.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mute {
		s.heard <- struct{}{}
		return
	}
	m := new(dns.Msg)
	m.SetRcode(q, s.rcode)
	known := false
	name := q.Question[0].Name
	for _, rr := range s.records {
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		known = true
		if rr.Header().Rrtype == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
			name = rr.(*dns.CNAME).Target
			continue
		}
		if rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	if !known && s.rcode == 0 {
		m.Rcode = dns.RcodeNameError
	}
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(512)
	}
	_ = w.WriteMsg(m)
}

func (s *stub) set(rcode int, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode, s.mute = rcode, mute
}

// server is a line of resolv.conf(5) in OpenBSD's form, which has ports.
func server(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("nameserver [%s]:%s\n", host, port)
}

func resolver(t *testing.T, conf, hosts string) (*Resolver, *clock.Fake) {
	c := clock.NewFake(time.Unix(1e9, 0))
	r := New(c, []byte(conf), []byte(hosts))
	t.Cleanup(r.Close)
	patient(r)
	return r, c
}

// patient makes r wait for answers however slow the machine is.
func patient(r *Resolver) { r.budget, r.conf.timeout = time.Hour, time.Hour }

const zone = `
	1.2.0.192.in-addr.arpa. 300 IN PTR mail.example.org.
	mail.example.org. 300 IN A 192.0.2.9
	mail.example.org. 300 IN A 192.0.2.1
	2.2.0.192.in-addr.arpa. 300 IN PTR liar.example.org.
	liar.example.org. 300 IN A 192.0.2.99
	3.2.0.192.in-addr.arpa. 300 IN PTR gone.example.org.
	4.2.0.192.in-addr.arpa. 300 IN PTR bad\\013\\010name.example.org.
	5.2.0.192.in-addr.arpa. 300 IN CNAME 5.x.2.0.192.in-addr.arpa.
	5.x.2.0.192.in-addr.arpa. 300 IN PTR delegated.example.org.
	delegated.example.org. 300 IN A 192.0.2.5
	6.2.0.192.in-addr.arpa. 300 IN PTR sp\ ace.example.org.
	6.2.0.192.in-addr.arpa. 300 IN PTR second.example.org.
	7.2.0.192.in-addr.arpa. 300 IN TXT "no name"
	1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 300 IN PTR six.example.org.
	six.example.org. 300 IN AAAA 2001:db8::1
`

func TestRDNS(t *testing.T) {
	s := newStub(t, zone)
	r, _ := resolver(t, server(s.addr), "127.0.0.1 localhost\n::1 localhost ip6-localhost\n192.0.2.50 Box box.lan # mine\nfe80::5%lo linky\n")
	for in, want := range map[string]Name{
		"192.0.2.1":        {Name: "mail.example.org", Forward: true},
		"::ffff:192.0.2.1": {Name: "mail.example.org", Forward: true},
		"192.0.2.2":        {Name: "liar.example.org"},
		"192.0.2.3":        {Name: "gone.example.org"},
		"192.0.2.4":        {},
		"192.0.2.5":        {Name: "delegated.example.org", Forward: true},
		"192.0.2.6":        {Name: "second.example.org"},
		"192.0.2.7":        {},
		"192.0.2.8":        {},
		"2001:db8::1":      {Name: "six.example.org", Forward: true},
		"127.0.0.1":        {Name: "localhost", Forward: true},
		"::1":              {Name: "localhost", Forward: true},
		"192.0.2.50":       {Name: "Box", Forward: true},
		"fe80::5%eth0":     {Name: "linky", Forward: true},
	} {
		if got := r.RDNS(context.Background(), netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %+v, want %+v", in, got, want)
		}
	}
}

func TestHostsNeedNoServer(t *testing.T) {
	s := newStub(t, "")
	r, _ := resolver(t, server(s.addr), "127.0.0.1 localhost\n10.0.0.1 a\n10.0.0.2 A\n")
	if n := r.RDNS(context.Background(), netip.MustParseAddr("127.0.0.1")); n.Name != "localhost" {
		t.Errorf("127.0.0.1: %+v", n)
	}
	if list, err := r.Addrs(context.Background(), "a", true); err != nil || fmt.Sprint(list) != "[10.0.0.1 10.0.0.2]" {
		t.Errorf("Addrs(a) = %v, %v", list, err)
	}
	if n := s.count.Load(); n != 0 {
		t.Errorf("%d questions for what hosts(5) says", n)
	}
}

func TestCache(t *testing.T) {
	s := newStub(t, zone)
	r, c := resolver(t, server(s.addr), "")
	ask := func(a string) { r.RDNS(context.Background(), netip.MustParseAddr(a)) }
	ask("192.0.2.1")
	ask("192.0.2.8") // none
	before := s.count.Load()
	if before != 3 {
		t.Errorf("%d questions for the first lookups, want 3", before)
	}
	ask("192.0.2.1")
	ask("192.0.2.8")
	if n := s.count.Load(); n != before {
		t.Errorf("%d questions for what was just answered", n-before)
	}
	c.Advance(2 * time.Minute) // past the life of "none", not of the name
	ask("192.0.2.1")
	ask("192.0.2.8")
	if n := s.count.Load(); n != before+1 {
		t.Errorf("%d questions after two minutes, want 1", n-before)
	}
	r.Configure([]byte(server(s.addr)), nil)
	patient(r)
	ask("192.0.2.1")
	if n := s.count.Load(); n != before+3 {
		t.Errorf("%d questions after a new configuration, want 3", n-before)
	}
}

func TestCacheIsBounded(t *testing.T) {
	r, c := resolver(t, server("127.0.0.1:1"), "")
	a := netip.MustParseAddr("10.0.0.0")
	for i := range maxCache + 100 {
		r.mu.Lock()
		r.remember(a, Name{Name: "x"}, time.Minute)
		if i == maxCache/2 {
			c.Advance(30 * time.Second)
		}
		r.mu.Unlock()
		a = a.Next()
	}
	if len(r.cache) > maxCache {
		t.Errorf("%d addresses are remembered", len(r.cache))
	}
	c.Advance(31 * time.Second) // the first half is stale now
	r.mu.Lock()
	r.remember(a, Name{}, time.Minute)
	r.mu.Unlock()
	if n := len(r.cache); n > maxCache/2+100 || n < maxCache/2-100 {
		t.Errorf("%d addresses are left of %d when half of them are stale", n, maxCache)
	}
}

// A server that is silent costs its time-out once; after that the answer is
// there at once, for every address, until it is tried again.
func TestSilence(t *testing.T) {
	s := newStub(t, zone)
	s.set(0, true)
	r, c := resolver(t, server(s.addr), "")
	r.conf.timeout, r.conf.attempts = 20*time.Millisecond, 1
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.5")
	if n := r.RDNS(context.Background(), first); n != (Name{Temp: true}) {
		t.Errorf("silence gives %+v", n)
	}
	<-s.heard // it may hear the question later than we have given it up
	s.set(0, false)
	if n := r.RDNS(context.Background(), second); n != (Name{Temp: true}) || s.count.Load() != 1 {
		t.Errorf("another address right after: %+v, %d questions", n, s.count.Load())
	}
	c.Advance(sulk + tempTTL)
	patient(r)
	for _, a := range []netip.Addr{first, second} {
		if n := r.RDNS(context.Background(), a); !n.Forward || n.Temp {
			t.Errorf("%v, later: %+v", a, n)
		}
	}
}

func TestSecondServer(t *testing.T) {
	bad, good := newStub(t, ""), newStub(t, zone)
	bad.set(dns.RcodeServerFailure, false)
	r, _ := resolver(t, server(bad.addr)+server(good.addr), "")
	if n := r.RDNS(context.Background(), netip.MustParseAddr("192.0.2.1")); !n.Forward {
		t.Errorf("with one good server: %+v", n)
	}
	good.set(dns.RcodeRefused, false)
	if n := r.RDNS(context.Background(), netip.MustParseAddr("192.0.2.5")); n != (Name{Temp: true}) {
		t.Errorf("with none: %+v", n)
	}
	// They answered, if only with failures, and are asked again at once.
	good.set(0, false)
	if list, err := r.Addrs(context.Background(), "delegated.example.org", true); err != nil || len(list) != 1 {
		t.Errorf("after a failure: %v, %v", list, err)
	}
}

func TestTruncated(t *testing.T) {
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, "big.example.org. 60 IN A 10.0.0.%d\n", i)
	}
	s := newStub(t, b.String())
	r, _ := resolver(t, server(s.addr), "")
	if list, err := r.Addrs(context.Background(), "big.example.org", true); err != nil || len(list) != 200 {
		t.Errorf("%d addresses, %v", len(list), err)
	}
	if _, err := r.Addrs(context.Background(), "big.example.org", false); !errors.Is(err, ErrNone) {
		t.Errorf("IPv6 of an IPv4 host: %v", err)
	}
	if _, err := r.Addrs(context.Background(), "nowhere.example.org", true); !errors.Is(err, ErrNone) {
		t.Errorf("a name that does not exist: %v", err)
	}
}

func TestGivingUp(t *testing.T) {
	s := newStub(t, zone)
	s.set(0, true)
	r, _ := resolver(t, server(s.addr), "")
	r.conf.timeout, r.conf.attempts = 50*time.Millisecond, 1
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n := r.RDNS(ctx, netip.MustParseAddr("192.0.2.1")); n != (Name{Temp: true}) {
		t.Errorf("a caller who is gone gets %+v", n)
	}
	if _, err := r.Addrs(ctx, "mail.example.org", true); !errors.Is(err, ErrTemp) {
		t.Errorf("Addrs for a caller who is gone: %v", err)
	}
}

func TestManyAskForOne(t *testing.T) {
	s := newStub(t, zone)
	r, _ := resolver(t, server(s.addr), "")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if n := r.RDNS(context.Background(), netip.MustParseAddr("192.0.2.1")); !n.Forward {
				t.Errorf("%+v", n)
			}
		})
	}
	wg.Wait()
	if n := s.count.Load(); n != 2 {
		t.Errorf("%d questions for fifty clients of one address, want 2", n)
	}
}

func TestResolvConf(t *testing.T) {
	c := parseResolvConf([]byte("# x\nnameserver 10.0.0.1 ; c\nnameserver [::1]\nnameserver bad\nnameserver [::1\nnameserver [::1]:0\n" +
		"nameserver [10.0.0.2]:5353\nnameserver fe80::1%eth0\nsearch example.org\noptions timeout:3 attempts:9 rotate\noptions timeout:x timeout:0\n"))
	if fmt.Sprint(c.servers) != "[10.0.0.1:53 [::1]:53 10.0.0.2:5353]" {
		t.Errorf("servers %v", c.servers)
	}
	if c.timeout != 3*time.Second || c.attempts != 5 {
		t.Errorf("timeout %v, attempts %d", c.timeout, c.attempts)
	}
	if c := parseResolvConf(nil); fmt.Sprint(c.servers) != "[127.0.0.1:53]" {
		t.Errorf("without a file: %v", c.servers)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte("nameserver 1.2.3.4\noptions timeout:1"), []byte("::1 localhost"))
	f.Add([]byte("nameserver [fe80::1%x]:53"), []byte("1.2.3.4 a\tb#c\n\x00 x"))
	f.Fuzz(func(t *testing.T, conf, hosts []byte) {
		c := parseResolvConf(conf)
		if len(c.servers) == 0 || len(c.servers) > 3 || c.timeout <= 0 || c.attempts < 1 {
			t.Fatalf("%q gives %+v", conf, c)
		}
		for _, name := range parseHosts(hosts).names {
			if strings.ContainsAny(name, " \r\n\x00") {
				t.Fatalf("%q has the name %q", hosts, name)
			}
		}
	})
}
