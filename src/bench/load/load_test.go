package load

import (
	"context"
	"net"
	"sync"
	"testing"

	"opensmtpd/src/bench/sink"
)

func TestRunAgainstSink(t *testing.T) {
	for _, pipeline := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var s sink.Sink
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()

		var mu sync.Mutex
		tags := make(map[string]bool)
		res := Run(ctx, Options{
			Addr: l.Addr().String(), Sessions: 7, Messages: 100, Size: 4096, Reuse: 3, Pipeline: pipeline,
			Rcpts: []string{"a@localhost", "b@localhost"},
			Acked: func(tag string) { mu.Lock(); tags[tag] = true; mu.Unlock() },
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if res.Acked != 100 || res.Refused != 0 || res.Broken != 0 || res.FirstErr != nil {
			t.Errorf("pipeline %v: %+v", pipeline, res)
		}
		if s.Messages.Load() != 100 || len(tags) != 100 {
			t.Errorf("pipeline %v: sink has %d messages, %d tags were acknowledged", pipeline, s.Messages.Load(), len(tags))
		}
		if n := s.Bytes.Load(); n < 100*4000 {
			t.Errorf("sink got %d bytes", n)
		}
	}
}
