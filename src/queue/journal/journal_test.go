package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/queue/disk"
)

// gate is a disk whose syncs of files wait to be let through.
type gate struct {
	disk.FS
	syncing chan struct{}
	let     chan struct{}
}

type gateFile struct {
	disk.File
	g *gate
}

func (g *gate) Create(name string) (disk.File, error) {
	f, err := g.FS.Create(name)
	return &gateFile{f, g}, err
}

func (f *gateFile) Sync() error {
	f.g.syncing <- struct{}{}
	<-f.g.let
	return f.File.Sync()
}

// say is a unit of one record.
type say struct {
	text string
	off  int64
	seg  *Segment
	at   int64
	n    int
	err  error
	done chan struct{}
}

func newSay(text string) *say { return &say{text: text, done: make(chan struct{})} }

func (s *say) Encode(b *Buffer) {
	s.off = b.Begin(State, 0)
	b.B = append(b.B, s.text...)
	s.n = b.End()
}

func (s *say) Written(seg *Segment, base int64, err error) {
	s.seg, s.at, s.err = seg, base+s.off, err
	close(s.done)
}

func (s *say) wait() *say { <-s.done; return s }

type fixture struct {
	t     testing.TB
	fs    disk.FS
	clock *clock.Fake
	log   *Log
	fails chan error
	seen  []string
	found Replayed
}

