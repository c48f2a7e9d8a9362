package dispatcher

import (
	"net/netip"
	"sync"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/smtp/server"
)

// A crowd counts the sessions of each server.Customer and of each user of the
// socket, so that one client cannot take the places of all. Loopback does not
// count: there are programs of this machine, and proxies. Nor does root.
type crowd struct {
	mu  sync.Mutex
	n   map[guest]int
	max int // 0: any number
}

// A guest is who sessions are counted for.
type guest struct {
	net netip.Prefix // zero for who comes by the socket
	uid uint32
}

// What one session more than max is told.
var (
	tooMany     = &mailerr.Error{Class: mailerr.Drop, Code: 421, Enhanced: mailerr.Enhanced{4, 7, 0}, Text: "Too many connections from your address"}
	tooManyOfID = &mailerr.Error{Class: mailerr.Drop, Code: 421, Enhanced: mailerr.Enhanced{4, 7, 0}, Text: "Too many connections of your user"}
)

// limit sets how many are allowed; those that are there stay.
func (c *crowd) limit(max int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = max
}

// enter counts a session, and tells why it must go. leave is due in any case.
func (c *crowd) enter(g guest) *mailerr.Error {
	if g == (guest{}) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[guest]int)
	}
	c.n[g]++
	switch {
	case c.max == 0 || c.n[g] <= c.max:
		return nil
	case g.net.IsValid():
		return tooMany
	}
	return tooManyOfID
}

func (c *crowd) leave(g guest) {
	if g == (guest{}) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[g]--; c.n[g] <= 0 {
		delete(c.n, g)
	}
}

// guestOf is whom a session counts for; the zero guest does not count.
func guestOf(s *server.Session) guest {
	if s.Listener.Socket {
		return guest{uid: s.Client.UID}
	}
	net, _ := server.Customer(s.Client.Addr.Addr())
	return guest{net: net}
}
