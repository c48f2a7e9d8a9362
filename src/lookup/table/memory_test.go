package table

import (
	"fmt"
	"runtime"
	"testing"

	"opensmtpd/src/conf"
)

// A filter's regular expressions are matched for every session for months: what
// a match takes must go again.
func TestRegexMemoryCVE2020_35679(t *testing.T) {
	s := NewStatic("t", conf.List, []Entry{{Key: `^(dyn|dhcp)[0-9]*[.]`}, {Key: `[.]example[.](org|net)$`}}, "+")
	match := func(n int) {
		for i := range n {
			if yes, err := s.Match(t.Context(), Regex, fmt.Sprintf("host%d.example.org", i)); err != nil || !yes {
				t.Fatalf("match %d: %v, %v", i, yes, err)
			}
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	match(1000)
	before := heap()
	match(1_000_000)
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap was %d bytes and is %d", before, after)
	}
}
