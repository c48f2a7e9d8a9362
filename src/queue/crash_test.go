package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/spool"
)

// fate is what a test knows of something it asked for.
type fate uint8

const (
	sure  fate = iota // acknowledged: must be so after any crash
	maybe             // asked for, not acknowledged: either way
)

type known struct {
	size      int
	committed fate
	envs      map[mail.EnvelopeID]*knownEnvelope
	replaces  *mail.EnvelopeID // completed by this message, if and only if it is there
}

type knownEnvelope struct {
	done    bool // asked for
	settled bool // and acknowledged
	retries []uint16
}

// world is a store on a simulated disk, and what must be true of it.
type world struct {
	t     tb
	sim   *disk.Sim
	s     *Store
	log   *mlog.Memory
	seed  uint64
	mail  map[mail.MessageID]*known
	order []mail.MessageID
	opt   func(seed uint64) Options

	faulty  bool        // no restarts: Open may fail
	refused func(error) // what to think of a commit that failed; may be nil
}

func newWorld(t tb, seed uint64) *world {
	w := &world{t: t, sim: disk.NewSim(), seed: seed, mail: make(map[mail.MessageID]*known), opt: testOptions}
	w.open()
	return w
}

func (w *world) open() {
	opt := w.opt(w.seed)
	w.log = new(mlog.Memory)
	opt.Log = mlog.New(w.log, true)
	w.s = mustOpen(w.t, w.sim, opt)
}

// step is something a queue does. It stops early when the disk fails.
type step func(w *world)

func commitStep(n, size int) step { return func(w *world) { w.commit(n, size, nil) } }

// replaceStep bounces the i-th message: a new one is committed that completes it.
func replaceStep(i int) step {
	return func(w *world) {
		if i >= len(w.order) || w.mail[w.order[i]].committed != sure {
			return
		}
		for id, e := range w.mail[w.order[i]].envs {
			if !e.done {
				w.commit(1, 500, &id)
				return
			}
		}
	}
}

func (w *world) commit(n, size int, replaces *mail.EnvelopeID) {
	ids, err := w.s.Reserve(1)
	if err != nil {
		w.failed(err)
		return
	}
	id := ids[0]
	m := Message{ID: id}
	k := &known{size: size, committed: maybe, envs: make(map[mail.EnvelopeID]*knownEnvelope), replaces: replaces}
	if replaces != nil {
		m.Done = []mail.EnvelopeID{*replaces}
	}
	envs := testEnvelopes(id, n)
	for i := range envs {
		k.envs[envs[i].ID] = &knownEnvelope{retries: []uint16{0}}
	}
	if size > InlineMax {
		b, err := w.s.NewBody(context.Background(), id)
		if err != nil {
			w.failed(err)
			return
		}
		body := testBody(id, size)
		for piece := range slices.Chunk(body, 64<<10) {
			if _, err := b.Write(piece); err != nil {
				break // Close tells
			}
		}
		if err := b.Close(); err != nil {
			w.failed(err)
			return
		}
		m.Body = b
	} else {
		m.Inline = testBody(id, size)
	}
	w.mail[id] = k
	w.order = append(w.order, id)
	err = w.s.Commit(context.Background(), m, envs)
	if err == nil {
		k.committed = sure
		w.settle()
		if replaces != nil {
			o := w.mail[replaces.Message()].envs[*replaces]
			o.done, o.settled = true, true
			k.replaces = nil
		}
		return
	}
	w.failed(err)
	if m.Body != nil {
		m.Body.Abort()
	}
}

func (w *world) failed(err error) {
	if w.refused != nil {
		w.refused(err)
	}
}

// settle notes that everything asked for before is durable.
func (w *world) settle() {
	for _, k := range w.mail {
		for _, e := range k.envs {
			e.settled = e.settled || e.done
			e.retries = e.retries[len(e.retries)-1:]
		}
	}
}

func doneStep(i, n int) step {
	return func(w *world) {
		if i >= len(w.order) {
			return
		}
		k := w.mail[w.order[i]]
		if k.committed != sure {
			return
		}
		id := mail.EnvelopeAt(w.order[i], uint32(n))
		if e := k.envs[id]; e != nil {
			e.done = true
			w.s.Done(id)
		}
	}
}

func updateStep(i, n int) step {
	return func(w *world) {
		if i >= len(w.order) {
			return
		}
		e := testEnvelope(mail.EnvelopeAt(w.order[i], uint32(n)))
		k := w.mail[w.order[i]].envs[e.ID]
		if k == nil || w.mail[w.order[i]].committed != sure {
			return
		}
		e.Retry = k.retries[len(k.retries)-1] + 1
		k.retries = append(k.retries, e.Retry)
		if err := w.s.Update(&e); err != nil {
			w.t.Fatal(err)
		}
	}
}

