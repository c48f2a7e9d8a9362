package dispatcher

import (
	"net/netip"
	"testing"

	"opensmtpd/src/smtp/server"
)

func TestCrowd(t *testing.T) {
	at := func(addr string) guest {
		net, _ := server.Customer(netip.MustParseAddr(addr))
		return guest{net: net}
	}
	var c crowd
	c.limit(2)
	for _, tc := range []struct {
		addr  string
		times int
		stays bool // the last of them
	}{
		{"192.0.2.1", 2, true},
		{"192.0.2.1", 1, false},
		{"192.0.2.2", 2, true},
		{"::ffff:192.0.2.2", 1, false},
		{"2001:db8::1", 1, true},
		{"2001:db8::2", 1, true},
		{"2001:db8::ffff:1", 1, false}, // the same network
		{"2001:db8:0:1::1", 2, true},
		{"fe80::1%eth0", 2, true},
		{"127.0.0.1", 9, true},
		{"::1", 9, true},
	} {
		stays := false
		for range tc.times {
			stays = c.enter(at(tc.addr)) == nil
		}
		if stays != tc.stays {
			t.Errorf("%s: %v", tc.addr, stays)
		}
	}
	one := at("192.0.2.1")
	c.leave(one) // the one that was refused
	c.leave(one)
	if c.enter(one) != nil {
		t.Error("there is no place again")
	}
	c.limit(0)
	for range 9 {
		if c.enter(one) != nil {
			t.Error("refused without a limit")
		}
	}
	for range 11 {
		c.leave(one)
	}
	if _, left := c.n[one]; left {
		t.Error("an address without sessions is remembered")
	}
}

// TestLimits holds what a configuration's limits amount to.
func TestLimits(t *testing.T) {
	for _, tc := range []struct{ places, most, each, all, one int }{
		{1000, 0, 1000, 1000, 500},
		{100000, 0, 1000, 100000, 1000},
		{1000, 300, 1000, 300, 150},
		{1000, 5000, 20, 1000, 20},
		{1000, 0, 0, 1000, 0},
		{1, 1, 5, 1, 1},
	} {
		r := &Role{places: tc.places, back: &backend{}}
		r.limit(&generation{most: tc.most, each: tc.each})
		if r.gate.max != tc.all || r.back.crowd.max != tc.one {
			t.Errorf("%+v: %d, %d", tc, r.gate.max, r.back.crowd.max)
		}
	}
}
