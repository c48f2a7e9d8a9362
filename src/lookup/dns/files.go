package dns

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/mail/addr"
)

// resolvConf is what resolv.conf(5) says that matters here. Search lists do not:
// every name that mail asks for is absolute.
type resolvConf struct {
	servers  []netip.AddrPort // at most 3
	timeout  time.Duration    // of one try
	attempts int
}

func parseResolvConf(text []byte) resolvConf {
	c := resolvConf{timeout: 2 * time.Second, attempts: 2}
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(cutAny(line, "#;"))
		if len(w) < 2 {
			continue
		}
		switch w[0] {
		case "nameserver":
			if s, ok := parseServer(w[1]); ok && len(c.servers) < 3 {
				c.servers = append(c.servers, s)
			}
		case "options":
			for _, o := range w[1:] {
				c.option(o)
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	return c
}

func (c *resolvConf) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return
	}
	switch name {
	case "timeout":
		c.timeout = min(time.Duration(n)*time.Second, budget)
	case "attempts":
		c.attempts = min(n, 5)
	}
}

// parseServer reads an address, or as OpenBSD has it [address]:port.
func parseServer(s string) (netip.AddrPort, bool) {
	port := uint64(53)
	if strings.HasPrefix(s, "[") {
		host, rest, ok := strings.Cut(s[1:], "]")
		if text, hasPort := strings.CutPrefix(rest, ":"); hasPort {
			var err error
			port, err = strconv.ParseUint(text, 10, 16)
			ok = ok && err == nil && port > 0
		}
		if !ok {
			return netip.AddrPort{}, false
		}
		s = host
	}
	a, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(a, uint16(port)), err == nil
}

func cutAny(s, chars string) string {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i]
	}
	return s
}

// hosts is what hosts(5) says.
type hosts struct {
	names map[netip.Addr]string // the first name of an address
	addrs map[string][]netip.Addr
}

func parseHosts(text []byte) hosts {
	h := hosts{names: make(map[netip.Addr]string), addrs: make(map[string][]netip.Addr)}
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(cutAny(line, "#"))
		if len(w) < 2 {
			continue
		}
		a, err := netip.ParseAddr(w[0])
		if err != nil {
			continue
		}
		a = a.WithZone("").Unmap()
		for _, name := range w[1:] {
			if !validName(name) {
				continue
			}
			if _, known := h.names[a]; !known {
				h.names[a] = name
			}
			key := addr.Lower(name)
			h.addrs[key] = append(h.addrs[key], a)
		}
	}
	return h
}

// validName tells whether s may be shown as the name of a host: a PTR record may
// hold any bytes, and the name goes into headers, logs and filters.
func validName(s string) bool {
	return s != "" && s[0] != '[' && addr.CheckDomain(s) == nil
}