func flushStep(w *world) {
	if w.s.Flush(context.Background()) == nil {
		w.settle()
	}
}

func checkpointStep(w *world) {
	w.s.upkeep.Lock()
	defer w.s.upkeep.Unlock()
	// An error is the disk's, and the old checkpoint stays.
	if err := w.s.checkpoint(); err != nil && !w.sim.Crashed() {
		w.s.opt.Log.Infof("checkpoint: %v", err)
	}
}

func verifyStep(w *world) {
	err := w.s.Verify(context.Background(),
		func(sum Summary) { w.t.Errorf("found envelope %v, which nobody else wrote", sum.ID) },
		func(id mail.EnvelopeID) { w.t.Errorf("lost envelope %v", id) })
	if err != nil && !w.sim.Crashed() {
		w.s.opt.Log.Infof("verify: %v", err)
	}
}

// upkeepStep recycles all segments but the current one.
func upkeepStep(w *world) {
	if err := w.s.maintain(context.Background()); err != nil && !w.sim.Crashed() {
		w.s.opt.Log.Infof("upkeep: %v", err)
	}
}

// spoolStep makes files of everything.
func spoolStep(w *world) {
	w.s.upkeep.Lock()
	defer w.s.upkeep.Unlock()
	if err := w.s.evacuate(context.Background(), nil); err != nil && !w.sim.Crashed() {
		w.s.opt.Log.Infof("evacuate: %v", err)
	}
}

func restartStep(w *world) {
	if w.faulty {
		return
	}
	if err := w.s.Close(); err == nil {
		w.settle()
	}
	w.seed++
	w.tryOpen()
}

// tryOpen opens the store, unless the disk crashes meanwhile.
func (w *world) tryOpen() bool {
	opt := w.opt(w.seed)
	w.log = new(mlog.Memory)
	opt.Log = mlog.New(w.log, true)
	s, err := Open(context.Background(), w.sim, opt)
	switch {
	case err == nil:
		w.s = s
	case !w.sim.Crashed():
		w.t.Fatal(err)
	}
	return err == nil
}

// killStep is kill -9 of the process, and a new one.
func killStep(w *world) {
	if w.faulty {
		return
	}
	next := w.sim.Kill()
	w.s.Close()
	w.sim = next
	w.seed += 500
	if w.tryOpen() {
		w.check()
	}
}

// reboot is the power failure, now if it has not come yet, and the start after it.
func (w *world) reboot(choose disk.Choice) {
	w.sim.CrashAfter(0)
	w.s.Close() // ends the goroutines; the disk takes nothing any more
	w.sim = w.sim.Reboot(choose)
	w.seed += 1000
	w.open()
}

