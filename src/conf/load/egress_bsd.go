//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package load

import (
	"net"
	"slices"
	"syscall"

	"golang.org/x/net/route"
)

// egress asks the kernel for its routing table.
func egress() ([]string, error) {
	rib, err := route.FetchRIB(syscall.AF_UNSPEC, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, err
	}
	msgs, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range msgs {
		r, ok := m.(*route.RouteMessage)
		if !ok || r.Flags&syscall.RTF_UP == 0 || r.Flags&syscall.RTF_REJECT != 0 || !isDefault(r) {
			continue
		}
		i, err := net.InterfaceByIndex(r.Index)
		if err == nil && !slices.Contains(names, i.Name) {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// isDefault tells whether both destination and mask are all zeros.
func isDefault(r *route.RouteMessage) bool {
	zero := func(i int) bool {
		if i >= len(r.Addrs) {
			return false
		}
		switch a := r.Addrs[i].(type) {
		case *route.Inet4Addr:
			return a.IP == [4]byte{}
		case *route.Inet6Addr:
			return a.IP == [16]byte{}
		case nil:
			return i == syscall.RTAX_NETMASK
		}
		return false
	}
	return zero(syscall.RTAX_DST) && zero(syscall.RTAX_NETMASK)
}
