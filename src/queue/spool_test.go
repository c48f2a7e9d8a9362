package queue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/spool"
)

func mkdir(t *testing.T, fs disk.FS, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := fs.Mkdir(name); err != nil {
			t.Fatal(err)
		}
	}
}

func putFile(t *testing.T, fs disk.FS, name, text string) {
	t.Helper()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// cSpool is a spool as OpenSMTPD 7.8 leaves it: two messages, one with a damaged
// envelope beside a good one, one half received, and what does not belong there.
func cSpool(t *testing.T) *disk.Sim {
	fs := disk.NewSim()
	good, err := os.ReadFile(filepath.Join("envelope", "testdata", "mda-scoped.envelope"))
	if err != nil {
		t.Fatal(err)
	}
	mkdir(t, fs, "queue", "incoming", "corrupt", "offline", "purge", "temporary",
		"queue/ab", "queue/ab/ab000001", "queue/ab/ab000002", "queue/ab/ab000003", "queue/0c", "queue/ab/stray", "incoming/ab000009")
	putFile(t, fs, "queue/ab/ab000001/message", "Subject: one\n\nbody\n")
	putFile(t, fs, "queue/ab/ab000001/ab00000112345678", string(good))
	putFile(t, fs, "queue/ab/ab000001/ab00000187654321", string(good))
	putFile(t, fs, "queue/ab/ab000002/message", "Subject: two\n\nbody\n")
	putFile(t, fs, "queue/ab/ab000002/ab00000200000001", "\x13\x37random")
	putFile(t, fs, "queue/ab/ab000002/ab00000200000002", string(good))
	putFile(t, fs, "queue/ab/ab000002/ffffffff00000002", string(good)) // of another message
	putFile(t, fs, "queue/ab/ab000003/ab00000300000001", string(good)) // no body
	putFile(t, fs, "queue/0c/0c000001", "not a directory")
	putFile(t, fs, "queue/file", "not a directory")
	putFile(t, fs, "queue/cc", "not a directory")
	putFile(t, fs, "incoming/ab000009/message", "half")
	putFile(t, fs, "incoming/envelope.tmp", "half")
	return fs
}

func TestTakeOver(t *testing.T) {
	fs := cSpool(t)
	view, err := OpenView(context.Background(), fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := listed(view.s)
	if err := view.Close(); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, fs, testOptions(1))
	var found []mail.EnvelopeID
	err = s.Verify(context.Background(), func(sum Summary) {
		found = append(found, sum.ID)
		if sum.Action != "local_mail" || sum.User != "bob" || sum.Retry != 2 || sum.Domain != "example.com" {
			t.Errorf("found %+v", sum)
		}
	}, func(id mail.EnvelopeID) { t.Errorf("lost %v", id) })
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	want := []mail.EnvelopeID{0xab00000112345678, 0xab00000187654321, 0xab00000200000002}
	if !slices.Equal(found, want) || !slices.Equal(listed(s), want) || !slices.Equal(seen, want) {
		t.Errorf("found %v, listed %v, viewed %v", found, listed(s), seen)
	}
	corrupt, err := fs.ReadDir("corrupt")
	if err != nil || !slices.Equal(corrupt, []string{"0c000001.0", "ab00000200000001.0", "ab000003.0"}) {
		t.Errorf("set aside: %v, %v", corrupt, err)
	}
	if names, err := fs.ReadDir("incoming"); err != nil || len(names) != 0 {
		t.Errorf("incoming holds %v, %v", names, err)
	}
	r, err := s.OpenBody(0xab000001)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil || string(b) != "Subject: one\n\nbody\n" {
		t.Errorf("read %q, %v", b, err)
	}
	r.Close()
	e, err := s.Envelope(0xab00000112345678)
	if err != nil || e.Source.Addr().Zone() != "lo" {
		t.Errorf("envelope %+v, %v: the zone is gone", e, err)
	}
	// It is updated and completed like any other, in the files too.
	e.Retry = 3
	if err := s.Update(&e); err != nil {
		t.Fatal(err)
	}
	s.Done(0xab00000187654321, 0xab00000200000002)
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Export(context.Background(), func(id mail.EnvelopeID, err error) { t.Errorf("%v: %v", id, err) }); err != nil {
		t.Fatal(err)
	}
	left := files(t, fs, "queue")
	if want := []string{"queue/ab/ab000001/ab00000112345678", "queue/ab/ab000001/message", "queue/cc", "queue/file"}; !slices.Equal(left, want) {
		t.Errorf("left: %v", left)
	}
	got, err := spool.New(fs).ReadEnvelope(0xab00000112345678)
	if err != nil || got.Retry != 3 {
		t.Errorf("the file says %+v, %v", got, err)
	}
}

// What goes to OpenSMTPD and comes back is the same; what it cannot read is told.
func TestExport(t *testing.T) {
	fs := disk.NewSim()
	s := mustOpen(t, fs, testOptions(1))
	if err := s.Export(context.Background(), nil); err == nil {
		t.Error("exported before the spool was verified")
	}
	verify(t, s)
	small := deliver(t, s, 2, 500)
	id := reserve(t, s)
	long := testEnvelopes(id, 1)
	long[0].Helo = strings.Repeat("h", 65)
	long[0].LocalUID = 1000
	if err := s.Commit(context.Background(), Message{ID: id, Inline: []byte("x")}, long); err != nil {
		t.Fatal(err)
	}
	var told []mail.EnvelopeID
	if err := s.Export(context.Background(), func(id mail.EnvelopeID, err error) { told = append(told, id) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []mail.EnvelopeID{long[0].ID}) {
		t.Errorf("told of %v", told)
	}
	if left := files(t, fs, "journal"); len(left) != 0 {
		t.Errorf("the journal directory holds %v", left)
	}
	fs = fs.Reboot(disk.Lose)
	s = mustOpen(t, fs, testOptions(2))
	found := 0
	err := s.Verify(context.Background(), func(Summary) { found++ }, func(id mail.EnvelopeID) { t.Errorf("lost %v", id) })
	if err != nil || found != 3 {
		t.Errorf("found %d, %v", found, err)
	}
	checkMessage(t, s, small, 2, 500)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, s *Store) {
	t.Helper()
	err := s.Verify(context.Background(), func(sum Summary) { t.Errorf("found %v", sum.ID) },
		func(id mail.EnvelopeID) { t.Errorf("lost %v", id) })
	if err != nil {
		t.Fatal(err)
	}
}

// A message made into files keeps what their format does not hold.
func TestSpooledKeepsWhatIsOurs(t *testing.T) {
	s := mustOpen(t, disk.NewSim(), testOptions(1))
	id := reserve(t, s)
	envs := testEnvelopes(id, 1)
	envs[0].LocalUID = 1000
	envs[0].Flags |= envelope.OursAlone
	if err := s.Commit(context.Background(), Message{ID: id, Inline: []byte("x")}, envs); err != nil {
		t.Fatal(err)
	}
	if err := s.evacuate(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	fs := s.fs.(*disk.Sim)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fs, testOptions(2))
	if e, err := s.Envelope(envs[0].ID); err != nil || e.LocalUID != 1000 || e.Flags&envelope.OursAlone != envelope.OursAlone {
		t.Errorf("%+v, %v", e, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondInstance(t *testing.T) {
	dir := t.TempDir()
	fs, err := disk.NewReal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	s := mustOpen(t, fs, testOptions(1))
	if _, err := Open(context.Background(), fs, testOptions(2)); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("second store: %v", err)
	}
	if _, err := OpenView(context.Background(), fs, nil); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("view of a running store: %v", err)
	}
	id := deliver(t, s, 1, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := OpenView(context.Background(), fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkMessage(t, v.s, id, 1, 100)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWrongOwner(t *testing.T) {
	fs := disk.NewSim()
	opt := testOptions(1)
	opt.CheckOwner, opt.Owner = true, 12345
	_, err := Open(context.Background(), fs, opt)
	if err == nil || !strings.Contains(err.Error(), "belongs to uid 0, must belong to uid 12345") {
		t.Errorf("got %v", err)
	}
	mkdir(t, fs, "elsewhere")
	for _, name := range Dirs() {
		if err := fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	putFile(t, fs, "journal", "a file")
	if _, err := Open(context.Background(), fs, testOptions(1)); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("got %v", err)
	}
}

// Files that vanish or rot behind our back are told, and the rest goes on.
func TestSpoolDamaged(t *testing.T) {
	fs := disk.NewSim()
	s := mustOpen(t, fs, testOptions(1))
	verify(t, s)
	var ids []mail.MessageID
	for range 4 {
		ids = append(ids, deliver(t, s, 2, 300))
	}
	if err := s.evacuate(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sp := spool.New(fs)
	if err := sp.RemoveMessage(ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := sp.RemoveEnvelope(mail.EnvelopeAt(ids[1], 0)); err != nil {
		t.Fatal(err)
	}
	alter(t, fs, spool.EnvelopeName(mail.EnvelopeAt(ids[2], 1)), func(b []byte) { copy(b, "garbage") })
	s = mustOpen(t, fs, testOptions(2))
	var lost []mail.EnvelopeID
	err := s.Verify(context.Background(), func(sum Summary) { t.Errorf("found %v", sum.ID) }, func(id mail.EnvelopeID) { lost = append(lost, id) })
	if err != nil {
		t.Fatal(err)
	}
	want := []mail.EnvelopeID{
		mail.EnvelopeAt(ids[0], 0), mail.EnvelopeAt(ids[0], 1), mail.EnvelopeAt(ids[1], 0), mail.EnvelopeAt(ids[2], 1),
	}
	slices.Sort(want)
	slices.Sort(lost)
	if !slices.Equal(lost, want) {
		t.Errorf("lost %v, want %v", lost, want)
	}
	checkMessage(t, s, ids[3], 2, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReserve(t *testing.T) {
	fs := disk.NewSim()
	s := mustOpen(t, fs, testOptions(1))
	verify(t, s)
	a, err := s.Reserve(100)
	if err != nil {
		t.Fatal(err)
	}
	id := a[0]
	if err := s.Commit(context.Background(), Message{ID: id, Inline: []byte("x")}, testEnvelopes(id, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(context.Background(), Message{ID: id, Inline: []byte("x")}, testEnvelopes(id, 1)); err == nil {
		t.Error("a live message was committed again")
	}
	s.Done(mail.EnvelopeAt(id, 0))
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.opt.Rand = seeded(1) // the same numbers again
	b, err := s.Reserve(100)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range b {
		if slices.Contains(a, id) {
			t.Errorf("%v was given twice", id)
		}
	}
	if slices.Contains(b, 0) {
		t.Error("zero was given")
	}
	s.Release(a[1:]...)
	s.opt.Rand = seeded(1)
	c, err := s.Reserve(99)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c, a[1:]) {
		t.Error("released identifiers are not given again, or the completed one is")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The upkeep runs by itself: a checkpoint every minute, segments recycled, mail
// that stays made into files.
func TestUpkeepAlone(t *testing.T) {
	fs := disk.NewSim()
	opt := testOptions(1)
	opt.manual = false
	rounds := make(chan struct{}, 1)
	opt.upkept = func() {
		select {
		case rounds <- struct{}{}:
		default:
		}
	}
	log := new(mlog.Memory)
	opt.Log = mlog.New(log, true)
	c := opt.Clock.(*clock.Fake)
	s := mustOpen(t, fs, opt)
	verify(t, s)
	stays := deliver(t, s, 1, 1000)
	c.BlockUntil(1)
	c.Advance(checkpointEvery)
	for range 40 {
		id := deliver(t, s, 1, 5000)
		s.Done(mail.EnvelopeAt(id, 0))
	}
	for len(s.log.Segments()) > opt.Segments {
		s.nudge()
		<-rounds
	}
	checkMessage(t, s, stays, 1, 1000)
	if whole, err := s.spool.Complete(stays); err != nil || !whole {
		t.Errorf("%v is not in files: %v\n%s", stays, err, log)
	}
	if _, err := fs.Stat(checkpointName); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fs.Reboot(disk.Lose), testOptions(2))
	verify(t, s)
	checkMessage(t, s, stays, 1, 1000)
	if got := listed(s); len(got) != 1 {
		t.Errorf("live: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCommitRefuses(t *testing.T) {
	s := mustOpen(t, disk.NewSim(), testOptions(1))
	id := reserve(t, s)
	bad := testEnvelopes(id, 1)
	bad[0].Helo = "a\nb"
	for name, tc := range map[string]struct {
		m    Message
		n    int
		envs bool
	}{
		"no envelopes":  {m: Message{ID: id}},
		"too large":     {m: Message{ID: id, Inline: make([]byte, InlineMax+1)}, n: 1},
		"no id":         {m: Message{}, n: 1},
		"other id":      {m: Message{ID: id + 1}, n: 1},
		"open body":     {m: Message{ID: id, Body: &Body{id: id}}, n: 1},
		"line feed":     {m: Message{ID: id}, envs: true},
		"two bodies":    {m: Message{ID: id, Inline: []byte("x"), Body: &Body{id: id, ready: true}}, n: 1},
		"body of other": {m: Message{ID: id, Body: &Body{id: id + 1, ready: true}}, n: 1},
	} {
		envs := testEnvelopes(id, tc.n)
		if tc.envs {
			envs = bad
		}
		if err := s.Commit(context.Background(), tc.m, envs); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := listed(s); len(got) != 0 {
		t.Errorf("live: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The cache is bounded, and what leaves it is read from the journal.
func TestCacheBounded(t *testing.T) {
	opt := testOptions(1)
	opt.Cache = 20000
	s := mustOpen(t, disk.NewSim(), opt)
	var ids []mail.MessageID
	for range 30 {
		ids = append(ids, deliver(t, s, 1, 3000))
		if s.bytes > opt.Cache {
			t.Fatalf("%d bytes in the cache", s.bytes)
		}
	}
	if m := s.messages[ids[29]]; m.body == nil {
		t.Error("the newest is not in the cache")
	}
	if m := s.messages[ids[0]]; m.body != nil {
		t.Error("the oldest is in the cache")
	}
	for _, id := range ids {
		checkMessage(t, s, id, 1, 3000)
		s.Done(mail.EnvelopeAt(id, 0))
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.bytes != 0 || s.newest != nil || s.oldest != nil {
		t.Errorf("%d bytes in the cache of an empty queue", s.bytes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