// check holds the store against what is known, and takes note of what turned out
// to be.
func (w *world) check() {
	w.t.Helper()
	live := make(map[mail.EnvelopeID]bool)
	retry := make(map[mail.EnvelopeID]uint16)
	w.s.Each(func(sum Summary) bool {
		live[sum.ID] = true
		retry[sum.ID] = sum.Retry
		return true
	})
	for id := range live {
		if k := w.mail[id.Message()]; k == nil || k.envs[id] == nil {
			w.t.Fatalf("envelope %v was never asked for", id)
		}
	}
	for _, id := range w.order {
		w.checkMessage(id, w.mail[id], live, retry)
	}
	for _, id := range w.order { // after the fates are known
		k := w.mail[id]
		if k.replaces == nil {
			continue
		}
		o := w.mail[k.replaces.Message()].envs[*k.replaces]
		there := k.committed == sure
		if there && live[*k.replaces] {
			w.t.Fatalf("bounce %v is there, and so is what it replaces, %v", id, *k.replaces)
		}
		if !there && !live[*k.replaces] && !o.done {
			w.t.Fatalf("bounce %v is not there, and what it replaces, %v, is gone", id, *k.replaces)
		}
		if there {
			o.done, o.settled = true, true
		}
		k.replaces = nil
	}
	for _, id := range slices.Clone(w.order) {
		if w.mail[id].committed == maybe {
			delete(w.mail, id)
			w.order = slices.DeleteFunc(w.order, func(o mail.MessageID) bool { return o == id })
		}
	}
	names, err := w.sim.ReadDir(spool.CorruptDir)
	if errors.Is(err, disk.ErrCrashed) {
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if len(names) > 0 {
		w.t.Fatalf("set aside without damage: %v\n%v", names, w.log)
	}
}

func (w *world) checkMessage(id mail.MessageID, k *known, live map[mail.EnvelopeID]bool, retry map[mail.EnvelopeID]uint16) {
	w.t.Helper()
	any, undone := false, false
	for evp, e := range k.envs {
		any = any || live[evp]
		switch {
		case e.settled && live[evp]:
			w.t.Fatalf("envelope %v is back after its completion was durable", evp)
		case !e.done && !w.replaced(evp) && k.committed == sure && !live[evp]:
			w.t.Fatalf("envelope %v is lost", evp)
		case live[evp] && !slices.Contains(e.retries, retry[evp]):
			w.t.Fatalf("envelope %v has been tried %d times, want one of %v", evp, retry[evp], e.retries)
		}
		undone = undone || !e.done
		if live[evp] {
			got, err := w.s.Envelope(evp)
			if errors.Is(err, disk.ErrCrashed) {
				return // the disk went while we looked; the next start is checked
			}
			if err != nil || got.Rcpt != testEnvelope(evp).Rcpt || got.Retry != retry[evp] {
				w.t.Fatalf("envelope %v: %+v, %v", evp, got, err)
			}
			e.retries = []uint16{got.Retry}
			e.done = false // if it was asked for, it is to be asked for again
		} else if k.committed == sure {
			e.done, e.settled = true, true
		}
	}
	if !any {
		return
	}
	checkMessage(w.t, w.s, id, 0, k.size)
	if k.committed == maybe {
		for evp := range k.envs {
			if !live[evp] {
				w.t.Fatalf("message %v is half there: %v is missing", id, evp)
			}
		}
		k.committed = sure
	}
}

// replaced tells whether an unacknowledged message may have completed evp.
func (w *world) replaced(evp mail.EnvelopeID) bool {
	for _, k := range w.mail {
		if k.replaces != nil && *k.replaces == evp {
			return true
		}
	}
	return false
}

// script is what the exhaustive tests run; each is small enough to crash after
// every event.
var scripts = map[string][]step{
	"one message": {commitStep(1, 300)},
	"ride": {
		commitStep(2, 300), doneStep(0, 0), commitStep(1, 100), updateStep(1, 0), doneStep(0, 1), flushStep,
	},
	"killed": {commitStep(2, 300), doneStep(0, 0), killStep, commitStep(1, 300), flushStep},
	"killed while spooling": {
		verifyStep, commitStep(2, 300), commitStep(1, InlineMax+5000), spoolStep, killStep, verifyStep, commitStep(1, 20000), commitStep(1, 20000),
		commitStep(1, 20000), upkeepStep,
	},
	"bounce":       {commitStep(2, 200), replaceStep(0), flushStep},
	"restart":      {commitStep(1, 300), restartStep, commitStep(1, 300), restartStep, doneStep(0, 0), flushStep},
	"large body":   {commitStep(1, InlineMax+3000), doneStep(0, 0), flushStep, checkpointStep},
	"large spool":  {commitStep(2, InlineMax+3000), verifyStep, spoolStep, flushStep, doneStep(0, 0), flushStep, checkpointStep},
	"spool":        {verifyStep, commitStep(2, 300), spoolStep, flushStep, doneStep(0, 0), flushStep, upkeepStep, checkpointStep},
	"spool update": {verifyStep, commitStep(2, 300), spoolStep, updateStep(0, 0), doneStep(0, 1), spoolStep, flushStep, checkpointStep},
	"done while spooling": {
		verifyStep, commitStep(1, 300), commitStep(2, 300), doneStep(0, 0), spoolStep, doneStep(1, 1), flushStep, upkeepStep,
		doneStep(1, 0), flushStep, upkeepStep, checkpointStep,
	},
	"completed files": { // whose completion is in a segment that is freed
		verifyStep, commitStep(1, 300), spoolStep, flushStep, doneStep(0, 0), flushStep, commitStep(1, 20000), doneStep(1, 0),
		commitStep(1, 20000), doneStep(2, 0), commitStep(1, 20000), upkeepStep, commitStep(1, 20000), upkeepStep,
	},
	"recycle": {
		verifyStep, commitStep(1, 20000), doneStep(0, 0), commitStep(1, 20000), commitStep(1, 20000), upkeepStep,
		commitStep(1, 20000), doneStep(1, 0), upkeepStep, commitStep(1, 20000), upkeepStep,
	},
}

// TestCrashEverywhere crashes after every event of every script, with the unsynced
// changes lost, kept, and many mixtures, restarts, goes on, and crashes again.
func TestCrashEverywhere(t *testing.T) {
	mixtures := 8
	if testing.Short() {
		mixtures = 3
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := run(t, script, -1).sim
			total := len(events.Events()) // since the last kill, if there is one
			for at := 0; at <= total; at++ {
				if at < total && at < firstEvents(t) {
					continue // before the store is open there is nothing to lose
				}
				for mix := range mixtures + 2 {
					w := run(t, script, at)
					w.survive(choice(mix, uint64(at)), uint64(at*100+mix))
				}
				w := run(t, script, at)
				w.outlive(uint64(at))
			}
		})
	}
}

