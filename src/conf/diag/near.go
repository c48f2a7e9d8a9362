package diag

import "slices"

// Near returns the name that someone who wrote got most likely meant, or "".
// Names at more than a third of their length are not near.
func Near(got string, names []string) string {
	best, dist := "", len(got)/3+1
	for _, n := range slices.Sorted(slices.Values(names)) {
		if d := distance(got, n); d <= dist && d < len(n) && d < len(got) && (best == "" || d < dist) {
			best, dist = n, d
		}
	}
	return best
}

// distance counts the single-byte edits and swaps of neighbours between a and b.
func distance(a, b string) int {
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
