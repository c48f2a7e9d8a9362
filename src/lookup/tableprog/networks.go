package tableprog

import (
	"net/netip"
	"strings"
)

// Networks lists the keys under which a table of single rows may hold an address
// that it is asked for as netaddr or addrname: the key itself, and the networks
// around it, the smallest first, IPv6 as "[2001:db8::/32]". A key that is no
// address is returned alone.
func Networks(key string) []string {
	list := []string{key}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(key, "["), "]"))
	if err != nil {
		return list
	}
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.WithZone("").Prefix(bits)
		if err != nil {
			return list
		}
		s := p.String()
		if a.Is6() {
			s = "[" + s + "]"
		}
		list = append(list, s)
	}
	return list
}
