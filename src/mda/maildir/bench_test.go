package maildir

import (
	"bytes"
	"fmt"
	"testing"

	"opensmtpd/src/clock"
)

func BenchmarkCommit(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			s := NewStore(System{}, NewNamer(clock.NewSystem()))
			dir := b.TempDir() + "/Maildir"
			batch := make([]*Message, 0, n)
			for i := 0; i < b.N; i += n {
				batch = batch[:0]
				for range n {
					m := s.Begin(Target{Dir: dir})
					m.Write(body)
					batch = append(batch, m)
				}
				s.Commit(batch)
				for _, m := range batch {
					if m.Err != nil {
						b.Fatal(m.Err)
					}
				}
			}
		})
	}
}