func open(t testing.TB, fs disk.FS, size int64, from Position, exact bool) *fixture {
	t.Helper()
	f := &fixture{t: t, fs: fs, clock: clock.NewFake(time.Unix(1700000000, 0)), fails: make(chan error, 10)}
	l, err := Open(Options{
		FS: fs, Clock: f.clock, Rand: rand.NewChaCha8([32]byte{1}), SegmentSize: size, Spare: 2,
		Failed: func(err error) { f.fails <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.found, err = l.Replay(from, exact, func(r *Record) error {
		f.seen = append(f.seen, fmt.Sprintf("%d %.12s", r.LSN, r.Payload))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.log = l
	l.Start()
	return f
}

func newFixture(t testing.TB, size int64) (*fixture, *disk.Sim) {
	t.Helper()
	sim := disk.NewSim()
	if err := sim.Mkdir(Dir); err != nil {
		t.Fatal(err)
	}
	if err := sim.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	return open(t, sim, size, Position{}, false), sim
}

func (f *fixture) say(text string) *say {
	f.t.Helper()
	s := newSay(text)
	f.log.Submit(s, false)
	if s.wait().err != nil {
		f.t.Fatal(s.err)
	}
	return s
}

func (f *fixture) close() {
	f.t.Helper()
	if err := f.log.Close(); err != nil {
		f.t.Error(err)
	}
	f.log.CloseFiles()
}

func syncs(sim *disk.Sim) int {
	n := 0
	for _, e := range sim.Events() {
		if strings.HasPrefix(e, "sync ") {
			n++
		}
	}
	return n
}

// While one batch syncs all others gather, and one more sync serves them.
func TestGroupCommit(t *testing.T) {
	sim := disk.NewSim()
	if err := sim.Mkdir(Dir); err != nil {
		t.Fatal(err)
	}
	g := &gate{FS: sim, syncing: make(chan struct{}), let: make(chan struct{})}
	f := open(t, g, 1<<20, Position{}, false)
	first := newSay("first")
	f.log.Submit(first, false)
	<-g.syncing
	var rest []*say
	for i := range 40 {
		s := newSay(fmt.Sprint("other ", i))
		f.log.Submit(s, i%2 == 0) // riders among them
		rest = append(rest, s)
	}
	g.let <- struct{}{}
	first.wait()
	<-g.syncing
	for _, s := range rest {
		select {
		case <-s.done:
			t.Error("told before the sync")
		default:
		}
	}
	g.let <- struct{}{}
	for _, s := range rest {
		if s.wait().err != nil {
			t.Error(s.err)
		}
	}
	if n := syncs(sim); n != 2 {
		t.Errorf("%d syncs for 41 units", n)
	}
	for _, s := range append(rest, first) {
		if b, err := s.seg.Read(s.at, s.n, nil); err != nil || string(b) != s.text {
			t.Errorf("read %q, %v, want %q", b, err, s.text)
		}
	}
	f.close()
}

// A rider waits for a commit, or 100 ms.
func TestRide(t *testing.T) {
	f, sim := newFixture(t, 1<<20)
	rider := newSay("rider")
	f.log.Submit(rider, true)
	f.clock.BlockUntil(1)
	f.clock.Advance(Ride - 1)
	select {
	case <-rider.done:
		t.Error("written too early")
	default:
	}
	f.clock.Advance(1)
	rider.wait()
	second := newSay("second")
	f.log.Submit(second, true)
	f.say("commit")
	second.wait()
	if n := syncs(sim); n != 2 {
		t.Errorf("%d syncs", n)
	}
	last := newSay("written at the end")
	f.log.Submit(last, true)
	f.close()
	if last.wait().err != nil {
		t.Error(last.err)
	}
	late := newSay("late")
	f.log.Submit(late, false)
	if late.wait(); !errors.Is(late.err, ErrClosed) {
		t.Errorf("after Close: %v", late.err)
	}
	f = open(t, sim.Reboot(disk.Lose), 1<<20, Position{}, false)
	if want := []string{"1 rider", "2 second", "3 commit", "4 written at t"}; !slices.Equal(f.seen, want) {
		t.Errorf("replayed %q", f.seen)
	}
	f.close()
}

// After a failed sync the segment is left for good and the batch is written again
// elsewhere; nobody notices.
func TestSyncFailsOnce(t *testing.T) {
	f, sim := newFixture(t, 1<<20)
	one := f.say("one")
	sim.Fail(syscall.EIO, 2, 1) // the write passes, the sync does not
	two := f.say("two")
	three := f.say("three")
	if two.seg == one.seg || three.seg != two.seg {
		t.Error("the segment that failed is still in use")
	}
	after := 0
	for _, e := range sim.Events() {
		if e == "sync "+one.seg.Name() {
			after++
		}
	}
	if after != 1 {
		t.Errorf("the segment that failed was synced %d times", after)
	}
	if len(f.fails) != 0 {
		t.Errorf("intake was stopped: %v", <-f.fails)
	}
	f.close()
	f = open(t, sim.Reboot(disk.Keep), 1<<20, Position{}, false)
	if want := []string{"1 one", "2 two", "3 three"}; !slices.Equal(f.seen, want) || len(f.found.Holes) > 0 {
		t.Errorf("replayed %q, holes %v", f.seen, f.found.Holes)
	}
	f.close()
}

// When the other segment fails too, those who wait get the error, those who come
// later too without touching the disk, riders stay, and a probe a second later
// ends it.
func TestBrokenAndProbe(t *testing.T) {
	f, sim := newFixture(t, 1<<20)
	f.say("one")
	fault := sim.Fail(syscall.EIO, 1, -1)
	rider, two := newSay("rider"), newSay("two")
	f.log.Submit(rider, true)
	f.log.Submit(two, false)
	if two.wait(); !errors.Is(two.err, syscall.EIO) {
		t.Fatalf("got %v", two.err)
	}
	if err := <-f.fails; !errors.Is(err, syscall.EIO) {
		t.Errorf("told %v", err)
	}
	three := newSay("three")
	f.log.Submit(three, false)
	if three.wait(); !errors.Is(three.err, syscall.EIO) || !errors.Is(f.log.Err(), syscall.EIO) {
		t.Errorf("got %v", three.err)
	}
	f.clock.BlockUntil(1)
	f.clock.Advance(probeEvery) // in vain
	f.clock.BlockUntil(1)
	fault.Lift()
	f.clock.Advance(probeEvery)
	if err := <-f.fails; err != nil {
		t.Errorf("told %v", err)
	}
	if rider.wait().err != nil {
		t.Error(rider.err)
	}
	f.say("four")
	f.close()
	for _, choose := range []disk.Choice{disk.Lose, disk.Keep, disk.Random(1)} {
		f := open(t, sim.Reboot(choose), 1<<20, Position{}, false)
		if want := []string{"1 one", "2 rider", "3 four"}; !slices.Equal(f.seen, want) {
			t.Errorf("replayed %q", f.seen)
		}
		f.close()
	}
}

// Segments are freed oldest first, recycled, and show nothing of their former
// life.
func TestRecycle(t *testing.T) {
	f, sim := newFixture(t, 16<<10)
	big := strings.Repeat("x", 6000)
	for i := range 6 {
		f.say(fmt.Sprint(i, big))
	}
	segs := f.log.Segments()
	if len(segs) != 3 {
		t.Fatalf("%d segments", len(segs))
	}
	if err := f.log.Free(segs[1]); err == nil {
		t.Error("freed out of order")
	}
	old := segs[0]
	if err := f.log.Free(old); err != nil {
		t.Fatal(err)
	}
	s := f.say("in a recycled one" + big)
	if s.seg.f != old.f {
		t.Error("the free segment was not used again")
	}
	if _, err := old.Read(0, 6001, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("a reader of the former segment gets %v", err)
	}
	if err := f.log.Free(f.log.Segments()[2]); err == nil {
		t.Error("the current segment was freed")
	}
	f.close()
	f = open(t, sim.Reboot(disk.Keep), 16<<10, Position{}, false)
	want := []string{"3 2xxxxxxxxxxx", "4 3xxxxxxxxxxx", "5 4xxxxxxxxxxx", "6 5xxxxxxxxxxx", "7 in a recycle"}
	if !slices.Equal(f.seen, want) || len(f.found.Holes) != 0 {
		t.Errorf("replayed %q, holes %v", f.seen, f.found.Holes)
	}
	f.close()
}

// A start from a position reads only what comes after it; an exact one goes on in
// the same segment.
func TestPosition(t *testing.T) {
	f, sim := newFixture(t, 1<<20)
	f.say("one")
	s := f.say("two")
	f.close()
	pos := f.log.position()
	f = open(t, sim.Reboot(disk.Lose), 1<<20, pos, false)
	if len(f.seen) != 0 || len(f.found.Holes) != 0 {
		t.Errorf("replayed %q, holes %v", f.seen, f.found.Holes)
	}
	if third := f.say("three"); third.seg.Epoch == s.seg.Epoch {
		t.Error("a start that is not exact goes on in a segment whose end may be torn")
	}
	f.close()
	f = open(t, sim.Reboot(disk.Lose), 1<<20, pos, true)
	if third := f.say("three"); third.seg.Epoch != s.seg.Epoch || third.at <= s.at {
		t.Error("an exact start does not go on in the same segment")
	}
	f.close()
}

// A body that looks like a record is not taken for one, even when damage makes
// the reader search for the next.
func TestForgedRecord(t *testing.T) {
	f, sim := newFixture(t, 1<<20)
	first := f.say("one")
	var forged Buffer
	forged.Begin(State, 0)
	forged.B = append(forged.B, "forged"...)
	forged.End()
	// The sender guesses LSN and the count in the epoch, not the random half.
	forged.seal(2, first.seg.Epoch&^0xffffffff, 2, forged.sums(nil))
	carrier := f.say(string(forged.B))
	f.say("three")
	f.close()
	sim = sim.Reboot(disk.Lose)
	file, err := sim.Open(carrier.seg.Name(), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{0}, carrier.at); err != nil {
		t.Fatal(err)
	}
	f = open(t, sim, 1<<20, Position{}, false)
	if want := []string{"1 one", "3 three"}; !slices.Equal(f.seen, want) {
		t.Errorf("replayed %q", f.seen)
	}
	if h := f.found.Holes; len(h) != 1 || !h[0].Damaged || h[0].LSN != 2 || h[0].Next != 3 || h[0].Off > carrier.at ||
		!bytes.Contains(h[0].ReadHole(1<<20), []byte("forged")) {
		t.Errorf("holes %+v", h)
	}
	f.close()
}

// Seek finds what a plain search finds, wherever windows end.
func TestSeek(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		size := int64(headerSize + r.IntN(3*windowSize/2))
		sim := disk.NewSim()
		file, err := sim.Create("f")
		if err != nil {
			t.Fatal(err)
		}
		var want []int64
		for range r.IntN(6) {
			at := r.Int64N(size)
			if r.IntN(2) == 0 {
				at &^= align - 1
			}
			if r.IntN(3) == 0 {
				at = min(windowSize-8+r.Int64N(16), size-1)
			}
			if _, err := file.WriteAt(magicBytes, at); err != nil {
				t.Fatal(err)
			}
		}
		all := make([]byte, size+8)
		if _, err := file.ReadAt(all, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		for at := int64(0); at+headerSize <= size; at += align {
			if bytes.HasPrefix(all[at:], magicBytes) {
				want = append(want, at)
			}
		}
		var got []int64
		w := window{f: file, size: size}
		for at := w.seek(0); at >= 0; at = w.seek(at + align) {
			got = append(got, at)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("size %d: got %v, want %v", size, got, want)
		}
	}
}

// A segment that cannot be read in one place gives all the rest.
func TestUnreadablePage(t *testing.T) {
	w := window{f: badPage{}, size: 3 * page}
	b := w.at(0, 3*page)
	if w.failed == nil || b[0] != 'x' || b[page] != 0 || b[2*page] != 'x' {
		t.Errorf("%v: %q %q %q", w.failed, b[0], b[page], b[2*page])
	}
}

type badPage struct{ disk.File }

func (badPage) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		if (off+int64(i))/page == 1 {
			return i, syscall.EIO
		}
		p[i] = 'x'
	}
	return len(p), nil
}

// FuzzReplay: whatever a segment holds, it is read to the end, and records come
// with rising LSNs.
func FuzzReplay(f *testing.F) {
	const epoch = 0x1_00000001
	var b Buffer
	for _, s := range []string{"one", "two", ""} {
		b.Begin(State, 0)
		b.B = append(b.B, s...)
		b.End()
	}
	b.seal(1, epoch, 1, b.sums(nil))
	f.Add(b.B)
	f.Add(append(make([]byte, 64), b.B...))
	f.Add(b.B[48:])
	f.Fuzz(func(t *testing.T, data []byte) {
		sim := disk.NewSim()
		if err := sim.Mkdir(Dir); err != nil {
			t.Fatal(err)
		}
		file, err := sim.Create((&Segment{Epoch: epoch, First: 1}).Name())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{FS: sim, Clock: clock.NewFake(time.Unix(0, 0)), Rand: io.MultiReader(), SegmentSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		_, err = l.Replay(Position{}, false, func(r *Record) error {
			if r.LSN <= last || r.Off < 0 || r.Off+r.Len() > int64(len(data))+align {
				t.Fatalf("record %d at %d after %d", r.LSN, r.Off, last)
			}
			last = r.LSN
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
