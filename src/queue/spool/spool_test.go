package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

func newSpool(t *testing.T) *Spool {
	t.Helper()
	fs := disk.NewSim()
	for _, dir := range []string{QueueDir, IncomingDir, CorruptDir} {
		if err := fs.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	return New(fs)
}

func envelopes(id mail.MessageID, n int) []envelope.Envelope {
	envs := make([]envelope.Envelope, n)
	for i := range envs {
		envs[i].ID = mail.EnvelopeAt(id, uint32(i))
		envs[i].Helo = fmt.Sprint("helo", i)
	}
	return envs
}

func mustWrite(t *testing.T, s *Spool, id mail.MessageID, text string, n int) {
	t.Helper()
	if err := s.Write(id, strings.NewReader(text), int64(len(text)), envelopes(id, n)); err != nil {
		t.Fatal(err)
	}
}

func bodyOf(t *testing.T, s *Spool, id mail.MessageID) string {
	t.Helper()
	f, err := s.OpenBody(id, true)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b := make([]byte, 1000)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b[:n])
}

// What Write has returned from survives the loss of all that was not synced, in
// OpenSMTPD's layout.
func TestWrite(t *testing.T) {
	s := newSpool(t)
	mustWrite(t, s, 0x0a0b0c0d, "text", 2)
	mustWrite(t, s, 0x0a000001, "other", 1)
	s = New(s.FS.(*disk.Sim).Reboot(disk.Lose))
	for _, name := range []string{
		"queue/0a/0a0b0c0d/message", "queue/0a/0a0b0c0d/" + mail.EnvelopeAt(0x0a0b0c0d, 0).String(),
		"queue/0a/0a0b0c0d/" + mail.EnvelopeAt(0x0a0b0c0d, 1).String(), "queue/0a/0a000001/message",
	} {
		if _, err := s.FS.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if got := bodyOf(t, s, 0x0a0b0c0d); got != "text" {
		t.Errorf("body %q", got)
	}
	e, err := s.ReadEnvelope(mail.EnvelopeAt(0x0a0b0c0d, 1))
	if err != nil || e.Helo != "helo1" || e.ID != mail.EnvelopeAt(0x0a0b0c0d, 1) {
		t.Errorf("%+v, %v", e, err)
	}
	var ids []mail.MessageID
	if err := s.Each(func(id mail.MessageID) error { ids = append(ids, id); return nil }); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(ids); !slices.Equal(ids, []mail.MessageID{0x0a000001, 0x0a0b0c0d}) {
		t.Errorf("messages %v", ids)
	}
	evps, err := s.Envelopes(0x0a0b0c0d)
	if err != nil || len(evps) != 2 {
		t.Errorf("envelopes %v, %v", evps, err)
	}
}

// A second Write replaces what the first left.
func TestWriteAgain(t *testing.T) {
	s := newSpool(t)
	mustWrite(t, s, 7, "first", 3)
	mustWrite(t, s, 7, "second", 1)
	evps, err := s.Envelopes(7)
	if got := bodyOf(t, s, 7); got != "second" || err != nil || len(evps) != 1 {
		t.Errorf("body %q, envelopes %v, %v", got, evps, err)
	}
}

// A large body moves from incoming/, and a repeated Write does not lose it.
func TestWriteLarge(t *testing.T) {
	s := newSpool(t)
	if err := s.create(Incoming(7), strings.NewReader("large")); err != nil {
		t.Fatal(err)
	}
	if err := s.FS.SyncDir(IncomingDir); err != nil {
		t.Fatal(err)
	}
	if got := bodyOf(t, s, 7); got != "large" {
		t.Errorf("body in incoming: %q", got)
	}
	for range 2 {
		if err := s.Write(7, nil, 0, envelopes(7, 2)); err != nil {
			t.Fatal(err)
		}
	}
	s = New(s.FS.(*disk.Sim).Reboot(disk.Lose))
	if whole, err := s.Complete(7); err != nil || !whole {
		t.Errorf("%v, %v", whole, err)
	}
	if got := bodyOf(t, s, 7); got != "large" {
		t.Errorf("body %q", got)
	}
}

func TestWriteEnvelope(t *testing.T) {
	s := newSpool(t)
	mustWrite(t, s, 7, "x", 1)
	e := envelopes(7, 1)[0]
	e.Retry = 9
	if err := s.WriteEnvelope(&e); err != nil {
		t.Fatal(err)
	}
	s = New(s.FS.(*disk.Sim).Reboot(disk.Lose))
	if got, err := s.ReadEnvelope(e.ID); err != nil || got.Retry != 9 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadEnvelopeRefuses(t *testing.T) {
	s := newSpool(t)
	mustWrite(t, s, 7, "x", 0)
	long := mail.EnvelopeAt(7, 0)
	if err := s.create(EnvelopeName(long), strings.NewReader(strings.Repeat("a", MaxEnvelope+1))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadEnvelope(long); !errors.Is(err, envelope.ErrMalformed) {
		t.Errorf("too long a file: %v", err)
	}
	if _, err := s.ReadEnvelope(mail.EnvelopeAt(7, 1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestRemove(t *testing.T) {
	s := newSpool(t)
	mustWrite(t, s, 7, "x", 2)
	if there, err := s.Has(7); err != nil || !there {
		t.Errorf("%v, %v", there, err)
	}
	for range 2 { // what is gone need not be there
		if err := s.RemoveEnvelope(mail.EnvelopeAt(7, 0)); err != nil {
			t.Error(err)
		}
	}
	if evps, err := s.Envelopes(7); err != nil || len(evps) != 1 {
		t.Errorf("%v, %v", evps, err)
	}
	for range 2 {
		if err := s.RemoveMessage(7); err != nil {
			t.Error(err)
		}
	}
	if err := s.Sync(Bucket(7)); err != nil {
		t.Error(err)
	}
	if there, err := s.Has(7); err != nil || there {
		t.Errorf("%v, %v", there, err)
	}
}

func TestSetAside(t *testing.T) {
	s := newSpool(t)
	for n := range 3 {
		mustWrite(t, s, 7, fmt.Sprint(n), 1)
		to, err := s.SetAside(MessageDir(7))
		if want := fmt.Sprintf("corrupt/00000007.%d", n); err != nil || to != want {
			t.Errorf("kept as %s, %v, want %s", to, err, want)
		}
	}
	if _, err := s.SetAside(MessageDir(7)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing set aside: %v", err)
	}
	for _, text := range []string{"first", "second"} {
		if err := s.Keep("piece", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.FS.Open("corrupt/piece", false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 10)
	if n, _ := f.ReadAt(b, 0); string(b[:n]) != "first" {
		t.Errorf("kept %q", b[:n])
	}
}
