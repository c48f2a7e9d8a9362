package envelope

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
)

const testID = mail.EnvelopeID(0x0123456789abcdef)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(a, b Envelope) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty())
}

// The golden files are what OpenSMTPD 7.8.0p1 reads, and writes back to the byte.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.envelope")
	if err != nil || len(names) < 5 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		b := read(t, filepath.Base(name))
		e, err := ParseText(testID, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := e.AppendText(nil)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(string(b), string(got)))
		}
	}
}

func TestParseTextValues(t *testing.T) {
	e, err := ParseText(testID, read(t, "mda-scoped.envelope"))
	if err != nil {
		t.Fatal(err)
	}
	want := Envelope{
		ID: testID, Type: MDA, Flags: Authenticated | Internal, Action: "local_mail", Tag: "in",
		SMTPName: "mx.example.com", Helo: "client.example.net", Hostname: "client.example.net", Username: "alice",
		Source: netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), 0),
		Rcpt:   addr.Address{Local: `"a b"`, Domain: "example.com"}, Dest: addr.Address{Local: "bob", Domain: "example.com"},
		MDAExec: "/usr/bin/true", MDAUser: "bob", MDASubaddress: "tag",
		Created: time.Unix(1700000000, 0), LastTry: time.Unix(1700000100, 0), TTL: 96 * time.Hour, Retry: 2,
		DSNNotify: NotifyFailure | NotifyDelay, DSNRet: ReturnHeaders, DSNEnvID: "QQ+2B", DSNORcpt: "rfc822;bob@example.com",
		ErrorLine: "450 try again", ESCClass: 4, ESCCode: 12,
	}
	if d := same(want, e); d != "" {
		t.Error(d)
	}
}

// A spool of OpenSMTPD 6.0 can be read; the envelope names no action.
func TestVersion2(t *testing.T) {
	e, err := ParseText(testID, read(t, "v2-mda.old"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Action != "" || e.MDAUser != "bob" || e.TTL != 96*time.Hour || e.Source.Addr().String() != "2001:db8::1" {
		t.Errorf("got %+v", e)
	}
}

func TestParseTextLenient(t *testing.T) {
	e, err := ParseText(testID, []byte("VERSION : \t3\nType:MTA\nflags: authenticated,Enqueued|internal\nversion:3\nhelo:\nretry: 7"))
	if err != nil || e.Type != MTA || e.Flags != Authenticated|Internal || e.Retry != 7 {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestParseTextRefuses(t *testing.T) {
	for _, tc := range []struct{ text, field string }{
		{"type: mda\n", "version"},
		{"version: 4\n", "version"},
		{"version: 0\n", "version"},
		{"version: three\n", "version"},
		{"version: 3\nsmtputf8: 1\n", "smtputf8"},
		{"version: 3\nexpire: 1\n", "expire"}, // of version 2
		{"version: 3\ntype: mail\n", "type"},
		{"version: 3\nretry: 65536\n", "retry"},
		{"version: 3\nretry: -1\n", "retry"},
		{"version: 3\nctime: 99999999999999\n", "ctime"},
		{"version: 3\nttl: 10000000000\n", "ttl"},
		{"version: 3\nsockaddr: example.org\n", "sockaddr"},
		{"version: 3\nsockaddr: [192.0.2.1]\n", "sockaddr"},
		{"version: 3\nsockaddr: 2001:db8::1\n", "sockaddr"},
		{"version: 3\nflags: urgent\n", "flags"},
		{"version: 3\nbounce-type: odd\n", "bounce-type"},
		{"version: 3\ndsn-ret: half\n", "dsn-ret"},
		{"version: 3\n\n", ""},
		{"version: 3\nno colon\n", ""},
		{"version: 3\nhelo: a\x00b\n", ""},
		{"version: 3\nhelo: a\rb\n", ""},
		{"\x00\xff\x13\x37", ""},
	} {
		_, err := ParseText(testID, []byte(tc.text))
		var field *FieldError
		switch {
		case err == nil:
			t.Errorf("%q was accepted", tc.text)
		case tc.field == "" && !errors.Is(err, ErrMalformed):
			t.Errorf("%q: %v", tc.text, err)
		case tc.field != "" && (!errors.As(err, &field) || field.Field != tc.field):
			t.Errorf("%q: %v, want field %s", tc.text, err, tc.field)
		}
	}
}

// CVE-2020-8794: what a server or client says never becomes a field of its own.
func TestControlCharactersCVE_2020_8794(t *testing.T) {
	for i, s := range (&Envelope{}).strings() {
		for _, bad := range []string{"\n", "\r", "\x00"} {
			var e Envelope
			*e.strings()[i] = "x" + bad + "mda-exec: evil"
			if _, err := e.AppendText(nil); err == nil {
				t.Errorf("field %s with %q was written", stringNames[i], bad)
			}
			if err := new(Envelope).Parse(e.Append(nil)); err == nil {
				t.Errorf("field %s with %q was read", stringNames[i], bad)
			}
		}
		_ = s
	}
	line := CleanLine("553 no\r\nmda-exec: evil\x00")
	if line != `553 no\x0d\x0amda-exec: evil\x00` {
		t.Errorf("CleanLine gives %q", line)
	}
	if n := len(CleanLine(strings.Repeat("x", 5000))); n != 2047 {
		t.Errorf("CleanLine leaves %d bytes", n)
	}
}

func TestTooLong(t *testing.T) {
	e := Envelope{Helo: strings.Repeat("h", MaxStrings)}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
	e.Tag = "t"
	if err := e.Check(); err == nil {
		t.Error("an envelope whose file could not be read back was accepted")
	}
}

func TestPortable(t *testing.T) {
	e := Envelope{Helo: "a", Hostname: "b"}
	if err := e.Portable(); err != nil {
		t.Error(err)
	}
	e.Tag = strings.Repeat("t", 33)
	if err := e.Portable(); err == nil {
		t.Error("a tag of 33 bytes is not read by OpenSMTPD")
	}
}

// drawEnvelope makes any envelope that Check accepts. In the text form a value
// has no blanks in front, and a file has no port.
func drawEnvelope(t *rapid.T, text bool) Envelope {
	var e Envelope
	value := rapid.StringOfN(rapid.RuneFrom([]rune("abz09@.-_<>\"%| \t:\u00e9\u2028")), 0, 40, -1)
	for i, s := range e.strings() {
		*s = value.Draw(t, stringNames[i])
		if text {
			*s = strings.TrimLeft(*s, " \t")
		}
	}
	e.ID = mail.EnvelopeID(rapid.Uint64().Draw(t, "id"))
	e.Type = Type(rapid.IntRange(0, 2).Draw(t, "type"))
	e.BounceType = BounceType(rapid.IntRange(0, 2).Draw(t, "bounce type"))
	e.Flags = Flags(rapid.IntRange(0, 7).Draw(t, "flags"))
	e.Retry = rapid.Uint16().Draw(t, "retry")
	e.DSNNotify = Notify(rapid.Uint8().Draw(t, "notify"))
	e.DSNRet = Return(rapid.IntRange(0, 2).Draw(t, "ret"))
	e.ESCClass, e.ESCCode = rapid.Uint8().Draw(t, "class"), rapid.Uint8().Draw(t, "code")
	for _, when := range []*time.Time{&e.Created, &e.LastTry, &e.LastBounce} {
		*when = FromUnix(rapid.Int64Range(0, 1<<34).Draw(t, "when"))
	}
	for _, d := range []*time.Duration{&e.TTL, &e.BounceDelay, &e.BounceTTL} {
		*d = time.Duration(rapid.Int64Range(0, 1<<30).Draw(t, "span")) * time.Second
	}
	e.Source = drawSource(t)
	if !text {
		e.LocalUID = rapid.Uint32().Draw(t, "uid")
		return e
	}
	e.Source = netip.AddrPortFrom(e.Source.Addr(), 0)
	for _, a := range []*addr.Address{&e.Sender, &e.Rcpt, &e.Dest} {
		a.Domain = strings.ReplaceAll(a.Domain, "@", "")
	}
	if e.ESCClass == 0 {
		e.ESCCode = 0
	}
	if e.Type != MDA {
		e.MDAExec, e.MDAUser, e.MDASubaddress = "", "", ""
	}
	if e.Type != Bounce {
		e.BounceType = 0
	}
	if e.Type != Bounce || e.BounceType != BounceDelayed {
		e.BounceDelay, e.BounceTTL = 0, 0
	}
	return e
}

func drawSource(t *rapid.T) netip.AddrPort {
	port := rapid.Uint16().Draw(t, "port")
	switch rapid.IntRange(0, 3).Draw(t, "family") {
	case 0:
		return netip.AddrPort{}
	case 1:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(port)}), port)
	case 2:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(port)}), port)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(rapid.StringMatching(`[a-z0-9.]{1,15}`).Draw(t, "zone")), port)
}

func TestBinaryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEnvelope(t, false)
		var got Envelope
		if err := got.Parse(e.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if d := same(e, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEnvelope(t, true)
		b, err := e.AppendText(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseText(e.ID, b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if d := same(e, got); d != "" {
			t.Fatalf("%s\n%s", d, b)
		}
	})
}

// FuzzText: no bytes make the reader panic, and what it accepts survives being
// written and read again.
func FuzzText(f *testing.F) {
	for _, name := range []string{"mda-scoped.envelope", "bounce-delayed.envelope", "mta-ipv4.envelope"} {
		f.Add(read(f, name))
	}
	f.Add([]byte("version: 3\nsockaddr: [::ffff:1.2.3.4%x]\n"))
	f.Add([]byte("version: 2\nexpire: 3\nmta-relay: ssl://x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseText(testID, b)
		if err != nil {
			return
		}
		text, err := e.AppendText(nil)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := ParseText(testID, text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if second, err := again.AppendText(nil); err != nil || !bytes.Equal(second, text) {
			t.Fatalf("%v\n%s\n%s", err, text, second)
		}
	})
}

// FuzzBinary: the same for the compact form.
func FuzzBinary(f *testing.F) {
	for _, name := range []string{"mda-scoped.envelope", "bounce-delayed.envelope", "mta-ipv4.envelope"} {
		e, err := ParseText(testID, read(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Envelope
		if e.Parse(b) != nil {
			return
		}
		if err := again.Parse(e.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if d := same(e, again); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkAppendParse(b *testing.B) {
	e, err := ParseText(testID, read(b, "mda-scoped.envelope"))
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.Append(buf[:0])
		var got Envelope
		if err := got.Parse(buf); err != nil {
			b.Fatal(err)
		}
	}
}
