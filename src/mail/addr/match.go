package addr

// Glob tells whether s matches pattern, in which '*' stands for any bytes, none
// too. ASCII case does not count. The time is at most proportional to the
// product of the lengths, whatever the pattern.
func Glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && lower(pattern[p]) == lower(s[i]):
			p++
			i++
		case star >= 0:
			// Only the last star need give more: what stood before it
			// matched as early as it could.
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
