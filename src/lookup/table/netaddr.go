package table

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

var errNetAddr = errors.New("not an address or a network")

// netIndex finds the networks of a set that hold an address: one look per
// length of prefix that occurs. IPv4 is kept apart because its networks fit into
// a word.
type netIndex struct {
	v4    map[uint64]uint32 // address << 8 | bits → entry
	v6    map[netip.Prefix]uint32
	bits4 []int // that occur, longest first
	bits6 []int
	zoned []zoned // longest first
	bad   []Problem
}

// zoned is an entry with a zone, which holds addresses of that zone alone.
type zoned struct {
	net   netip.Prefix
	zone  string
	entry int
}

func (s *set) netIndex() *netIndex {
	s.netsOnce.Do(func() { s.nets = s.newNetIndex() })
	return s.nets
}

func (s *set) newNetIndex() *netIndex {
	x := &netIndex{v4: make(map[uint64]uint32), v6: make(map[netip.Prefix]uint32)}
	var seen4, seen6 [129]bool
	for i := range s.ents {
		key := s.key(i)
		if key == "local" {
			continue
		}
		p, zone, err := parseZoned(key)
		switch {
		case err != nil:
			x.bad = append(x.bad, Problem{int(s.ents[i].line), key, err})
		case zone != "":
			x.zoned = append(x.zoned, zoned{p, zone, i})
		case p.Addr().Is4():
			x.v4[word4(p)] = uint32(i)
			seen4[p.Bits()] = true
		default:
			x.v6[p] = uint32(i)
			seen6[p.Bits()] = true
		}
	}
	slices.SortStableFunc(x.zoned, func(a, b zoned) int { return b.net.Bits() - a.net.Bits() })
	x.bits4, x.bits6 = lengths(&seen4), lengths(&seen6)
	return x
}

func lengths(seen *[129]bool) []int {
	var list []int
	for n, yes := range slices.Backward(seen[:]) {
		if yes {
			list = append(list, n)
		}
	}
	return list
}

func word4(p netip.Prefix) uint64 {
	a := p.Addr().As4()
	return (uint64(a[0])<<24|uint64(a[1])<<16|uint64(a[2])<<8|uint64(a[3]))<<8 | uint64(p.Bits())
}

// visitAddr calls yield for each entry that holds the address in key, as AddrKey
// writes it, the smallest network first and one with a zone before all others,
// until yield returns false. A zone counts only against an entry that has one.
func (s *set) visitAddr(key string, yield func(int) bool) {
	exact := s.find(key)
	if exact >= 0 && !yield(exact) {
		return
	}
	a, err := netip.ParseAddr(unbracket(key))
	if err != nil {
		return
	}
	zone := a.Zone()
	a = a.Unmap().WithZone("")
	x := s.netIndex()
	for _, z := range x.zoned {
		if strings.EqualFold(z.zone, zone) && z.net.Contains(a) && z.entry != exact && !yield(z.entry) {
			return
		}
	}
	if a.Is4() {
		for _, n := range x.bits4 {
			p, _ := a.Prefix(n)
			if i, ok := x.v4[word4(p)]; ok && int(i) != exact && !yield(int(i)) {
				return
			}
		}
		return
	}
	for _, n := range x.bits6 {
		p, _ := a.Prefix(n)
		if i, ok := x.v6[p]; ok && int(i) != exact && !yield(int(i)) {
			return
		}
	}
}

// ParseNetAddr reads an address or a network as tables hold them: IPv6 in
// brackets or bare, the length within the brackets or behind, the tag "IPv6:"
// allowed; IPv4 with octets left out, as 10/8 and 192.168/16. Bits outside the
// network are cleared; a lone address is a network of full length.
func ParseNetAddr(s string) (netip.Prefix, error) {
	p, zone, err := parseZoned(s)
	if err == nil && zone != "" {
		return netip.Prefix{}, errNetAddr
	}
	return p, err
}

// parseZoned is ParseNetAddr for what may have a zone.
func parseZoned(s string) (netip.Prefix, string, error) {
	text, length, hasLength := strings.Cut(s, "/")
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		text, length, hasLength = strings.Cut(s[1:len(s)-1], "/")
	} else {
		text = unbracket(text)
	}
	if len(text) > 5 && strings.EqualFold(text[:5], "IPv6:") {
		text = text[5:]
	}
	a, bits, err := parseAddr(text)
	if err != nil {
		return netip.Prefix{}, "", errNetAddr
	}
	if hasLength {
		if bits, err = strconv.Atoi(length); err != nil || length[0] < '0' || length[0] > '9' {
			return netip.Prefix{}, "", errNetAddr
		}
	}
	zone := a.Zone()
	a = a.WithZone("")
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}, "", errNetAddr
	}
	return p, zone, nil
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

func unbracket(s string) string {
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
		if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
			s = s[5:]
		}
	}
	return s
}
