// Package spf reads records of the Sender Policy Framework (RFC 7208) and lists
// the networks that domains send from.
//
// A record is "v=spf1" and terms with blanks between them (section 4.6.1):
//
//	term      = mechanism / modifier
//	mechanism = [ "+" / "-" / "?" / "~" ] name [ ":" value ] [ "/" bits4 ] [ "//" bits6 ]
//	modifier  = name "=" value
package spf

import (
	"net/netip"
	"strconv"
	"strings"
)

// term is one term of a record.
type term struct {
	deny  bool   // a mechanism with "-" or "~"
	name  string // in lower case, with the "=" of a modifier
	value string // a domain or network; "": the domain of the record
	// bits4 and bits6 are the lengths of the networks around addresses of the
	// value.
	bits4, bits6 int
}

// parse returns the terms of a TXT record; ok: it is one of SPF. A term that
// makes no sense is left out.
func parse(txt string) (terms []term, ok bool) {
	words := strings.Fields(txt)
	if len(words) == 0 || !strings.EqualFold(words[0], "v=spf1") {
		return nil, false
	}
	for _, w := range words[1:] {
		if t, ok := parseTerm(w); ok {
			terms = append(terms, t)
		}
	}
	return terms, true
}

func parseTerm(w string) (term, bool) {
	t := term{bits4: 32, bits6: 128}
	if i := strings.IndexAny(w, "=:/"); i >= 0 && w[i] == '=' {
		t.name, t.value = strings.ToLower(w[:i+1]), w[i+1:]
		return t, true
	}
	if strings.IndexByte("+-?~", w[0]) >= 0 {
		t.deny = w[0] == '-' || w[0] == '~'
		w = w[1:]
	}
	i := strings.IndexAny(w, ":/")
	if i < 0 {
		i = len(w)
	}
	t.name, t.value = strings.ToLower(w[:i]), strings.TrimPrefix(w[i:], ":")
	if t.name == "ip4" || t.name == "ip6" {
		return t, true
	}
	var ok4, ok6 = true, true
	if value, bits, said := strings.Cut(t.value, "//"); said {
		t.value = value
		t.bits6, ok6 = length(bits, 128)
	}
	if value, bits, said := strings.Cut(t.value, "/"); said {
		t.value = value
		t.bits4, ok4 = length(bits, 32)
	}
	return t, ok4 && ok6
}

// length reads the length of a prefix.
func length(s string, most int) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	return int(n), err == nil && int(n) <= most
}

// network is the value of ip4 or ip6: an address or a network, of that family.
func (t *term) network() (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(t.value)
	if err != nil {
		a, err := netip.ParseAddr(t.value)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p.Masked(), p.Addr().Is4() == (t.name == "ip4")
}

// around is the network of an address that the value has.
func (t *term) around(a netip.Addr) netip.Prefix {
	bits := t.bits6
	if a.Is4() {
		bits = t.bits4
	}
	return netip.PrefixFrom(a, bits).Masked()
}
