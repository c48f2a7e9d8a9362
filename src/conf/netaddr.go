package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

var errNet = errors.New("not an address or network")

// ParseNet reads an address or a network in the forms of netaddr tables: IPv6 in
// brackets or bare, the length within the brackets or behind, the tag "IPv6:"
// allowed; IPv4 with octets left out, as 10/8 and 192.168/16. Bits outside the
// network are cleared; a lone address is a network of full length. An address of
// IPv6 may have a zone.
func ParseNet(s string) (network netip.Prefix, zone string, err error) {
	text, length, hasLength := strings.Cut(s, "/")
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		text, length, hasLength = strings.Cut(s[1:len(s)-1], "/")
	} else {
		text = Unbracket(text)
	}
	a, bits, err := parseAddr(withoutTag(text))
	if err != nil {
		return netip.Prefix{}, "", errNet
	}
	if hasLength {
		n, err := strconv.ParseUint(length, 10, 8)
		if err != nil || int(n) > a.BitLen() {
			return netip.Prefix{}, "", fmt.Errorf("not a network: %q is not a number from 0 to %d", length, a.BitLen())
		}
		bits = int(n)
	}
	zone = a.Zone()
	a = a.WithZone("")
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	network, err = a.Prefix(bits)
	return network, zone, err
}

// parseAddr returns an address and the length that it has by itself.
func parseAddr(s string) (netip.Addr, int, error) {
	a, err := netip.ParseAddr(s)
	if err == nil {
		return a, a.BitLen(), nil
	}
	var b [4]byte
	octets := strings.Split(s, ".")
	if len(octets) > 3 {
		return netip.Addr{}, 0, err
	}
	for i, o := range octets {
		v, bad := strconv.ParseUint(o, 10, 8)
		if bad != nil || o[0] == '+' {
			return netip.Addr{}, 0, err
		}
		b[i] = byte(v)
	}
	return netip.AddrFrom4(b), max(classBits(b[0]), 8*len(octets)), nil
}

// classBits is the length that inet_net_pton(3) gives a short address: that of
// its class.
func classBits(first byte) int {
	switch {
	case first >= 240:
		return 32
	case first >= 224:
		return 8
	case first >= 192:
		return 24
	case first >= 128:
		return 16
	}
	return 8
}

// Unbracket takes the brackets off an address in brackets, and what RFC 5321
// section 4.1.3 wants before one of IPv6.
func Unbracket(s string) string {
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		return withoutTag(s[1 : len(s)-1])
	}
	return s
}

// withoutTag takes "IPv6:" off an address.
func withoutTag(s string) string {
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		return s[5:]
	}
	return s
}
