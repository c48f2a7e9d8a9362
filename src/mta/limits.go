package mta

import (
	"slices"

	"opensmtpd/src/conf/project"
)

// The limits that hold where smtpd.conf sets none. OpenSMTPD's own keep it from
// sending more than some 15 messages a second to one host, mostly by pauses
// between connections; these do not hold back a server that is willing. How
// many connections a route gets grows with what it takes, see route.window.
const (
	perRoute     = 20
	perHost      = 20
	perConnector = 100
)

// limitsOf returns the limits of a domain.
func limitsOf(c *Config, domain string) *project.MTALimits {
	l := *c.limits(domain)
	set := func(key string) bool { return slices.Contains(l.Written, key) }
	if !set("max-conn-per-route") {
		l.MaxConnPerRoute = perRoute
	}
	if !set("max-conn-per-host") {
		l.MaxConnPerHost = perHost
	}
	if !set("max-conn-per-connector") {
		l.MaxConnPerConnector = perConnector
	}
	if !set("conn-delay-route") {
		l.ConnDelayRoute = 0
	}
	if !set("conn-delay-relay") {
		l.ConnDelayRelay = 0
	}
	if !set("reconn-delay-route") {
		l.ReconnDelayRoute = 0
	}
	for _, n := range []struct {
		value *int
		usual int
	}{
		{&l.MaxConnPerRoute, perRoute}, {&l.MaxConnPerHost, perHost}, {&l.MaxConnPerConnector, perConnector},
		{&l.MaxConnPerSource, 100}, {&l.MaxConnPerRelay, 100}, {&l.MaxConnPerDomain, 100}, {&l.SessionMailMax, 100},
	} {
		if *n.value <= 0 {
			*n.value = n.usual // 0 would mean that mail stays for ever
		}
	}
	return &l
}
