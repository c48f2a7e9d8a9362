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

// findDomain returns the entry that matches a domain, or -1.
func (s *set) findDomain(key string) int {
	if key == "" {
		return -1
	}
	if i := s.find(key); i >= 0 {
		return i
	}
	s.domainsOnce.Do(func() {
		s.domains = s.newPatterns(func(b []byte) []byte { return b })
	})
	for _, n := range s.domains.ends {
		if n <= len(key) {
			if i := s.find("*", key[len(key)-n:]); i >= 0 {
				return i
			}
		}
	}
	for _, i := range s.domains.globs {
		if addr.Glob(s.key(i), key) {
			return i
		}
	}
	return -1
}

// findMail returns the entry that matches a mail address, or -1. The null
// sender is in no entry but "@".
func (s *set) findMail(key, delim string) int {
	a := addr.Cut(key)
	if a.IsZero() {
		return s.find("@")
	}
	s.mailsOnce.Do(func() {
		s.mails = s.newPatterns(func(b []byte) []byte {
			return b[bytes.LastIndexByte(b, '@')+1:]
		})
	})
	locals := localForms(a.Local, delim)
	for _, local := range locals {
		if i := s.findAt(local, a.Domain); i >= 0 {
			return i
		}
	}
	for _, local := range locals {
		if local != "" {
			if i := s.find(local); i >= 0 {
				return i
			}
		}
	}
	if i := s.findAt("", a.Domain); i >= 0 {
		return i
	}
	if i := s.findMailGlob(locals, a.Domain); i >= 0 {
		return i
	}
	return s.find("@")
}

// localForms are the local parts an entry may have to match local: whole, and
// without its sub-address.
func localForms(local, delim string) []string {
	if user, _, found := addr.SplitTag(local, delim); found {
		return []string{local, user}
	}
	return []string{local}
}

func (s *set) findAt(local, domain string) int {
	if domain == "" {
		return -1
	}
	if i := s.find(local, "@", domain); i >= 0 {
		return i
	}
	for _, n := range s.mails.ends {
		if n <= len(domain) {
			if i := s.find(local, "@*", domain[len(domain)-n:]); i >= 0 {
				return i
			}
		}
	}
	return -1
}

func (s *set) findMailGlob(locals []string, domain string) int {
	for _, i := range s.mails.globs {
		e := addr.Cut(s.key(i))
		if strings.IndexByte(e.Domain, '*') < 0 || !addr.Glob(e.Domain, domain) {
			continue
		}
		if e.Local == "" || slices.ContainsFunc(locals, func(l string) bool { return addr.EqualDomain(l, e.Local) }) {
			return i
		}
	}
	return -1
}
