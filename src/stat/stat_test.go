package stat

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/privsep/msg"
)

func TestSet(t *testing.T) {
	var s Set
	sessions := s.Counter(SMTPSession)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				sessions.Add(1)
			}
			sessions.Sub(999)
		})
	}
	s.Counter(DeliveryOK).Add(7)
	wg.Wait()
	if got := s.Counter(SMTPSession).Value(); got != 4 {
		t.Errorf("sessions: %d, want 4", got)
	}
	want := []msg.Counter{{Name: DeliveryOK, Up: 7}, {Name: SMTPSession, Up: 4000, Down: 3996}}
	if diff := cmp.Diff(want, s.Reply().Counters); diff != "" {
		t.Error(diff)
	}
	if got := new(Set).Reply().Counters; len(got) != 0 {
		t.Errorf("an empty set replies %v", got)
	}
}
