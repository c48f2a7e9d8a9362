package table

import (
	"bytes"
	"slices"
	"strings"

	"opensmtpd/src/mail/addr"
)

// patterns is what a set knows of its entries with wildcards. Nearly all are a
// '*' and a literal end, as "*.example.org"; those are found by the set's own
// index, once for each length that such an end has. The others are tried in
// turn.
type patterns struct {
	ends  []int // lengths of what follows the '*', longest first
	globs []int // entries with a '*' elsewhere
}

// newPatterns looks through the entries. part returns the piece of a key that
// may hold wildcards.
func (s *set) newPatterns(part func(key []byte) []byte) patterns {
	var p patterns
	seen := make(map[int]bool)
	for i := range s.ents {
		b := part(s.keyBytes(&s.ents[i]))
		star := bytes.IndexByte(b, '*')
		switch {
		case star < 0:
		case star == 0 && bytes.IndexByte(b[1:], '*') < 0:
			seen[len(b)-1] = true
		default:
			p.globs = append(p.globs, i)
		}
	}
	for n := range seen {
		p.ends = append(p.ends, n)
	}
	slices.SortFunc(p.ends, func(a, b int) int { return b - a })
	return p
}

// visitDomain calls yield for each entry that matches a domain, the best first,
// until yield returns false.
func (s *set) visitDomain(key string, yield func(int) bool) {
	if key == "" {
		return
	}
	if i := s.find(key); i >= 0 && !yield(i) {
		return
	}
	s.domainsOnce.Do(func() {
		s.domains = s.newPatterns(func(b []byte) []byte { return b })
	})
	for _, n := range s.domains.ends {
		if n <= len(key) {
			if i := s.find("*", key[len(key)-n:]); i >= 0 && !yield(i) {
				return
			}
		}
	}
	for _, i := range s.domains.globs {
		if addr.Glob(s.key(i), key) && !yield(i) {
			return
		}
	}
}

// visitMail does the same for a mail address. The null sender is in no entry but
// "@".
func (s *set) visitMail(key, delim string, yield func(int) bool) {
	a := addr.Cut(key)
	if !a.IsZero() && !s.visitMailbox(a, delim, yield) {
		return
	}
	if i := s.find("@"); i >= 0 {
		yield(i)
	}
}

func (s *set) visitMailbox(a addr.Address, delim string, yield func(int) bool) bool {
	s.mailsOnce.Do(func() {
		s.mails = s.newPatterns(func(b []byte) []byte {
			return b[bytes.LastIndexByte(b, '@')+1:]
		})
	})
	whole, user := a.Local, ""
	if u, _, found := addr.SplitTag(a.Local, delim); found {
		user = u
	}
	if !s.visitAt(whole, a.Domain, yield) || user != "" && !s.visitAt(user, a.Domain, yield) {
		return false
	}
	for _, local := range [...]string{whole, user} {
		if local != "" {
			if i := s.find(local); i >= 0 && !yield(i) {
				return false
			}
		}
	}
	return s.visitAt("", a.Domain, yield) && s.visitMailGlobs(whole, user, a.Domain, yield)
}

// visitAt looks for local@domain with a domain spelt out or "*" and its end.
func (s *set) visitAt(local, domain string, yield func(int) bool) bool {
	if domain == "" {
		return true
	}
	if i := s.find(local, "@", domain); i >= 0 && !yield(i) {
		return false
	}
	for _, n := range s.mails.ends {
		if n <= len(domain) {
			if i := s.find(local, "@*", domain[len(domain)-n:]); i >= 0 && !yield(i) {
				return false
			}
		}
	}
	return true
}

func (s *set) visitMailGlobs(whole, user, domain string, yield func(int) bool) bool {
	for _, i := range s.mails.globs {
		e := addr.Cut(s.key(i))
		if strings.IndexByte(e.Domain, '*') < 0 || !addr.Glob(e.Domain, domain) {
			continue
		}
		if e.Local == "" || addr.EqualDomain(e.Local, whole) || user != "" && addr.EqualDomain(e.Local, user) {
			if !yield(i) {
				return false
			}
		}
	}
	return true
}
