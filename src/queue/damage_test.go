package queue

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/spool"
)

// damagedWorld has mail in two journal segments, in files, and a checkpoint in the
// midst, after a power failure.
func damagedWorld(t *testing.T) *world {
	w := newWorld(t, 11)
	verifyStep(w)
	commitStep(2, 300)(w)
	spoolStep(w)
	commitStep(3, 9000)(w)
	commitStep(1, InlineMax+100)(w)
	checkpointStep(w)
	for range 4 {
		commitStep(2, 9000)(w)
	}
	flushStep(w)
	w.reboot(disk.Lose)
	w.check()
	w.s.Close()
	w.sim = w.sim.Reboot(disk.Lose)
	return w
}

// files lists all files of a disk.
func files(t *testing.T, fs disk.FS, dir string) []string {
	t.Helper()
	names, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		if dir != "." {
			name = dir + "/" + name
		}
		info, err := fs.Stat(name)
		switch {
		case err != nil:
			t.Fatal(err)
		case info.Mode.IsDir():
			all = append(all, files(t, fs, name)...)
		default:
			all = append(all, name)
		}
	}
	return all
}

func alter(t *testing.T, fs disk.FS, name string, f func(b []byte)) {
	t.Helper()
	file, err := fs.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil && size > 0 {
		t.Fatal(err)
	}
	f(b)
	if _, err := file.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
}

// survivors opens a damaged spool, verifies it, and returns the messages that are
// whole, and the log.
func (w *world) survivors(t *testing.T, fs disk.FS) (map[mail.MessageID]bool, string) {
	t.Helper()
	log := new(mlog.Memory)
	opt := testOptions(5)
	opt.Log = mlog.New(log, true)
	s, err := Open(context.Background(), fs, opt)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Verify(context.Background(), func(Summary) {}, func(mail.EnvelopeID) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	whole := make(map[mail.MessageID]bool)
	for id, k := range w.mail {
		r, err := s.OpenBody(id)
		if err != nil {
			continue
		}
		r.Close()
		whole[id] = true
		for evp := range k.envs {
			e, err := s.Envelope(evp)
			whole[id] = whole[id] && err == nil && e.Rcpt == testEnvelope(evp).Rcpt
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return whole, log.String()
}

// One flipped byte costs at most the message it is in, is logged, and the next
// start sees the same.
func TestDamagedByte(t *testing.T) {
	w := damagedWorld(t)
	for _, name := range files(t, w.sim, ".") {
		info, err := w.sim.Reboot(disk.Lose).Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		stride := max(1, info.Size/97)
		for at := int64(0); at < info.Size; at += stride {
			fs := w.sim.Reboot(disk.Lose)
			alter(t, fs, name, func(b []byte) { b[at] ^= 0x55 })
			whole, log := w.survivors(t, fs)
			if len(whole) < len(w.mail)-1 {
				t.Fatalf("%s byte %d: %d of %d messages left\n%s", name, at, len(whole), len(w.mail), log)
			}
			lost := 0
			for id := range w.mail {
				if !whole[id] {
					lost++
				}
			}
			// The files of the spool are plain text, which an administrator may
			// edit: a changed letter does not show.
			if lost > 0 && log == "" && !strings.HasPrefix(name, "queue/") {
				t.Fatalf("%s byte %d: %d messages lost in silence", name, at, lost)
			}
			if lost > 0 && strings.HasPrefix(name, "journal/seg.") && !strings.Contains(log, "damaged") {
				t.Fatalf("%s byte %d: taken for a torn end:\n%s", name, at, log)
			}
			again, _ := w.survivors(t, fs.Reboot(disk.Lose))
			for id := range w.mail {
				if whole[id] != again[id] {
					t.Fatalf("%s byte %d: message %v: %v at first, %v at the next start", name, at, id, whole[id], again[id])
				}
			}
		}
	}
}

// Random bytes in any file are set aside; the rest of the mail is there and the
// store works.
func TestRandomBytes(t *testing.T) {
	w := damagedWorld(t)
	r := rand.New(rand.NewPCG(1, 2))
	segments := 0
	for _, name := range files(t, w.sim, ".") {
		fs := w.sim.Reboot(disk.Lose)
		alter(t, fs, name, func(b []byte) {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		})
		whole, log := w.survivors(t, fs)
		if strings.HasPrefix(name, "journal/seg.") {
			segments++
			continue // it held several messages
		}
		if len(whole) < len(w.mail)-1 {
			t.Errorf("%s: %d of %d messages left\n%s", name, len(whole), len(w.mail), log)
		}
		if strings.HasPrefix(name, "queue/") && !strings.HasSuffix(name, "/message") {
			if names, err := fs.ReadDir(spool.CorruptDir); err != nil || len(names) != 1 {
				t.Errorf("%s was not set aside: %v, %v\n%s", name, names, err, log)
			}
		}
	}
	if segments < 2 {
		t.Errorf("only %d segments: the test does not test what it should", segments)
	}
}

// Mail that was files survives the loss of the whole journal directory.
func TestJournalGone(t *testing.T) {
	w := damagedWorld(t)
	for _, name := range files(t, w.sim, "journal") {
		if err := w.sim.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	var found []mail.EnvelopeID
	s := mustOpen(t, w.sim, testOptions(5))
	err := s.Verify(context.Background(), func(sum Summary) { found = append(found, sum.ID) }, func(id mail.EnvelopeID) {
		t.Errorf("lost %v", id)
	})
	if err != nil || len(found) != 2 {
		t.Fatalf("found %v, %v", found, err)
	}
	checkMessage(t, s, found[0].Message(), 2, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
