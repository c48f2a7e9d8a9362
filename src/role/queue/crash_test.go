package queue

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// ledger is what the world outside knows: which envelopes were acknowledged, and
// which of them ended in a mailbox or in a report.
type ledger struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	acked map[mail.EnvelopeID]bool
	ended map[mail.EnvelopeID]bool
	told  map[string]bool // addresses that reports told of
	mixed bool            // whether deliveries may fail
}

// deliver is a delivery agent with moods. What it says is known outside even
// when the machine crashes before the queue has written it.
func (l *ledger) deliver(m *mda.Delivery) mda.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Envelope.Flags&envelope.IsBounce != 0 {
		for _, line := range strings.Split(string(m.Body), "\n") {
			if to, ok := strings.CutPrefix(line, "Final-Recipient: rfc822; "); ok {
				l.told[to] = true
			}
		}
		return delivered
	}
	if l.mixed {
		switch l.rnd.IntN(4) {
		case 0:
			return tempFail("not now")
		case 1:
			return permFail("never")
		}
	}
	l.ended[m.Envelope.ID] = true
	return delivered
}

// missing returns what was acknowledged and has not ended.
func (l *ledger) missing() []mail.EnvelopeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []mail.EnvelopeID
	for id := range l.acked {
		if !l.ended[id] && !l.told[recipient(id)] {
			ids = append(ids, id)
		}
	}
	return ids
}

func recipient(id mail.EnvelopeID) string { return fmt.Sprintf("u%v@example.org", id) }

// The machine crashes at random moments while mail comes in, is delivered, fails
// and bounces: no acknowledged message is lost.
func TestNoneLost(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { noneLost(t, uint64(seed)) })
	}
}

func noneLost(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	l := &ledger{
		rnd: rand.New(rand.NewPCG(seed, 2)), mixed: true,
		acked: make(map[mail.EnvelopeID]bool), ended: make(map[mail.EnvelopeID]bool), told: make(map[string]bool),
	}
	var logs []string
	const crashed = "--- crash, or the end"
	d := run(t, options{agent: l.deliver})
	for range 3 {
		d.log.Await("the spool agrees")
		d.disk.CrashAfter(rnd.IntN(150))
		for range 20 {
			l.submit(d, rnd)
			d.clock.Advance(time.Duration(rnd.IntN(15)) * time.Second)
		}
		next := d.disk.Reboot(disk.Random(rnd.Uint64()))
		logs = append(append(logs, d.log.Take()...), crashed)
		d = run(t, options{agent: l.deliver, disk: next, clock: d.clock})
	}
	l.mu.Lock()
	l.mixed = false
	l.mu.Unlock()
	for range 50 {
		d.ask(msg.VerbSchedule, "all")
		d.idle()
		if len(d.live()) == 0 {
			break
		}
	}
	logs = append(append(logs, d.log.Take()...), crashed)
	for _, id := range l.missing() {
		t.Errorf("lost %v of %d", id, len(l.acked))
		for _, line := range logs {
			if line == crashed || strings.Contains(line, id.Message().String()) {
				t.Log(line)
			}
		}
	}
	if ids := d.live(); len(ids) != 0 {
		t.Errorf("still there: %v", ids)
	}
}

// submit sends a message with up to three recipients, and notes it when it is
// acknowledged.
func (l *ledger) submit(d *daemon, rnd *rand.Rand) {
	q := d.send(&msg.ReserveIDs{N: 1})
	var id mail.MessageID
	select {
	case m := <-q.reply:
		id = m.(*msg.ReservedIDs).IDs[0]
	case <-q.fail:
		return
	}
	var envs []func(*envelope.Envelope)
	for range 1 + rnd.IntN(3) {
		envs = append(envs, func(e *envelope.Envelope) { e.Dest.Local = fmt.Sprint("u", e.ID) })
	}
	if d.submitAs(id, envs...) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range envs {
		l.acked[mail.EnvelopeAt(id, uint32(n))] = true
	}
}
