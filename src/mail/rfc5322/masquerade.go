package rfc5322

// appendMasqueraded adds the list of addresses val to dst with each address
// replaced by from; names and comments stay. A group, and what is not
// understood, is left as it is.
func appendMasqueraded(dst, val []byte, from string) []byte {
	var s scan
	start := 0
	for i, c := range val {
		if c == '\n' {
			continue // a fold is no character of the list
		}
		s.step(c, true)
		if c == ',' && s.plain() {
			dst = append(appendReplaced(dst, val[start:i], from), ',')
			start = i + 1
		}
	}
	return appendReplaced(dst, val[start:], from)
}

func appendReplaced(dst, a []byte, from string) []byte {
	begin, end, ok := spot(a)
	if !ok {
		return append(dst, a...)
	}
	dst = append(append(dst, a[:begin]...), from...)
	return append(dst, a[end:]...)
}

// spot returns where in a the address stands: between the brackets, or what is
// the last word outside comments.
func spot(a []byte) (begin, end int, ok bool) {
	var s scan
	open, shut, last := -1, -1, -1
	for i, c := range a {
		s.step(c, false)
		if s.plain() {
			switch {
			case c == '<' && open < 0:
				open = i + 1
			case c == '>' && open >= 0 && shut < 0:
				shut = i
			case c == ':' && open < 0:
				return 0, 0, false
			}
		}
		if s.comment == 0 && c != ')' && !space(c) {
			last = i
		}
	}
	switch {
	case !s.plain(), open >= 0 && shut < 0, last < 0:
		return 0, 0, false
	case open >= 0:
		return open, shut, true
	}
	begin = last
	for begin > 0 && a[begin-1] != ')' && !space(a[begin-1]) {
		begin--
	}
	return begin, last + 1, true
}
