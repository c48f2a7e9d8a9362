package sendmail

import (
	"bytes"
	"errors"
	"io"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func fixed() identity {
	return identity{"me@host", "Me", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// added is what fixed puts before a message that has nothing.
const added = "From: Me <me@host>\r\nDate: Fri, 2 Jan 2026 03:04:05 +0000 (UTC)\r\n"

func render(t *testing.T, in io.Reader, id identity) string {
	t.Helper()
	m, err := read(in)
	if err != nil {
		t.Fatal(err)
	}
	defer m.body.Close()
	var out strings.Builder
	if err := m.writeTo(&out, id); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestMessage(t *testing.T) {
	const date = "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
	for _, tc := range []struct{ name, in, want string }{
		{"nothing", "", added + "\r\n"},
		{"body alone", "hello\nworld\n", added + "\r\nhello\r\nworld\r\n"},
		{"body without an end", "hello", added + "\r\nhello\r\n"},
		{"body that begins with a blank line", "\nhello\n", added + "\r\n\r\nhello\r\n"},
		{"header and body", "Subject: x\nX-Y: z\n\nbody\n", added + "Subject: x\r\nX-Y: z\r\n\r\nbody\r\n"},
		{"CRLF", "Subject: x\r\n\r\nbody\r\n\r\n", added + "Subject: x\r\n\r\nbody\r\n\r\n"},
		{"CRCRLF", "Subject: x\r\r\n\r\r\nbody\r\r\n", added + "Subject: x\r\n\r\nbody\r\n"},
		{"CR alone", "Subject: a\rb\n\nc\rd\n", added + "Subject: a b\r\n\r\nc d\r\n"},
		{"mixed ends", "Subject: x\r\nTo: y\n\r\nbody\n", added + "Subject: x\r\nTo: y\r\n\r\nbody\r\n"},
		{"no blank line", "Subject: x\nTo: y\nthen text\nmore\n", added + "Subject: x\r\nTo: y\r\n\r\nthen text\r\nmore\r\n"},
		{"header alone", "Subject: x\n", added + "Subject: x\r\n\r\n"},
		{"text with a colon", "Note: this is text\n", added + "\r\nNote: this is text\r\n"},
		{"unknown fields and a blank line", "X-Note: a\n\nb\n", added + "X-Note: a\r\n\r\nb\r\n"},
		{"Bcc goes", "Bcc: a,\n b\nSubject: x\nbCC: c\n\nbody\n", added + "Subject: x\r\n\r\nbody\r\n"},
		{"Return-Path goes", "Return-Path: <a@b>\nSubject: x\n\n", added + "Subject: x\r\n\r\n"},
		{"mbox line goes", "From root Thu Jan 1\nSubject: x\n\nFrom y\n", added + "Subject: x\r\n\r\nFrom y\r\n"},
		{"From and Date stay", "from: a@b\ndate: x\n\nc\n", "from: a@b\r\ndate: x\r\n\r\nc\r\n"},
		{"Date alone", date[:len(date)-2] + "\n\n", "From: Me <me@host>\r\n" + date + "\r\n"},
		{"continuation first", " x\nSubject: y\n\n", added + "\r\n x\r\nSubject: y\r\n\r\n"},
		{"dots are not for us", "Subject: x\n\n.\n..\n", added + "Subject: x\r\n\r\n.\r\n..\r\n"},
		{"8 bit", "Subject: x\n\n\xe9\x00\n", added + "Subject: x\r\n\r\n\xe9\x00\r\n"},
	} {
		if got := render(t, strings.NewReader(tc.in), fixed()); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if got := render(t, iotest.OneByteReader(strings.NewReader(tc.in)), fixed()); got != tc.want {
			t.Errorf("%s, byte by byte: got %q", tc.name, got)
		}
	}
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("long=line ", 500)
	mime := "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" +
		"Content-Disposition: inline\r\nContent-Transfer-Encoding: quoted-printable\r\n"
	got := render(t, strings.NewReader("Subject: x\n\n.\n"+long+"\nend\xe9\n"), fixed())
	head, body, _ := strings.Cut(got, "\r\n\r\n")
	if want := added + mime + "Subject: x"; head != want {
		t.Errorf("header %q, want %q", head, want)
	}
	for line := range strings.Lines(body) {
		if len(line) > 78 || !strings.HasSuffix(line, "\r\n") {
			t.Errorf("line %q", line)
		}
	}
	plain, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
	if want := ".\r\n" + long + "\r\nend\xe9\r\n"; string(plain) != want || err != nil {
		t.Errorf("decodes to %q, %v", plain, err)
	}
	// These say how they are encoded, or may not be.
	for _, field := range []string{
		"Content-Transfer-Encoding: 8bit", "Content-Type: multipart/mixed; boundary=x", "Content-Type: MESSAGE/rfc822",
	} {
		want := added + field + "\r\n\r\n" + long + "\r\n"
		if got := render(t, strings.NewReader(field+"\n\n"+long+"\n"), fixed()); got != want {
			t.Errorf("%s: got %.200q", field, got)
		}
	}
	for _, n := range []int{longLine - 1, longLine} {
		got := render(t, strings.NewReader(strings.Repeat("x", n)), fixed())
		if encoded := strings.Contains(got, "quoted-printable"); encoded != (n == longLine) {
			t.Errorf("%d bytes: encoded %v", n, encoded)
		}
	}
}

// TestLarge sends a body that does not stay in memory, and a line without end.
func TestLarge(t *testing.T) {
	line := strings.Repeat("0123456789", 7) + "\n"
	text := strings.Repeat(line, 3*inMemory/len(line))
	want := added + "Subject: x\r\n\r\n" + strings.ReplaceAll(text, "\n", "\r\n")
	if got := render(t, strings.NewReader("Subject: x\n\n"+text), fixed()); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	m, err := read(strings.NewReader(strings.Repeat("x", 2*inMemory)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.body.Close()
	if !m.long || m.body.file == nil || len(m.header.fields) != 0 {
		t.Error("a line of 2 MiB is not what it is")
	}
	// It can be read again, for dead.letter.
	for range 2 {
		m.body.Rewind()
		n, err := io.Copy(io.Discard, m.body)
		if n != 2*inMemory+1 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

func TestHugeHeader(t *testing.T) {
	in := "Subject: x\n" + strings.Repeat("X-Filler: 0123456789\n", maxHeader/20) + "\nbody\n"
	m, err := read(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	defer m.body.Close()
	size := 0
	for _, f := range m.header.fields {
		size += len(f.text)
	}
	if size > maxHeader {
		t.Errorf("%d bytes of header are kept", size)
	}
}

func TestReadFails(t *testing.T) {
	bad := errors.New("bad")
	for _, in := range []string{"", "Subject: x\n", "Subject: x\n\nbody\n"} {
		if _, err := read(io.MultiReader(strings.NewReader(in), iotest.ErrReader(bad))); !errors.Is(err, bad) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestDisplayName(t *testing.T) {
	for in, want := range map[string]string{
		"Joe User":      "Joe User",
		"Joe \"X\" U.":  `"Joe \"X\" U."`,
		"Jörg":          "=?utf-8?q?J=C3=B6rg?=",
		"a\r\nBcc: x":   `"aBcc: x"`,
		"O'Neil & Sons": "O'Neil & Sons",
	} {
		got := displayName(in)
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if _, err := mail.ParseAddress(got + " <a@b>"); err != nil {
			t.Errorf("%q: %v", got, err)
		}
	}
	if got := fullName(User{Login: "joe", Gecos: "& User,Room 1"}); got != "Joe User" {
		t.Errorf("full name %q", got)
	}
}

// FuzzMessage holds that what goes out has lines of CRLF alone, and the body
// that came in.
func FuzzMessage(f *testing.F) {
	f.Add([]byte("Subject: x\r\n\r\nbody\n"))
	f.Add([]byte("From x\nTo: y\n z\n\n.\r\r\n"))
	f.Add(bytes.Repeat([]byte("x"), 1000))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := render(t, bytes.NewReader(in), fixed())
		rest := strings.ReplaceAll(got, "\r\n", "")
		if strings.ContainsAny(rest, "\r\n") {
			t.Fatalf("%q yields %q", in, got)
		}
		if !strings.HasSuffix(got, "\r\n") {
			t.Fatalf("%q yields %q, whose last line has no end", in, got)
		}
		if again := render(t, iotest.HalfReader(bytes.NewReader(in)), fixed()); again != got {
			t.Fatalf("%q yields %q or %q", in, got, again)
		}
	})
}
