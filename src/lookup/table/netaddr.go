package table

import (
	"net/netip"
	"slices"
	"strings"

	"opensmtpd/src/conf"
)

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
		p, zone, err := conf.ParseNet(key)
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
	a, err := netip.ParseAddr(conf.Unbracket(key))
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
