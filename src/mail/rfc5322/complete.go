package rfc5322

// scan follows the quoting of a list of addresses (RFC 5322 section 3.2.1 to
// 3.2.4) one byte at a time.
type scan struct {
	comment        int // depth
	quoted, escape bool
}

// plain tells whether the byte last taken stands outside comments and quotes
// and is no backslash.
func (s *scan) plain() bool { return s.comment == 0 && !s.quoted && !s.escape }

// step takes c. Where inQuotes is false a backslash means nothing inside quotes:
// so OpenSMTPD reads a single address, though not a list.
func (s *scan) step(c byte, inQuotes bool) {
	switch {
	case c == '(' && !s.escape && !s.quoted:
		s.comment++
	case c == '"' && !s.escape && s.comment == 0:
		s.quoted = !s.quoted
	case c == ')' && !s.escape && !s.quoted && s.comment > 0:
		s.comment--
	}
	s.escape = c == '\\' && !s.escape && s.comment == 0 && (inQuotes || !s.quoted)
}

// appendCompleted adds the list of addresses val, which ends in LF, to dst, and
// appends @domain to those without one. A group (RFC 5322 section 3.4) is left
// alone up to its semicolon.
func appendCompleted(dst, val []byte, domain string) []byte {
	if domain == "" {
		return append(dst, val...)
	}
	var s scan
	start, group, skip, at, angle := 0, false, false, false, false
	for i, c := range val {
		if c == '\n' {
			continue // a fold is no character of the list
		}
		s.step(c, true)
		if !s.plain() {
			continue
		}
		switch c {
		case '@':
			at = true
		case '<':
			angle = true
		case '>':
			angle = false
		case ':':
			group = group || !at && !angle
		case ';':
			group = false
			skip = true
		case ',':
			dst = appendAddress(dst, val[start:i], domain, skip || group)
			dst = append(dst, ',')
			start, skip, at, angle = i+1, false, false, false
		}
		skip = skip || group
	}
	return appendAddress(dst, val[start:], domain, skip)
}

// appendAddress adds one address to dst, completed unless it is left alone.
func appendAddress(dst, a []byte, domain string, leave bool) []byte {
	at := -1
	if !leave {
		at = insertion(a)
	}
	if at < 0 {
		return append(dst, a...)
	}
	dst = append(append(append(dst, a[:at]...), '@'), domain...)
	return append(dst, a[at:]...)
}

// insertion returns where in a the domain is missing, or -1 when nothing is:
// there is one, or the address is empty, a group, or not understood.
func insertion(a []byte) int {
	var s scan
	last, open, shut, bracket := -1, false, -1, false
	for i, c := range a {
		s.step(c, false)
		if s.plain() {
			switch {
			case c == '<' && !bracket:
				bracket, open = true, true
			case c == '>' && bracket:
				bracket, shut = false, i
			case c == '@', c == ':':
				return -1
			}
		}
		if s.comment == 0 && c != ')' && !space(c) {
			last = i
		}
	}
	if !s.plain() || bracket {
		return -1
	}
	if !open {
		if last < 0 {
			return -1
		}
		return last + 1
	}
	shut--
	for space(a[shut]) {
		shut--
	}
	if a[shut] == '<' {
		return -1
	}
	return shut + 1
}

func space(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
