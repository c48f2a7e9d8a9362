package clock

import (
	"testing"
	"time"
)

func TestFake(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := NewFake(start)
	early, _ := f.After(time.Second)
	late, _ := f.After(time.Minute)
	gone, cancel := f.After(time.Second)
	f.BlockUntil(3)
	cancel()
	f.BlockWhile(2)
	f.Advance(2 * time.Second)
	<-early
	select {
	case <-late:
		t.Error("woken 58 s too early")
	case <-gone:
		t.Error("woken after cancel")
	default:
	}
	f.Jump(start.Add(-time.Hour))
	if f.Mono() != 2*time.Second {
		t.Errorf("a jump of the wall moved monotonic time: %v", f.Mono())
	}
	f.Advance(58 * time.Second)
	<-late
	if want := start.Add(-time.Hour + 58*time.Second); !f.Now().Equal(want) {
		t.Errorf("Now() = %v, want %v", f.Now(), want)
	}
	now, _ := f.After(0)
	<-now
}

func TestSystem(t *testing.T) {
	s := NewSystem()
	ch, _ := s.After(time.Millisecond)
	<-ch
	if s.Mono() < time.Millisecond {
		t.Errorf("Mono() = %v after a wait of 1 ms", s.Mono())
	}
}
