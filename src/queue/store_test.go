package queue

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// The tests open thousands of small stores: collecting after each would be most
// of the work. Random histories have a seed, so that a run means the same
// everywhere; EXPLORE=1 looks for new ones.
func TestMain(m *testing.M) {
	debug.SetGCPercent(1000)
	if os.Getenv("EXPLORE") == "" {
		if err := flag.Set("rapid.seed", "20261123"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	m.Run()
}

// start is when tests begin.
func start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// seeded gives the same identifiers in each run.
func seeded(seed uint64) io.Reader {
	var key [32]byte
	key[0] = byte(seed)
	key[1] = byte(seed >> 8)
	key[2] = byte(seed >> 16)
	return rand.NewChaCha8(key)
}

func testOptions(seed uint64) Options {
	return Options{
		Clock: clock.NewFake(start()), Rand: seeded(seed), SegmentSize: 32 << 10, Segments: 2,
		Log: mlog.New(new(mlog.Memory), false), manual: true,
	}
}

// tb is what *testing.T, *testing.B and *rapid.T have in common.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
}

func mustOpen(t tb, fs disk.FS, opt Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), fs, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testEnvelope(id mail.EnvelopeID) envelope.Envelope {
	return envelope.Envelope{
		ID: id, Type: envelope.MDA, Action: "local", Helo: "client.example", Hostname: "localhost", SMTPName: "mx.example",
		Sender:  addr.Address{Local: "alice", Domain: "example.org"},
		Rcpt:    addr.Address{Local: fmt.Sprintf("u%08x", uint32(id)), Domain: "example.com"},
		Dest:    addr.Address{Local: fmt.Sprintf("u%08x", uint32(id)), Domain: "example.com"},
		MDAUser: "bob", Created: start(), TTL: 96 * time.Hour,
	}
}

func testEnvelopes(id mail.MessageID, n int) []envelope.Envelope {
	envs := make([]envelope.Envelope, n)
	for i := range envs {
		envs[i] = testEnvelope(mail.EnvelopeAt(id, uint32(i)))
	}
	return envs
}

func testBody(id mail.MessageID, n int) []byte {
	return bytes.Repeat([]byte(id.String()+"\n"), n/9+1)[:n]
}

func reserve(t tb, s *Store) mail.MessageID {
	t.Helper()
	ids, err := s.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	return ids[0]
}

// deliver commits a message of n envelopes and size bytes.
func deliver(t tb, s *Store, n, size int) mail.MessageID {
	t.Helper()
	id := reserve(t, s)
	if err := s.Commit(context.Background(), Message{ID: id, Inline: testBody(id, size)}, testEnvelopes(id, n)); err != nil {
		t.Fatal(err)
	}
	return id
}

func listed(s *Store) []mail.EnvelopeID {
	var ids []mail.EnvelopeID
	s.Each(func(sum Summary) bool { ids = append(ids, sum.ID); return true })
	slices.Sort(ids)
	return ids
}

// checkMessage reads everything of a message back.
func checkMessage(t tb, s *Store, id mail.MessageID, n, size int) {
	t.Helper()
	r, err := s.OpenBody(id)
	if err != nil {
		t.Fatalf("message %v: %v", id, err)
	}
	defer r.Close()
	got := make([]byte, r.Size())
	if _, err := r.ReadAt(got, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, testBody(id, size)) {
		t.Fatalf("message %v: body of %d bytes differs from the %d written", id, len(got), size)
	}
	for i := range n {
		evp := mail.EnvelopeAt(id, uint32(i))
		e, err := s.Envelope(evp)
		if err != nil {
			t.Fatalf("envelope %v: %v", evp, err)
		}
		if want := testEnvelope(evp); e.Rcpt != want.Rcpt || !e.Created.Equal(want.Created) || e.TTL != want.TTL {
			t.Fatalf("envelope %v: got %+v", evp, e)
		}
	}
}

func TestCommitAndReopen(t *testing.T) {
	fs := disk.NewSim()
	s := mustOpen(t, fs, testOptions(1))
	var ids []mail.MessageID
	for n := range 20 {
		ids = append(ids, deliver(t, s, n%3+1, 100*n))
	}
	for n, id := range ids {
		checkMessage(t, s, id, n%3+1, 100*n)
	}
	s.Done(mail.EnvelopeAt(ids[0], 0), mail.EnvelopeAt(ids[2], 1))
	e := testEnvelope(mail.EnvelopeAt(ids[1], 1))
	e.Retry, e.ErrorLine, e.LastTry = 3, "451 later\nplease", start().Add(time.Minute)
	if err := s.Update(&e); err != nil {
		t.Fatal(err)
	}
	if err := s.PutState("greylist", "key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, power := range []disk.Choice{disk.Lose, disk.Keep} {
		s := mustOpen(t, fs.Reboot(power), testOptions(2))
		if got := len(listed(s)); got != 37 {
			t.Errorf("%d envelopes live, want 37", got)
		}
		if _, err := s.Envelope(mail.EnvelopeAt(ids[0], 0)); !errors.Is(err, ErrNotFound) {
			t.Errorf("a completed envelope: %v", err)
		}
		got, err := s.Envelope(e.ID)
		if err != nil || got.Retry != 3 || got.ErrorLine != `451 later\x0aplease` || !got.LastTry.Equal(e.LastTry) {
			t.Errorf("updated envelope: %+v, %v", got, err)
		}
		for n, id := range ids[3:] {
			checkMessage(t, s, id, (n+3)%3+1, 100*(n+3))
		}
		var value string
		s.State("greylist", func(key string, v []byte) bool { value += key + "=" + string(v); return true })
		if value != "key=value" {
			t.Errorf("state is %q", value)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
