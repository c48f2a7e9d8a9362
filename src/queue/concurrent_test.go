package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/disk"
)

// Many write, read, update and complete at the same time, on the real disk, while
// the upkeep makes files and recycles and the spool is verified; then all is as it
// must be, before and after a restart.
func TestConcurrent(t *testing.T) {
	fs, err := disk.NewReal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	opt := testOptions(1)
	opt.manual, opt.Clock, opt.SegmentSize, opt.Cache = false, nil, 256<<10, 64<<10
	opt.Rand = nil
	s := mustOpen(t, fs, opt)
	type kept struct {
		id   mail.MessageID
		n    int
		size int
	}
	var (
		mu   sync.Mutex
		left []kept
		wg   sync.WaitGroup
	)
	for worker := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 60 {
				k := kept{n: 1 + r.IntN(3), size: r.IntN(20000)}
				if r.IntN(20) == 0 {
					k.size = InlineMax + r.IntN(50000)
				}
				if err := exercise(s, r, k.n, k.size, &k.id); err != nil {
					t.Error(err)
					return
				}
				if k.id != 0 {
					mu.Lock()
					left = append(left, k)
					mu.Unlock()
				}
			}
		})
	}
	wg.Go(func() { verify(t, s) })
	wg.Wait()
	check := func() {
		t.Helper()
		want := 0
		for _, k := range left {
			checkMessage(t, s, k.id, k.n, k.size)
			want += k.n
		}
		if got := len(listed(s)); got != want {
			t.Errorf("%d envelopes live, want %d", got, want)
		}
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fs, opt)
	verify(t, s)
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// exercise commits a message, reads it, updates it, and completes it, or now and
// then leaves it and tells so in stays.
func exercise(s *Store, r *rand.Rand, n, size int, stays *mail.MessageID) error {
	ids, err := s.Reserve(1)
	if err != nil {
		return err
	}
	id := ids[0]
	m := Message{ID: id}
	if size > InlineMax {
		if m.Body, err = s.NewBody(context.Background(), id); err != nil {
			return err
		}
		if _, err := m.Body.Write(testBody(id, size)); err != nil {
			return err
		}
		if err := m.Body.Close(); err != nil {
			return err
		}
	} else {
		m.Inline = testBody(id, size)
	}
	envs := testEnvelopes(id, n)
	if err := s.Commit(context.Background(), m, envs); err != nil {
		return err
	}
	body, err := s.OpenBody(id)
	if err != nil {
		return err
	}
	defer body.Close()
	for i := range n {
		e, err := s.Envelope(mail.EnvelopeAt(id, uint32(i)))
		if err != nil {
			return err
		}
		e.Retry++
		if err := s.Update(&e); err != nil {
			return err
		}
	}
	if r.IntN(5) == 0 {
		*stays = id
		return nil
	}
	for i := range n {
		s.Done(mail.EnvelopeAt(id, uint32(i)))
	}
	if err := s.Flush(context.Background()); err != nil {
		return err
	}
	if _, err := s.OpenBody(id); !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("message %v is complete and there: %w", id, err)
	}
	b := make([]byte, body.Size()) // who has it open reads on
	if _, err := body.ReadAt(b, 0); err != nil && body.Size() > 0 {
		return err
	}
	if string(b) != string(testBody(id, size)) {
		return fmt.Errorf("message %v: the open body changed", id)
	}
	return nil
}
