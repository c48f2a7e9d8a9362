package msg

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// samples holds each message of this file's authors once full and once empty.
func samples() []Parser {
	now := time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)
	rcpt := addr.Address{Local: "us er", Domain: "example.org"}
	refused := mailerr.Permanent(550, 1, 1, "Invalid recipient", nil)
	long := bytes.Repeat([]byte("body\r\n"), 500)
	return append(slices.Concat(deliverySamples(), relaySamples(), signSamples(), authSamples(), querySamples(), controlSamples(), stateSamples()), []Parser{
		&Expand{
			Gen: 7, Session: 1 << 63, Message: 0xffffffff, First: 3, Flags: envelope.Authenticated | envelope.Internal,
			Client: Client{
				Listener: "smtp 127.0.0.1:25", Tag: "t", Socket: true,
				Addr: netip.MustParseAddrPort("[fe80::1%eth0]:25"), RDNS: "a.example", Helo: "[1.2.3.4]",
				SMTPName: "mx", TLS: true, AuthUser: "a|b", UID: 1000,
			},
			Sender: addr.Address{Local: "x", Domain: "y"}, Rcpt: rcpt, Notify: envelope.NotifyDelay,
			Return: envelope.ReturnHeaders, EnvID: "id", ORcpt: "rfc822;a", Now: now,
		},
		&Expand{},
		&Expanded{Added: 2, Dests: []addr.Address{rcpt, {}}},
		&Expanded{Err: refused},
		&RDNS{Addr: netip.MustParseAddr("::ffff:1.2.3.4")},
		&RDNS{},
		&RDNSReply{Name: "a.example", Forward: true, Temp: true},
		&UserInfo{Name: "eve", Forward: true},
		&UserInfo{Name: "joe", Forward: true, Virtual: true, UID: 5, GID: 6, Home: "/virtual/joe"},
		&Include{Path: "/etc/mail/list"},
		&IncludeReply{Found: true, Data: []byte("a\nb\n")},
		&IncludeReply{Err: mailerr.Local(errors.New("too large"))},
		&TableFile{Gen: 3, Name: "aliases"},
		&TableFileReply{},
		&TableFileReply{Err: refused},
		&UserInfoReply{Found: true, Name: "eve", UID: 1, GID: 2, Home: "/home/eve", HasForward: true, Forward: []byte("bob\n")},
		&UserInfoReply{Err: mailerr.Local(errors.New("getent: exit status 3"))},
		&AddEnvelope{Envelope: envelope.Envelope{
			ID: mail.EnvelopeAt(7, 0), Action: "local", Rcpt: rcpt, Dest: rcpt,
			Source:  netip.MustParseAddrPort("[fe80::1%eth0]:25"),
			Created: time.Unix(1e9, 0), TTL: time.Hour,
		}},
		&ReserveIDs{N: 64},
		&ReservedIDs{IDs: []mail.MessageID{1, 0xfffffffe}},
		&ReservedIDs{},
		&BodyChunk{Message: 9, Data: long},
		&Commit{Message: 9, Envelopes: 2, Size: uint64(len(long)), Body: long},
		&Commit{Message: 9, Envelopes: 2, Size: 1 << 33, Streamed: true, TLSOptional: true},
		&Committed{},
		&Committed{Err: mailerr.Temporary(452, 3, 1, "Insufficient system storage", errors.New("disk full"))},
		&Discard{Message: 5},
		&Intake{Open: true},
		&Intake{Err: refused},
		&Error{Err: *refused},
		&Hello{
			Build: "b", Role: "queue", Config: []byte{1}, Verbose: true, Syslog: true, Unprivileged: true, Trace: []string{"smtp"},
			Paused: []string{"mta", "mda"}, Zone: "Europe/Paris", Chroot: "/var/empty",
			Dir: "/run/spool", UID: 1, GID: 2, GraceMillis: 5000,
		},
		&Hello{},
		&Peer{Role: "lookup"},
		&Resource{Name: ResourceHosts, More: true, Data: []byte("127.0.0.1 localhost\n")},
		&File{Identity: "listen 0.0.0.0:25"},
		&Conf{Gen: 2, Data: long},
		&Prepare{Gen: 2},
		&Ready{Err: refused, Layers: []string{"chroot", "seccomp"}},
		&Ready{},
		&CommitConf{Gen: 2},
		&AbortConf{Gen: 2},
		&Shutdown{},
		&Verbose{Verbose: true, Trace: []string{"io"}},
	}...)
}