func choice(mix int, seed uint64) disk.Choice {
	switch mix {
	case 0:
		return disk.Lose
	case 1:
		return disk.Keep
	}
	return disk.Random(seed<<16 + uint64(mix))
}

// firstEvents counts what opening an empty spool takes.
func firstEvents(t tb) int {
	w := newWorld(t, 7)
	defer w.s.Close()
	return len(w.sim.Events())
}

// run plays a script on an empty disk that crashes after so many events.
func run(t tb, script []step, crash int) *world {
	w := newWorld(t, 7)
	if crash >= 0 {
		w.sim.CrashAfter(crash - len(w.sim.Events()))
	}
	for _, do := range script {
		if w.sim.Crashed() {
			break
		}
		do(w)
	}
	if crash < 0 {
		w.check()
		w.s.Close()
	}
	return w
}

// survive reboots, checks, works a little, crashes again in the middle of that,
// and checks again.
func (w *world) survive(choose disk.Choice, seed uint64) {
	w.t.Helper()
	defer func() {
		if w.t.Failed() {
			w.t.Logf("events before the crash:\n%s", strings.Join(w.sim.Events(), "\n"))
		}
	}()
	w.reboot(choose)
	w.check()
	if seed%3 == 1 {
		killStep(w)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	again := []step{verifyStep, commitStep(2, 400), doneStep(0, 0), spoolStep, flushStep, upkeepStep, checkpointStep}
	if seed%2 == 1 { // segments must not go before the spool was looked through
		again = []step{
			doneStep(0, 0), doneStep(0, 1), flushStep, commitStep(1, 20000), commitStep(1, 20000), commitStep(1, 20000),
			upkeepStep, verifyStep, upkeepStep,
		}
	}
	w.sim.CrashAfter(r.IntN(10 * len(again)))
	for _, do := range again {
		if !w.sim.Crashed() {
			do(w)
		}
	}
	w.reboot(disk.Random(seed))
	w.check()
	verifyStep(w)
	spoolStep(w)
	flushStep(w)
	w.check()
	restartStep(w)
	w.check()
	w.s.Close()
}

// outlive kills the process where the crash was to be, checks, and then lets the
// power fail: what the new process found must have become durable by then.
func (w *world) outlive(seed uint64) {
	w.t.Helper()
	killStep(w)
	for _, choose := range []disk.Choice{disk.Lose, disk.Random(seed)} {
		w.reboot(choose)
		w.check()
	}
	verifyStep(w)
	w.check()
	w.s.Close()
}

// TestCrashAllChoices goes through every combination of lost, kept and torn for
// the shortest script.
func TestCrashAllChoices(t *testing.T) {
	total := len(run(t, scripts["bounce"], -1).sim.Events())
	for at := firstEvents(t); at <= total; at++ {
		seen := 0
		for c := new(disk.Choices); c.Next() && seen < 3000; seen++ {
			w := run(t, scripts["bounce"], at)
			w.reboot(c.Pick)
			w.check()
			w.s.Close()
		}
	}
}

// TestCrashRandom plays long random histories with many crashes.
func TestCrashRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.Uint64Range(0, 1<<20).Draw(t, "seed"))
		rounds := rapid.IntRange(1, 5).Draw(t, "rounds")
		for range rounds {
			w.sim.CrashAfter(rapid.IntRange(0, 250).Draw(t, "crash after"))
			for range rapid.IntRange(1, 40).Draw(t, "steps") {
				if w.sim.Crashed() {
					break
				}
				w.randomStep(t)(w)
			}
			w.reboot(disk.Random(rapid.Uint64().Draw(t, "losses")))
			w.check()
		}
		verifyStep(w)
		w.check()
		w.s.Close()
	})
}

// randomStep draws what comes next.
func (w *world) randomStep(t *rapid.T) step {
	pick := func() int { return rapid.IntRange(0, max(len(w.order)-1, 0)).Draw(t, "message") }
	switch rapid.IntRange(0, 13).Draw(t, "step") {
	case 0, 1, 2, 3:
		return commitStep(rapid.IntRange(1, 4).Draw(t, "envelopes"), rapid.IntRange(0, 12000).Draw(t, "size"))
	case 4:
		return commitStep(1, InlineMax+rapid.IntRange(1, 9000).Draw(t, "more"))
	case 5, 6, 7:
		return doneStep(pick(), rapid.IntRange(0, 3).Draw(t, "envelope"))
	case 8:
		return updateStep(pick(), rapid.IntRange(0, 3).Draw(t, "envelope"))
	case 9:
		return replaceStep(pick())
	case 10:
		return flushStep
	case 11:
		return verifyStep
	case 12:
		return spoolStep
	default:
		return rapid.SampledFrom([]step{upkeepStep, checkpointStep, restartStep, killStep}).Draw(t, "upkeep")
	}
}
