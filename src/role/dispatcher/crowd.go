package dispatcher

import (
	"net/netip"
	"sync"

	"opensmtpd/src/mailerr"
)

// A crowd counts the sessions of each address, so that one client cannot take the
// places of all. Loopback does not count: there are programs of this machine, and
// proxies.
type crowd struct {
	mu  sync.Mutex
	n   map[netip.Prefix]int
	max int // 0: any number
}

// tooMany is what one session more than max is told.
var tooMany = &mailerr.Error{Class: mailerr.Drop, Code: 421, Enhanced: mailerr.Enhanced{4, 7, 0}, Text: "Too many connections from your address"}

// limit sets how many are allowed; those that are there stay.
func (c *crowd) limit(max int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = max
}

// enter counts a session, and tells why it must go. leave is due in any case.
func (c *crowd) enter(a netip.Addr) *mailerr.Error {
	p, ok := block(a)
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[netip.Prefix]int)
	}
	c.n[p]++
	if c.max > 0 && c.n[p] > c.max {
		return tooMany
	}
	return nil
}

func (c *crowd) leave(a netip.Addr) {
	p, ok := block(a)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[p]--; c.n[p] <= 0 {
		delete(c.n, p)
	}
}

// block is whom an address stands for: of IPv6, whoever has the network of 64
// bits can have any address in it.
func block(a netip.Addr) (netip.Prefix, bool) {
	a = a.Unmap()
	if !a.IsValid() || a.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	return p, err == nil
}
