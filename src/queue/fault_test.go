package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/disk"
)

var faults = []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EMFILE, syscall.EROFS}

// intakes returns options whose Intake goes to a channel.
func intakes(ch chan *mailerr.Error) func(uint64) Options {
	return func(seed uint64) Options {
		opt := testOptions(seed)
		opt.Intake = func(e *mailerr.Error) { ch <- e }
		return opt
	}
}

// wantCode is the reply for a fault.
func wantCode(err syscall.Errno) int {
	if err == syscall.ENOSPC {
		return 452
	}
	return 451
}

// recovered lets the probes of a store whose disk works again find that out.
func (w *world) recovered(intake chan *mailerr.Error) {
	w.t.Helper()
	for w.s.Intake() != nil {
		c := w.s.opt.Clock.(*clock.Fake)
		c.BlockUntil(1)
		for len(intake) > 0 {
			<-intake
		}
		c.Advance(time.Second)
		for e := range intake {
			if e == nil {
				break
			}
		}
	}
}

// TestFaultEverywhere lets every operation of every script fail once, or from
// there on until the fault is lifted, with each error. Nothing may be half kept,
// the refusals must be right, and mail must flow again after.
func TestFaultEverywhere(t *testing.T) {
	for name, script := range scripts {
		if name == "restart" {
			continue // Open has a test of its own
		}
		for _, errno := range faults {
			for _, count := range []int{1, -1} {
				t.Run(fmt.Sprintf("%s/%v/%d", name, errno, count), func(t *testing.T) {
					t.Parallel()
					for n := 1; faultAt(t, script, errno, n, count); n++ {
					}
				})
			}
		}
	}
}

// faultAt plays a script whose n-th operation fails; false when there are fewer.
func faultAt(t *testing.T, script []step, errno syscall.Errno, n, count int) bool {
	intake := make(chan *mailerr.Error, 100)
	w := &world{t: t, sim: disk.NewSim(), seed: uint64(n), mail: make(map[mail.MessageID]*known), opt: intakes(intake)}
	w.open()
	w.refused = func(err error) {
		var e *mailerr.Error
		if !errors.As(err, &e) || e.Class != mailerr.Temp || e.Code != wantCode(errno) || !errors.Is(err, errno) {
			t.Fatalf("refused with %v, want %d for %v", err, wantCode(errno), errno)
		}
	}
	fault := w.sim.Fail(errno, n, count)
	for _, do := range script {
		do(w)
	}
	struck := fault.Hit()
	fault.Lift()
	w.recovered(intake)
	verifyStep(w)
	commitStep(2, 300)(w)
	if id := w.order[len(w.order)-1]; w.mail[id].committed != sure {
		t.Fatalf("%v at %d: no mail is taken after the fault was lifted", errno, n)
	}
	flushStep(w)
	spoolStep(w)
	flushStep(w)
	upkeepStep(w)
	checkpointStep(w)
	w.checkLive()
	w.reboot(choice(n%3, uint64(n)))
	w.check()
	verifyStep(w)
	w.check()
	w.s.Close()
	return struck
}

// checkLive is check on a store that was not restarted: what was refused must not
// be there, nor what completed.
func (w *world) checkLive() {
	w.t.Helper()
	for _, id := range slices.Clone(w.order) {
		if w.mail[id].committed == sure {
			continue
		}
		if _, err := w.s.OpenBody(id); !errors.Is(err, ErrNotFound) {
			w.t.Fatalf("message %v was refused and is there: %v", id, err)
		}
		w.mail[id].replaces = nil
	}
}

// TestSegmentNameStays lets a few operations in a row fail while segments follow
// one another: a new segment whose directory cannot be synced, and whose file
// cannot be removed then, may be there after the next power failure, and says that
// what lies before it is void from its first record on. What is acknowledged once
// the disk works again must not be lost to it.
func TestSegmentNameStays(t *testing.T) {
	for count := 2; count <= 6; count++ {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			for n := 1; nameStays(t, n, count); n++ {
			}
		})
	}
}

// nameStays lets count operations from the n-th on fail; false when there are
// fewer.
func nameStays(t *testing.T, n, count int) (struck bool) {
	for _, choose := range []disk.Choice{disk.Keep, disk.Lose, disk.Random(uint64(n))} {
		intake := make(chan *mailerr.Error, 100)
		w := &world{t: t, sim: disk.NewSim(), seed: uint64(n), mail: make(map[mail.MessageID]*known), opt: intakes(intake)}
		w.open()
		fault := w.sim.Fail(syscall.EIO, n, count)
		for range 3 {
			commitStep(1, 20000)(w) // wants a new segment
			if w.s.Intake() != nil {
				fault.Lift()
				w.recovered(intake)
			}
			commitStep(1, 300)(w) // has room in the one before
		}
		struck = fault.Hit()
		fault.Lift()
		if w.s.Intake() != nil {
			w.recovered(intake)
		}
		w.reboot(choose)
		w.check()
		w.s.Close()
	}
	return struck
}

// TestFaultRandom mixes faults, crashes and restarts.
func TestFaultRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.Uint64Range(0, 1<<20).Draw(t, "seed"))
		intake := make(chan *mailerr.Error, 1000)
		w.opt, w.faulty = intakes(intake), true
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			w.reboot(disk.Keep)
			w.check()
			w.sim.CrashAfter(rapid.IntRange(20, 400).Draw(t, "crash after"))
			for range rapid.IntRange(1, 4).Draw(t, "faults") {
				fault := w.sim.Fail(rapid.SampledFrom(faults).Draw(t, "errno"),
					rapid.IntRange(1, 60).Draw(t, "at"), rapid.SampledFrom([]int{1, 2, 3, -1}).Draw(t, "count"))
				for range rapid.IntRange(1, 12).Draw(t, "steps") {
					if s := w.randomStep(t); !w.sim.Crashed() {
						s(w)
					}
				}
				fault.Lift()
				if !w.sim.Crashed() && rapid.Bool().Draw(t, "recover") && w.s.Intake() != nil && !w.sim.Near(20) {
					w.recovered(intake)
				}
			}
			w.reboot(disk.Random(rapid.Uint64().Draw(t, "losses")))
			w.check()
		}
		verifyStep(w)
		w.check()
		w.s.Close()
	})
}

// TestOpenFaults lets each operation of a start fail: an error, and the next start
// works.
func TestOpenFaults(t *testing.T) {
	for _, errno := range faults {
		for n := 1; ; n++ {
			w := newWorld(t, uint64(n))
			commitStep(2, 300)(w)
			commitStep(1, InlineMax+1)(w)
			w.reboot(disk.Lose)
			w.check()
			w.s.Close()
			fault := w.sim.Fail(errno, n, 1)
			if s, err := Open(context.Background(), w.sim, testOptions(3)); err == nil {
				s.Close()
			}
			struck := fault.Hit()
			fault.Lift()
			w.open()
			w.check()
			w.s.Close()
			if !struck {
				break
			}
		}
	}
}
