package mta

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

// The best server that can be reached is used; equals are all used in time.
func TestPreference(t *testing.T) {
	s := &script{}
	w := newWorld(t, false, nil)
	w.domain("far.example", "30 c.far.example 192.0.2.3", "10 a.far.example 192.0.2.1", "20 b.far.example 192.0.2.2")
	w.server("192.0.2.2:25", s.serve)
	w.server("192.0.2.3:25", (&script{say: map[string]string{"BANNER": ""}}).serve)
	if got := outcomes(w.send(w.task("b@far.example"))); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("192.0.2.2:25")}
	if !slices.Equal(w.dialed, want) {
		t.Errorf("dialed %v", w.dialed)
	}
	if l := w.log.With("Disabling route [] <-> 192.0.2.1 (host.example) for 15s"); len(l) != 1 {
		t.Errorf("logged %q", w.log.With("route"))
	}
}

func TestEqualsAreShuffled(t *testing.T) {
	w := newWorld(t, false, nil)
	w.domain("far.example", "10 a.far.example 192.0.2.1", "10 b.far.example 192.0.2.2", "10 c.far.example 192.0.2.3")
	r := &relay{m: w.MTA, conf: w.conf, act: w.conf.Actions[defaultRelay], key: relayKey{domain: "far.example"}}
	first := make(map[string]bool)
	for range 1000 {
		list, _, err := r.askServers(t.Context())
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		first[list[0].name] = true
	}
	if len(first) != 3 {
		t.Errorf("always first: %v", first)
	}
}

// A dead host comes back: mail fails for now, the route rests longer each time,
// and then is used again.
func TestComesBack(t *testing.T) {
	w := newWorld(t, true, nil)
	w.domain("far.example", "10 a.far.example 192.0.2.1")
	want := "temporary 4.4.1 Network error on destination MXs (Connection failed: connection refused)\n"
	for _, rest := range []time.Duration{15 * time.Second, 60 * time.Second} {
		res := w.send(w.task("b@far.example"))
		if got := outcomes(res); got != want || !res.Unreachable {
			t.Errorf("%s", got)
		}
		// While the route rests nobody tries it.
		n := len(w.dialed)
		if res := w.send(w.task("b@far.example")); !res.Unreachable || len(w.dialed) != n {
			t.Errorf("while it rests: %+v, dialed %v", res, w.dialed)
		}
		w.fake.Advance(rest - time.Second)
		if res := w.send(w.task("b@far.example")); !res.Unreachable || len(w.dialed) != n {
			t.Errorf("after %v: %+v, dialed %v", rest-time.Second, res, w.dialed)
		}
		w.advanceTo(time.Second, "Enabling route")
	}
	s := &script{}
	w.server("192.0.2.1:25", s.serve)
	if got := outcomes(w.send(w.task("b@far.example"))); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	if p := w.penalty(); p != 0 {
		t.Errorf("penalty %d after success", p)
	}
}

// advanceTo moves the clock on, and waits until one more line is logged.
func (w *world) advanceTo(d time.Duration, line string) {
	n := len(w.log.With(line))
	for len(w.log.With(line)) == n {
		w.fake.Advance(d)
		d = 0
		w.poke()
	}
}

// poke waits until Run has rung.
func (w *world) poke() {
	done := make(chan struct{})
	w.MTA.mu.Lock()
	w.at(w.clock.Mono(), func() { close(done) })
	w.MTA.mu.Unlock()
	<-done
}

func (w *world) penalty() int {
	w.MTA.mu.Lock()
	defer w.MTA.mu.Unlock()
	for _, rt := range w.routes {
		return rt.penalty
	}
	return 0
}

