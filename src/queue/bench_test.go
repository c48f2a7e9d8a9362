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

// BenchmarkOpen measures a start: after a clean stop, and after a crash with
// nearly four full segments to read.
func BenchmarkOpen(b *testing.B) {
	for _, clean := range []bool{true, false} {
		b.Run(fmt.Sprintf("clean=%v", clean), func(b *testing.B) {
			dir := b.TempDir()
			for range b.N {
				b.StopTimer()
				fill(b, dir, clean)
				b.StartTimer()
				real, err := disk.NewReal(dir)
				if err != nil {
					b.Fatal(err)
				}
				s := mustOpen(b, real, Options{})
				b.StopTimer()
				s.Close()
				real.Close()
			}
		})
	}
}

// fill commits 240 MiB of mail, of which one message in a hundred stays.
func fill(b *testing.B, dir string, clean bool) {
	real, err := disk.NewReal(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer real.Close()
	s := mustOpen(b, real, Options{manual: true})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for n := range 120 {
				id := deliver(b, s, 1, 40<<10)
				if n%100 != 0 {
					s.Done(testEnvelopes(id, 1)[0].ID)
				}
			}
		})
	}
	wg.Wait()
	if clean {
		s.Close()
		return
	}
	s.log.Close()
	s.lock.Close()
}

// BenchmarkSpool measures messages made into files, and then verified at the next
// start.
func BenchmarkSpool(b *testing.B) {
	s := benchStore(b)
	ids := make(chan struct{}, b.N)
	for range b.N {
		ids <- struct{}{}
	}
	close(ids)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range ids {
				deliver(b, s, 1, 4<<10)
			}
		})
	}
	wg.Wait()
	b.ResetTimer()
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	if err := s.evacuate(context.Background(), nil); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
