package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
)

// valuesWorld is a disk on which nothing but the checkpoint knows of n values: the
// journal is used again.
func valuesWorld(t testing.TB, n int) *disk.Sim {
	t.Helper()
	sim := disk.NewSim()
	s := mustOpen(t, sim, testOptions(5))
	for i := range n {
		if err := s.PutState("greylist", fmt.Sprintf("key%d", i), []byte(strings.Repeat("v", 3*i+1))); err != nil {
			t.Fatal(err)
		}
	}
	deliver(t, s, 2, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := sim.ReadDir("journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "seg.") {
			if err := sim.Remove("journal/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := sim.SyncDir("journal"); err != nil {
		t.Fatal(err)
	}
	return sim.Reboot(disk.Lose)
}

// rewrite puts other bytes in the place of a file's.
func rewrite(t testing.TB, d disk.FS, name string, b []byte) {
	t.Helper()
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func contents(t testing.TB, d disk.FS, name string) []byte {
	t.Helper()
	f, err := d.Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// valuesOf opens a store and returns how many values are right, and the log. A
// wrong one is an error.
func valuesOf(t testing.TB, d disk.FS) (right int, log string) {
	t.Helper()
	said := new(mlog.Memory)
	opt := testOptions(5)
	opt.Log = mlog.New(said, true)
	s, err := Open(context.Background(), d, opt)
	if err != nil {
		t.Fatal(err)
	}
	s.State("greylist", func(key string, value []byte) bool {
		var n int
		if _, err := fmt.Sscanf(key, "key%d", &n); err != nil || string(value) != strings.Repeat("v", 3*n+1) {
			t.Errorf("%s is %q", key, value)
		}
		right++
		return true
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return right, said.String()
}

// TestSalvage holds that a flipped byte of the checkpoint costs the value it is in,
// and an end that is missing what was there, and that both are said.
func TestSalvage(t *testing.T) {
	const all = 30
	sim := valuesWorld(t, all)
	whole := contents(t, sim, checkpointName)
	for at := range whole {
		hurt := append([]byte(nil), whole...)
		hurt[at] ^= 0x55
		d := sim.Reboot(disk.Lose)
		rewrite(t, d, checkpointName, hurt)
		if n, log := valuesOf(t, d); n < all-1 || !strings.Contains(log, "damaged checkpoint") && !strings.Contains(log, "malformed") {
			t.Fatalf("byte %d: %d values left\n%s", at, n, log)
		}
		if n, log := valuesOf(t, d.Reboot(disk.Lose)); n < all-1 || strings.Contains(log, "checkpoint") {
			t.Fatalf("byte %d, the start after that: %d values left\n%s", at, n, log)
		}
	}
	last := 0
	for size := range whole {
		d := sim.Reboot(disk.Lose)
		rewrite(t, d, checkpointName, whole[:size])
		n, log := valuesOf(t, d)
		if n < last || !strings.Contains(log, "damaged checkpoint") {
			t.Fatalf("the first %d bytes: %d values\n%s", size, n, log)
		}
		last = n
	}
	if last != all {
		t.Errorf("without its last byte it has %d values", last)
	}
}

// FuzzCheckpoint reads any bytes as a checkpoint: what is whole says the same when it
// is taken for damaged.
func FuzzCheckpoint(f *testing.F) {
	whole := contents(f, valuesWorld(f, 3), checkpointName)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(whole[7:])
	sim := disk.NewSim()
	if err := mustOpen(f, sim, testOptions(5)).Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := sim.Reboot(disk.Keep)
		rewrite(t, d, checkpointName, b)
		s := newStore(d, testOptions(5))
		_, err := s.readCheckpoint(nil)
		values := s.states
		s.index = newIndex()
		if err := s.salvage(); err != nil {
			t.Fatal(err)
		}
		for kind, of := range values {
			if err == nil && len(s.states[kind]) != len(of) {
				t.Errorf("%d of %d values of %q", len(s.states[kind]), len(of), kind)
			}
		}
	})
}

// TestValuesCompacted holds that values that change again and again take no more of
// the disk than those that are there.
func TestValuesCompacted(t *testing.T) {
	sim := disk.NewSim()
	s := mustOpen(t, sim, testOptions(5))
	if err := s.Verify(t.Context(), func(Summary) {}, func(mail.EnvelopeID) {}); err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 {
		n := i % 50
		value := []byte(strings.Repeat("v", 3*n+1))
		if i%7 == 3 && i < 19_000 {
			value = nil
		}
		if err := s.PutState("greylist", fmt.Sprintf("key%d", n), value); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	names, err := sim.ReadDir("journal")
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	for _, name := range names {
		info, err := sim.Stat("journal/" + name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size
	}
	if most := 5 * s.opt.SegmentSize; size > most {
		t.Errorf("%d bytes of %v", size, names)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n, log := valuesOf(t, sim.Reboot(disk.Lose)); n != 50 || log != "" {
		t.Errorf("%d values left\n%s", n, log)
	}
}