func TestResolution(t *testing.T) {
	w := newWorld(t, false, nil)
	w.mx["null.example"] = &msg.MXReply{Err: mailerr.Permanent(556, 1, 10, "Domain does not accept mail", nil)}
	w.mx["temp.example"] = &msg.MXReply{Err: mailerr.Temporary(451, 4, 3, "Temporary failure in MX lookup", nil)}
	w.mx["empty.example"] = &msg.MXReply{Hosts: []msg.MXHost{{Name: "mx.empty.example"}}}
	w.domain("self.example", "10 mx.self.example 192.0.2.9 local", "20 b.self.example 192.0.2.1")
	w.domain("six.example", "10 mx.six.example 2001:db8::1")
	for domain, want := range map[string]string{
		"gone.example":  "permanent 5.1.2 Domain does not exist\n",
		"null.example":  "permanent 5.1.10 Domain does not accept mail\n",
		"temp.example":  "temporary 4.4.3 Temporary failure in MX lookup\n",
		"empty.example": "temporary 4.4.4 No MX found for destination\n",
		"self.example":  "permanent 5.4.6 Mail for self.example loops back to this host\n",
		"six.example":   "temporary 4.4.1 Network error on destination MXs (Connection failed: connection refused)\n",
	} {
		w.MTA.mu.Lock()
		w.conf.Own = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:25")}
		w.MTA.mu.Unlock()
		res := w.send(w.task("b@" + domain))
		if got := outcomes(res); got != want || res.Unreachable != strings.HasPrefix(want, "temp") {
			t.Errorf("%s: %s, unreachable %v", domain, got, res.Unreachable)
		}
	}
	w.MTA.mu.Lock()
	defer w.MTA.mu.Unlock()
	if len(w.relays) != 0 || len(w.domains) != 0 || len(w.MTA.sessions) != 0 {
		t.Errorf("left: %d relays, %d domains, %d sessions", len(w.relays), len(w.domains), len(w.MTA.sessions))
	}
	if n := w.count.connector.Value(); n != 0 {
		t.Errorf("%d connectors counted", n)
	}
}

// Mail goes to servers that are better than ourselves, never to equal or worse
// ones.
func TestOwnMX(t *testing.T) {
	for _, tc := range []struct {
		own   string
		local string
		want  int // servers left
	}{
		{"192.0.2.2:25", "", 1},
		{"0.0.0.0:25", " local", 1},
		{"0.0.0.0:25", "", 4},       // not an address of this machine
		{"0.0.0.0:26", " local", 4}, // another program listens there
	} {
		w := newWorld(t, false, nil)
		w.domain("far.example", "10 a 192.0.2.1", "20 b 192.0.2.2"+tc.local, "20 c 192.0.2.3", "30 d 192.0.2.4")
		w.conf.Own = []netip.AddrPort{netip.MustParseAddrPort(tc.own)}
		r := &relay{m: w.MTA, conf: w.conf, act: w.conf.Actions[defaultRelay], key: relayKey{domain: "far.example"}}
		if list, _, err := r.askServers(t.Context()); err != nil || len(list) != tc.want {
			t.Errorf("%+v: %v, %v", tc, list, err)
		}
	}
}

func TestBackupMX(t *testing.T) {
	for name, want := range map[string]int{"": 1, "c": 2, "nobody": 3} {
		w := newWorld(t, false, func(p *project.DispatcherConf) {
			p.ServerName = "b"
			p.Relays[0].Backup, p.Relays[0].BackupMX = true, name
		})
		w.domain("far.example", "10 a 192.0.2.1", "20 b 192.0.2.2", "30 c 192.0.2.3")
		r := &relay{m: w.MTA, conf: w.conf, act: w.conf.Actions[defaultRelay], key: relayKey{domain: "far.example"}}
		if list, _, err := r.askServers(t.Context()); err != nil || len(list) != want {
			t.Errorf("%q: %v, %v", name, list, err)
		}
	}
}

func TestSmarthost(t *testing.T) {
	s := &script{}
	w := newWorld(t, false, func(p *project.DispatcherConf) { p.Relays[0].Host = "smtp://192.0.2.7:2526" })
	w.server("192.0.2.7:2526", s.serve)
	for i, to := range []string{"b@far.example", "c@else.example"} {
		if i > 0 {
			w.rested(t)
		}
		if got := outcomes(w.send(w.task(to))); got != "ok 250 2.0.0 taken\n" {
			t.Error(got)
		}
	}
	if s.connections() != 1 || w.asked[0] != "mx 192.0.2.7 true" {
		t.Errorf("%d connections, asked %q", s.connections(), w.asked)
	}
	if n := w.count.connector.Value(); n != 1 {
		t.Errorf("%d connectors counted", n)
	}
}

