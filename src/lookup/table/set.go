package table

import (
	"math"
	"sync"

	"opensmtpd/src/conf"
	"opensmtpd/src/mail/addr"
)

// set is the content of a static or file table, never changed once made. The
// text stays in one piece and entries are offsets into it, so that a million of
// them cost the collector nothing and some 50 bytes each.
type set struct {
	kind  conf.Kind
	text  []byte
	ents  []entry
	again []uint32 // lines with a key that an earlier one has
	index []uint32 // open addressing by the key's hash: number of the entry + 1, or 0

	domainsOnce sync.Once
	domains     patterns
	mailsOnce   sync.Once
	mails       patterns
	netsOnce    sync.Once
	nets        *netIndex
	regexOnce   sync.Once
	regex       *regexList
}

type entry struct {
	key, keyLen uint32
	val, valLen uint32
	line        uint32
}

// maxText is how large a table may be: offsets are 32 bits.
const maxText = math.MaxUint32

func (s *set) key(i int) string {
	e := &s.ents[i]
	return string(s.keyBytes(e))
}

func (s *set) keyBytes(e *entry) []byte { return s.text[e.key:][:e.keyLen] }

func (s *set) value(i int) string {
	e := &s.ents[i]
	return string(s.text[e.val:][:e.valLen])
}

// build makes the index. Of entries with the same key the last one counts, in
// the place of the first.
func (s *set) build() {
	size := 8
	for size < 2*len(s.ents) {
		size *= 2
	}
	s.index = make([]uint32, size)
	kept := s.ents[:0]
	for _, e := range s.ents {
		slot := s.slot(hashBytes(s.keyBytes(&e)), func(old *entry) bool {
			return sameBytes(s.keyBytes(old), s.keyBytes(&e))
		})
		if n := s.index[slot]; n != 0 {
			kept[n-1] = e
			s.again = append(s.again, e.line)
			continue
		}
		kept = append(kept, e)
		s.index[slot] = uint32(len(kept))
	}
	s.ents = kept
}

// visit calls yield for each entry that matches key under service, the best
// first, until yield returns false. A domain that has two forms is looked for as
// it was given, and then in the other.
func (s *set) visit(service Service, key, delim string, yield func(int) bool) {
	other := ""
	if service == Domain || service == MailAddr || service == Alias {
		other = addr.OtherForm(key)
	}
	if other == "" {
		s.visitForm(service, key, delim, yield)
		return
	}
	more := true
	s.visitForm(service, key, delim, func(i int) bool {
		more = yield(i)
		return more
	})
	if more {
		s.visitForm(service, other, delim, func(i int) bool {
			more = yield(i)
			return more
		})
	}
	// A name may have some of its labels in one form and some in the other.
	if third := addr.OtherForm(other); more && third != "" && !addr.EqualDomain(third, key) {
		s.visitForm(service, third, delim, yield)
	}
}

func (s *set) visitForm(service Service, key, delim string, yield func(int) bool) {
	switch service {
	case Domain:
		s.visitDomain(key, yield)
	case MailAddr:
		s.visitMail(key, delim, yield)
	case NetAddr, AddrName:
		s.visitAddr(key, yield)
	case Regex:
		s.visitRegex(key, yield)
	default:
		if i := s.find(key); i >= 0 {
			yield(i)
		}
	}
}

// best returns the entry that matches best, or -1.
func (s *set) best(service Service, key, delim string) int {
	found := -1
	s.visit(service, key, delim, func(i int) bool {
		found = i
		return false
	})
	return found
}

// slot returns where the entry that is the wanted one stands in the index, or
// the free place where it would.
func (s *set) slot(hash uint64, wanted func(*entry) bool) int {
	mask := len(s.index) - 1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		n := s.index[i]
		if n == 0 || wanted(&s.ents[n-1]) {
			return i
		}
	}
}

// find returns the number of the entry whose key is the parts joined, ASCII
// case apart, or -1.
func (s *set) find(parts ...string) int {
	h := uint64(fnvOffset)
	total := 0
	for _, p := range parts {
		total += len(p)
		for i := 0; i < len(p); i++ {
			h = fnv(h, p[i])
		}
	}
	slot := s.slot(mix(h), func(e *entry) bool {
		return int(e.keyLen) == total && sameParts(s.keyBytes(e), parts)
	})
	return int(s.index[slot]) - 1
}

// FNV-1a of the key in lower case.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnv(h uint64, c byte) uint64 { return (h ^ uint64(lower(c))) * fnvPrime }

// mix spreads the upper bits, of which FNV has the better ones, to the lower.
func mix(h uint64) uint64 { return h ^ h>>29 ^ h>>47 }

func hashBytes(b []byte) uint64 {
	h := uint64(fnvOffset)
	for _, c := range b {
		h = fnv(h, c)
	}
	return mix(h)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func sameBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// sameParts compares bytes with parts of the same total length.
func sameParts(b []byte, parts []string) bool {
	for _, p := range parts {
		for i := 0; i < len(p); i++ {
			if lower(p[i]) != lower(b[i]) {
				return false
			}
		}
		b = b[len(p):]
	}
	return true
}
