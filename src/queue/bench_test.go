package queue

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"opensmtpd/src/queue/disk"
)

// BenchmarkCommit measures acknowledged messages of 4 KiB and one recipient on
// the disk that holds the temporary directory, or QUEUE_BENCH_DIR.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) { benchCommit(b, writers, 4<<10) })
	}
}

func benchStore(b *testing.B) *Store {
	b.Helper()
	dir := b.TempDir()
	if base := os.Getenv("QUEUE_BENCH_DIR"); base != "" {
		var err error
		if dir, err = os.MkdirTemp(base, "queue"); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
	}
	real, err := disk.NewReal(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { real.Close() })
	s := mustOpen(b, real, Options{})
	b.Cleanup(func() { s.Close() })
	if err := s.Verify(context.Background(), nil, nil); err != nil {
		b.Fatal(err)
	}
	return s
}

func benchCommit(b *testing.B, writers, size int) {
	s := benchStore(b)
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				id := deliver(b, s, 1, size)
				s.Done(testEnvelopes(id, 1)[0].ID)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