func TestSmarthostTable(t *testing.T) {
	for _, byDomain := range []bool{false, true} {
		a, b := &script{}, &script{}
		w := newWorld(t, false, func(p *project.DispatcherConf) { p.Relays[0].Hosts, p.Relays[0].ByDomain = "hosts", byDomain })
		w.server("192.0.2.7:25", a.serve)
		w.server("192.0.2.8:25", b.serve)
		w.tables["hosts"] = []string{"smtp://192.0.2.7", "smtp://192.0.2.8"}
		w.tables["hosts/one.example"] = []string{"192.0.2.7"}
		w.tables["hosts/two.example"] = []string{"192.0.2.8"}
		w.tables["hosts/bad.example"] = []string{"gopher://x"}
		w.send(w.task("b@one.example"))
		w.send(w.task("b@two.example"))
		if len(a.got()) != 1 || len(b.got()) != 1 {
			t.Errorf("byDomain %v: %d and %d messages", byDomain, len(a.got()), len(b.got()))
		}
		if !byDomain {
			continue
		}
		if got := outcomes(w.send(w.task("b@bad.example"))); got != "temporary 4.3.5 Cannot parse smarthost\n" {
			t.Error(got)
		}
		if got := outcomes(w.send(w.task("b@three.example"))); got != "temporary 4.4.3 Cannot retrieve smarthost\n" {
			t.Error(got)
		}
	}
}

func TestSource(t *testing.T) {
	s := &script{}
	w := newWorld(t, false, func(p *project.DispatcherConf) {
		p.Relays[0].Src, p.Relays[0].HeloSrc = "src", "names"
	})
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	w.server("192.0.2.1:25", s.serve)
	w.tables["src"] = []string{"192.0.2.254", "[2001:db8::1]", "192.0.2.200"}
	w.tables["names/192.0.2.200"] = []string{"out.here.example"}
	w.tables["names/192.0.2.254"] = []string{"broken.here.example"}
	if got := outcomes(w.send(w.task("b@far.example"))); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	if got := s.said("EHLO"); len(got) != 1 || got[0] != "EHLO out.here.example" {
		t.Errorf("said %q", got)
	}
}

func TestSourceFamily(t *testing.T) {
	w := newWorld(t, false, func(p *project.DispatcherConf) { p.Relays[0].Src = "src" })
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	w.tables["src"] = []string{"2001:db8::1"}
	if got := outcomes(w.send(w.task("b@far.example"))); got != "temporary 4.4.4 Address family mismatch on destination MXs\n" {
		t.Error(got)
	}
	w.tables["src"] = nil
	if got := outcomes(w.send(w.task("b@far.example"))); got != "temporary 4.3.5 Could not retrieve source address\n" {
		t.Error(got)
	}
}

func TestFamilyLimit(t *testing.T) {
	w := newWorld(t, false, func(p *project.DispatcherConf) { p.MTALimits[0].Family = conf.Inet4 })
	w.domain("far.example", "10 mx.far.example 2001:db8::1")
	if got := outcomes(w.send(w.task("b@far.example"))); got != "temporary 4.4.4 Address family mismatch on destination MXs\n" {
		t.Error(got)
	}
}

// crowd is a server that counts how many it talks to at once. Nobody gets an
// answer to his second message before enough are there.
type crowd struct {
	script
	want int

	mu       sync.Mutex
	now, max int
	once     sync.Once
	full     chan struct{}
}

func newCrowd(want int) *crowd { return &crowd{want: want, full: make(chan struct{})} }

func (c *crowd) serve(nc net.Conn) {
	c.mu.Lock()
	c.now++
	c.max = max(c.max, c.now)
	if c.now == c.want {
		c.once.Do(func() { close(c.full) })
	}
	c.mu.Unlock()
	c.script.serve(&patient{Conn: nc, c: c})
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
}

// patient holds back the reply to a message but the first, which lets the client
// open more connections.
type patient struct {
	net.Conn
	c    *crowd
	sent int
}

func (p *patient) Write(b []byte) (int, error) {
	if strings.HasPrefix(string(b), "250 2.0.0 taken") {
		if p.sent++; p.sent > 1 {
			<-p.c.full
		}
	}
	return p.Conn.Write(b)
}

