package table

// First returns the first entry, to judge the others by.
func (t *Static) First() (key, value string, ok bool) {
	s := t.now.Load()
	if len(s.ents) == 0 {
		return "", "", false
	}
	return s.key(0), s.value(0), true
}