// fresh returns an empty message of the same type.
func fresh(m Parser) Parser {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Parser)
}

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Cause" },
		cmp.Comparer(func(a, b error) bool {
			return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error())
		})),
}

func TestRoundTrip(t *testing.T) {
	for _, m := range samples() {
		b := m.Append([]byte("before"))
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Errorf("%T: Append overwrote what was there", m)
		}
		b = b[len("before"):]
		got := fresh(m)
		if err := got.Parse(b); err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if d := cmp.Diff(m, got, compare); d != "" {
			t.Errorf("%T differs (-sent +received):\n%s", m, d)
		}
	}
}

func TestDamaged(t *testing.T) {
	for _, m := range samples() {
		b := m.Append(nil)
		for n := range b {
			if n > 200 {
				break
			}
			if err := fresh(m).Parse(b[:n]); err == nil {
				t.Errorf("%T cut to %d of %d bytes: accepted", m, n, len(b))
			}
		}
		if err := fresh(m).Parse(append(b, 0)); err == nil {
			t.Errorf("%T with a byte too many: accepted", m)
		}
	}
}

// A parsed message must not change when the frame's buffer is used again.
func TestNoReference(t *testing.T) {
	for _, m := range samples() {
		b := m.Append(nil)
		got := fresh(m)
		if err := got.Parse(b); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		for i := range b {
			b[i] = 0xaa
		}
		if d := cmp.Diff(m, got, compare); d != "" {
			t.Errorf("%T keeps a reference to its frame:\n%s", m, d)
		}
	}
}

func TestValues(t *testing.T) {
	for name, tc := range map[string]struct {
		b    []byte
		read func(*Reader)
	}{
		"bool 2":          {[]byte{2}, func(r *Reader) { r.Bool() }},
		"enum above":      {[]byte{4}, func(r *Reader) { r.Enum(3) }},
		"huge count":      {[]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, func(r *Reader) { r.Count(1) }},
		"endless uvarint": {bytes.Repeat([]byte{0xff}, 11), func(r *Reader) { r.Count(1) }},
		"address of 5":    {[]byte{5, 1, 2, 3, 4, 5}, func(r *Reader) { r.Addr() }},
		"2e9 nanoseconds": {AppendU32(AppendI64(nil, 1), 2e9), func(r *Reader) { r.Time() }},
		"error class 9":   {[]byte{9}, func(r *Reader) { r.Error() }},
		"negative view":   {[]byte{9}, func(r *Reader) { r.View(-1) }},
	} {
		r := NewReader(tc.b)
		tc.read(&r)
		if err := r.Done(); !errors.Is(err, ErrValue) && !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReaderKeepsFirstError(t *testing.T) {
	r := NewReader([]byte{7, 'x'})
	r.Bool()
	if s := r.String(); s != "" {
		t.Errorf("read %q after an error", s)
	}
	if err := r.Done(); !errors.Is(err, ErrValue) {
		t.Errorf("Done() = %v, want the first error", err)
	}
}

func FuzzParse(f *testing.F) {
	for i, m := range samples() {
		f.Add(uint8(i), m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		all := samples()
		m := fresh(all[int(which)%len(all)])
		if m.Parse(b) != nil {
			return
		}
		again := fresh(m)
		if err := again.Parse(m.Append(nil)); err != nil {
			t.Fatalf("%T: what Parse accepted and Append wrote is refused: %v", m, err)
		}
		if d := cmp.Diff(m, again, compare); d != "" {
			t.Fatalf("%T changes on the second trip:\n%s", m, d)
		}
	})
}