// As many connections are opened as the limits allow, and no more.
func TestConnectionLimits(t *testing.T) {
	for key, set := range map[string]func(*project.MTALimits){
		"max-conn-per-host":      func(l *project.MTALimits) { l.MaxConnPerHost = 3 },
		"max-conn-per-route":     func(l *project.MTALimits) { l.MaxConnPerRoute = 3 },
		"max-conn-per-source":    func(l *project.MTALimits) { l.MaxConnPerSource = 3 },
		"max-conn-per-connector": func(l *project.MTALimits) { l.MaxConnPerConnector = 3 },
		"max-conn-per-relay":     func(l *project.MTALimits) { l.MaxConnPerRelay = 3 },
		"max-conn-per-domain":    func(l *project.MTALimits) { l.MaxConnPerDomain = 3 },
	} {
		t.Run(key, func(t *testing.T) {
			w := newWorld(t, false, func(p *project.DispatcherConf) {
				set(&p.MTALimits[0])
				p.MTALimits[0].Written = []string{key}
			})
			w.domain("far.example", "10 mx.far.example 192.0.2.1")
			c := newCrowd(3)
			w.server("192.0.2.1:25", c.serve)
			const n = 60
			for range n {
				w.Submit(w.task("b@far.example"))
			}
			for range n {
				if got := outcomes(<-w.results); got != "ok 250 2.0.0 taken\n" {
					t.Error(got)
				}
			}
			if c.max != 3 {
				t.Errorf("%d connections at once", c.max)
			}
		})
	}
}

// A pause that is asked for is kept; those that only OpenSMTPD has are not.
func TestDelays(t *testing.T) {
	l := limitsOf(&Config{Limits: dispatcherConf(nil).MTALimits}, "x")
	if l.ConnDelayRoute != 0 || l.ConnDelayRelay != 0 || l.ReconnDelayRoute != 0 || l.MaxConnPerRoute != perRoute {
		t.Errorf("limits by default: %+v", l)
	}
	for _, key := range []string{
		"conn-delay-host", "conn-delay-route", "conn-delay-source", "conn-delay-connector", "conn-delay-relay", "conn-delay-domain",
		"reconn-delay-route",
	} {
		t.Run(key, func(t *testing.T) {
			w := newWorld(t, true, func(p *project.DispatcherConf) {
				l := &p.MTALimits[0]
				l.SessionMailMax, l.Written = 1, []string{key}
				*map[string]*time.Duration{
					"conn-delay-host": &l.ConnDelayHost, "conn-delay-route": &l.ConnDelayRoute, "conn-delay-source": &l.ConnDelaySource,
					"conn-delay-connector": &l.ConnDelayConnector, "conn-delay-relay": &l.ConnDelayRelay,
					"conn-delay-domain": &l.ConnDelayDomain, "reconn-delay-route": &l.ReconnDelayRoute,
				}[key] = 7 * time.Second
			})
			w.domain("far.example", "10 mx.far.example 192.0.2.1")
			w.server("192.0.2.1:25", (&script{}).serve)
			w.Submit(w.task("b@far.example"))
			if !strings.HasPrefix(key, "reconn") {
				w.Submit(w.task("b@far.example"))
			}
			if got := outcomes(<-w.results); got != "ok 250 2.0.0 taken\n" {
				t.Error(got)
			}
			began := w.fake.Mono()
			if strings.HasPrefix(key, "reconn") {
				w.settled(t)
				w.Submit(w.task("b@far.example"))
			}
			for len(w.results) == 0 {
				w.fake.Advance(time.Second)
				w.poke()
				w.settled(t)
			}
			if d := w.fake.Mono() - began; d < 7*time.Second {
				t.Errorf("the next connection after %v", d)
			}
		})
	}
}

// settled waits until no session is at work.
func (w *world) settled(t *testing.T) {
	w.Await(t, func() bool {
		w.MTA.mu.Lock()
		defer w.MTA.mu.Unlock()
		return len(w.MTA.sessions) == 0
	})
}

// rested waits until every session that there is has nothing to do.
func (w *world) rested(t *testing.T) {
	w.Await(t, func() bool {
		w.MTA.mu.Lock()
		defer w.MTA.mu.Unlock()
		idle := 0
		for _, r := range w.relays {
			idle += len(r.idle)
		}
		return idle == len(w.MTA.sessions)
	})
}

// Await polls: what is waited for happens in other goroutines.
func (w *world) Await(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		case <-time.After(time.Millisecond):
		}
	}
}

