package load

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// egress reads the kernel's routing tables.
func egress() ([]string, error) {
	v4, err4 := os.ReadFile("/proc/net/route")
	v6, err6 := os.ReadFile("/proc/net/ipv6_route")
	if err4 != nil && err6 != nil {
		return nil, err4
	}
	return egressOf(string(v4), string(v6)), nil
}

// Flags of routes, from linux/route.h.
const (
	routeUp     = 0x1
	routeReject = 0x200
)

// egressOf returns the interfaces of default routes in the texts of
// /proc/net/route and /proc/net/ipv6_route.
func egressOf(v4, v6 string) []string {
	var names []string
	add := func(name, flags string) {
		f, err := strconv.ParseUint(flags, 16, 32)
		if err != nil || f&routeUp == 0 || f&routeReject != 0 || slices.Contains(names, name) {
			return
		}
		names = append(names, name)
	}
	for line := range strings.Lines(v4) {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …
		f := strings.Fields(line)
		if len(f) >= 8 && f[1] == "00000000" && f[7] == "00000000" {
			add(f[0], f[3])
		}
	}
	zero := strings.Repeat("0", 32)
	for line := range strings.Lines(v6) {
		// destination length source length gateway metric refs use flags Iface
		f := strings.Fields(line)
		if len(f) >= 10 && f[0] == zero && f[1] == "00" && f[9] != "lo" {
			add(f[9], f[8])
		}
	}
	return names
}
