package greylist

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// nat64 is where IPv4 is as seen from behind a translator (RFC 6052). Never
// written.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// plain is an address as it counts: of IPv4 when it has one inside, and without a
// zone.
func plain(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// ParseNet reads a network, or an address, which is a network of one, in any form
// in which a log or a header has it.
func ParseNet(s string) (netip.Prefix, error) {
	host, size, network := strings.Cut(s, "/")
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
		if len(host) > 5 && strings.EqualFold(host[:5], "ipv6:") {
			host = host[5:]
		}
	}
	a, err := netip.ParseAddr(host)
	bits := a.BitLen()
	if err == nil && network {
		var n uint64
		n, err = strconv.ParseUint(size, 10, 8)
		bits = int(n)
	}
	p := netip.PrefixFrom(plain(a), bits-a.BitLen()+plain(a).BitLen())
	if err != nil || !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network like 192.0.2.0/24", s)
	}
	return p.Masked(), nil
}

// Network is the part of an address that counts: servers of one site share it.
func Network(a netip.Addr) netip.Prefix {
	a = plain(a)
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address
	}
	return p
}

// site names the part of the net that one may have for himself: in IPv6 that is
// far more than a network.
type site uint64

func siteOf(net netip.Prefix) site {
	b := net.Addr().As16()
	if net.Addr().Is4() {
		return site(binary.BigEndian.Uint32(b[12:])>>8) | 1<<63
	}
	return site(binary.BigEndian.Uint64(b[:]) >> 16)
}

// Recipient is a recipient as triplets have it: in lower case.
func Recipient(address string) string { return strings.ToLower(address) }

// Sender is a sender as triplets have it: in lower case, and without what differs
// from one message of the same sender to the next: the signature of BATV, hash and
// day of SRS, what follows a plus sign, and numbers, of which each becomes a single
// zero. So the senders of a mailing list, which hold the number of a message or
// of a member, are one.
func Sender(address string) string {
	s := strings.ToLower(address)
	local, domain := s, ""
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		local, domain = s[:i], s[i:]
	}
	local = unsigned(local)
	if i := strings.IndexByte(local, '+'); i > 0 {
		local = local[:i]
	}
	return numberless(local) + domain
}

// unsigned takes off what a server has signed a local part with.
func unsigned(local string) string {
	if rest, ok := strings.CutPrefix(local, "prvs="); ok {
		// Some have the tag at the end.
		if tag, rest, ok := strings.Cut(rest, "="); ok && isTag(tag) {
			return rest
		}
		if i := strings.LastIndexByte(rest, '='); i >= 0 && isTag(rest[i+1:]) {
			return rest[:i]
		}
		return local
	}
	if len(local) < 5 || local[:3] != "srs" || !strings.ContainsRune("=+-", rune(local[4])) {
		return local
	}
	f := strings.Split(local[5:], "=")
	switch {
	case local[3] == '0' && len(f) >= 4: // hash=day=domain=local
		return "srs=" + strings.Join(f[2:], "=")
	case local[3] == '1' && len(f) >= 7: // hash=first==hash=day=domain=local
		return "srs=" + f[1] + "=" + strings.Join(f[5:], "=")
	}
	return local
}

// isTag tells whether s is a signature of BATV: the number of a key, three digits
// of a day, and six of a hash.
func isTag(s string) bool {
	if len(s) != 10 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (i < 4 || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func numberless(s string) string {
	b := make([]byte, 0, len(s))
	digit := false
	for i := range len(s) {
		was := digit
		digit = s[i] >= '0' && s[i] <= '9'
		switch {
		case !digit:
			b = append(b, s[i])
		case !was:
			b = append(b, '0')
		}
	}
	return string(b)
}
