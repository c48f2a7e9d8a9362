package tableprog

import (
	"net/netip"
	"strings"
)

// Keys lists under what a table of single rows may hold what it is asked for: the
// key itself, and where that is an address the networks around it, the smallest
// first, IPv6 as "[2001:db8::/32]".
func Keys(s Service, key string) []string {
	list := []string{key}
	if s != NetAddr && s != AddrName {
		return list
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(key, "["), "]"))
	if err != nil {
		return list
	}
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.WithZone("").Prefix(bits)
		if err != nil {
			return list
		}
		network := p.String()
		if a.Is6() {
			network = "[" + network + "]"
		}
		list = append(list, network)
	}
	return list
}