// What is left at the end is given back as if it had not been tried; a message
// under way is finished.
func TestStop(t *testing.T) {
	w := newWorld(t, false, func(p *project.DispatcherConf) {
		p.MTALimits[0].MaxConnPerRelay, p.MTALimits[0].Written = 1, nil
	})
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	begun, finish := make(chan struct{}), make(chan struct{})
	w.server("192.0.2.1:25", func(c net.Conn) {
		s := &script{}
		s.serve(&gate{Conn: c, begun: begun, finish: finish})
	})
	for range 3 {
		w.Submit(w.task("b@far.example"))
	}
	<-begun
	done := make(chan struct{})
	go func() {
		w.Stop(context.Background())
		close(done)
	}()
	for range 2 {
		if got := outcomes(<-w.results); got != "returned\n" {
			t.Error(got)
		}
	}
	close(finish)
	if got := outcomes(<-w.results); got != "ok 250 2.0.0 taken\n" {
		t.Error(got)
	}
	<-done
	w.Submit(w.task("b@far.example"))
	if got := outcomes(<-w.results); got != "returned\n" {
		t.Error(got)
	}
}

// gate holds a reply back until a test lets it go.
type gate struct {
	net.Conn
	begun, finish chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	if strings.HasPrefix(string(b), "250 2.0.0 taken") {
		close(g.begun)
		<-g.finish
	}
	return g.Conn.Write(b)
}

// A server that says nothing does not hold a session for ever.
func TestTimeout(t *testing.T) {
	w := newWorld(t, true, nil)
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	heard := make(chan struct{})
	w.server("192.0.2.1:25", func(c net.Conn) {
		play(c, "220 far.example\r\n250 DSN\r\n")
		_, _ = c.Read(make([]byte, 100)) // MAIL
		close(heard)
		_, _ = c.Read(make([]byte, 100)) // until it is cut
	})
	task := w.task("b@far.example")
	w.Submit(task)
	<-heard
	for len(w.results) == 0 {
		w.fake.Advance(watchEvery)
		w.poke()
		if w.fake.Mono() > time.Hour {
			w.Await(t, func() bool { return len(w.results) > 0 })
		}
	}
	if got := outcomes(w.result(task.Task)); got != "temporary 4.4.2 Connection timeout\n" {
		t.Error(got)
	}
}

// A server that says a byte now and then, and never all of a reply, does not
// hold a session for longer: what counts is the reply.
func TestSlowDrip(t *testing.T) {
	w := newWorld(t, true, nil)
	w.domain("far.example", "10 mx.far.example 192.0.2.1")
	heard, more := make(chan struct{}), make(chan struct{})
	defer close(more)
	w.server("192.0.2.1:25", func(c net.Conn) {
		play(c, "220 far.example\r\n250 DSN\r\n")
		_, _ = c.Read(make([]byte, 100)) // MAIL
		close(heard)
		for range more {
			if _, err := c.Write([]byte("2")); err != nil {
				return
			}
		}
	})
	task := w.task("b@far.example")
	w.Submit(task)
	<-heard
	for len(w.results) == 0 {
		select {
		case more <- struct{}{}:
		default: // it has not sent the last one yet, or sees that we are gone
		}
		w.fake.Advance(watchEvery)
		w.poke()
		if w.fake.Mono() > time.Hour {
			w.Await(t, func() bool { return len(w.results) > 0 })
		}
	}
	if got := outcomes(w.result(task.Task)); got != "temporary 4.4.2 Connection timeout\n" {
		t.Error(got)
	}
}

func TestProtocols(t *testing.T) {
	for list, want := range map[string]string{
		"": "303 0", "tlsv1.2": "303 303", "tlsv1.3": "304 304", "all,!tlsv1.0": "302 304", "!tlsv1.0": "302 304",
		"secure": "303 304", "tlsv1.1,tlsv1.2": "302 303",
	} {
		c, err := NewConfig(1, dispatcherConf(func(p *project.DispatcherConf) { p.Relays[0].Protocols = list }), nil, nil)
		if err != nil {
			t.Errorf("%q: %v", list, err)
			continue
		}
		x := c.Actions[defaultRelay].tls
		if got := fmt.Sprintf("%x %x", x.MinVersion, x.MaxVersion); got != want {
			t.Errorf("%q: %s, want %s", list, got, want)
		}
	}
	for _, list := range []string{"sslv3", "tlsv1.2,!tlsv1.2"} {
		if _, err := NewConfig(1, dispatcherConf(func(p *project.DispatcherConf) { p.Relays[0].Protocols = list }), nil, nil); err == nil {
			t.Errorf("%q is accepted", list)
		}
	}
}
