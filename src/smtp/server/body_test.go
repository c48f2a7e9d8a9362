package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/mail/rfc5322"
	"opensmtpd/src/mailerr"
)

// read feeds input to a body in pieces of the given size, as readBody does with
// what has come, and returns what was kept, how much input was left, whether the
// end was seen, and the refusal.
func read(input []byte, piece int, domain string, max int64) (kept string, left int, done bool, refused *mailerr.Error) {
	var out bytes.Buffer
	var b body
	b.head = rfc5322.Rewriter{Domain: domain}
	b.chunk = func(p []byte) *mailerr.Error { out.Write(p); return nil }
	b.begin(newPools(), max)
	defer b.release()
	var buf []byte
	for len(input) > 0 && !done {
		n := min(piece, len(input), inSize-len(buf))
		buf = append(buf, input[:n]...)
		input = input[n:]
		var used int
		used, done = b.take(buf)
		buf = buf[used:]
	}
	if done {
		b.end()
		b.handOn()
	}
	return out.String(), len(input) + len(buf), done, b.err
}

func TestBody(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		err            *mailerr.Error
	}{
		{"empty", ".\r\n", "", nil},
		{"body", "A: b\r\n\r\nx\r\n.\r\n", "A: b\n\nx\n", nil},
		{"dots", "\r\n..\r\n...\r\n..x\r\n.y\r\n.\r\n", "\n.\n..\n.x\ny\n", nil},
		{"dots in header", "..A: b\r\n\r\n.\r\n", ".A: b\n\n", nil},
		{"spaces at the end", "\r\nx \t\r\n \r\n.\r\n", "\nx \t\n \n", nil},
		{"bare LF", "\r\na\nb\r\n.\r\n", "", errBare},
		{"bare CR", "\r\na\rb\r\n.\r\n", "", errBare},
		{"two CR", "\r\na\r\r\n.\r\n", "", errBare},
		{"CR at the start", "\r\n\ra\r\n.\r\n", "", errBare},
		{"bare LF in header", "A: b\nC: d\r\n\r\n.\r\n", "", errBare},
		{"bare CR in header", "A: b\rC: d\r\n\r\n.\r\n", "", errBare},
		{"LF alone", "\n\r\n.\r\n", "", errBare},
		{"malformed", "no header\r\n.\r\n", "", errMalformed},
		{"loop", strings.Repeat("Received: x\r\n", 100) + "\r\n.\r\n", "", errLoop},
		{"first error stays", "no header\r\na\nb\r\n.\r\n", "", errMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for piece := 1; piece <= len(tc.in); piece++ {
				kept, left, done, err := read([]byte(tc.in), piece, "", 1<<20)
				if err != tc.err || left != 0 || !done || err == nil && kept != tc.want {
					t.Fatalf("in pieces of %d: %q, %d left, done %v, %v", piece, kept, left, done, err)
				}
			}
		})
	}
}

// TestSmuggling holds that no other end of data than CR LF . CR LF is one, and
// that a message with such in it is refused (CVE-2023-51764, 51765, 51766,
// 52354).
func TestSmuggling(t *testing.T) {
	ends := []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\x00", "\x00\r\n"}
	for _, before := range ends {
		for _, after := range ends {
			for _, dot := range []string{".", "..", ".\x00", ". "} {
				mark := before + dot + after
				if strings.Contains(mark, "\r\n.\r\n") {
					continue
				}
				smuggle(t, mark)
			}
		}
	}
}

// smuggle sends a message that contains mark and behind it a second transaction,
// and wants one message or one refusal.
func smuggle(t *testing.T, mark string) {
	t.Helper()
	in := "Subject: x\r\n\r\nx" + mark + "MAIL FROM:<evil@example.org>\r\nRCPT TO:<v@example.org>\r\nDATA\r\n\r\nsmuggled\r\n.\r\n"
	for _, piece := range []int{1, 7, len(in)} {
		kept, left, done, err := read([]byte(in), piece, "", 1<<20)
		if !done || left != 0 {
			t.Errorf("%q: done %v, %d left", mark, done, left)
		}
		if err == nil && !strings.Contains(kept, "MAIL FROM:<evil@example.org>\n") {
			t.Errorf("%q: kept %q", mark, kept)
		}
		if clean := strings.ReplaceAll(mark, "\r\n", ""); strings.ContainsAny(clean, "\r\n") && err != errBare {
			t.Errorf("%q: %v", mark, err)
		}
	}
}

// TestHeaderGain holds that completing addresses cannot blow a message up.
func TestHeaderGain(t *testing.T) {
	line := "To: " + strings.Repeat("a,", 30000) + "a\r\n"
	in := strings.Repeat(line, 8) + "\r\n.\r\n"
	kept, _, done, err := read([]byte(in), inSize, strings.Repeat("d", 200), 1<<20)
	if err != errTooBig || !done || len(kept) > 1<<20+gain {
		t.Errorf("%d bytes of %d bytes, done %v, %v", len(kept), len(in), done, err)
	}
}

func TestSizeLimit(t *testing.T) {
	for _, tc := range []struct {
		size int
		err  *mailerr.Error
	}{{100000, nil}, {100001, errTooBig}} {
		text := "A: b\n\n" + strings.Repeat("0123456789abcdefghi\n", 6000)
		text = text[:tc.size-1] + "\n"
		in := strings.ReplaceAll(text, "\n", "\r\n") + ".\r\n"
		kept, _, done, err := read([]byte(in), 5000, "", 100000)
		if err != tc.err || !done || err == nil && kept != text {
			t.Errorf("%d bytes: %v, done %v, kept %d", tc.size, err, done, len(kept))
		}
	}
}

// reference reads a body in the plainest way: whole lines, one at a time.
func reference(in []byte) (kept string, left int, done, bare bool) {
	unended := false // the last line ended in a bare LF
	var out strings.Builder
	for {
		i := bytes.IndexByte(in, '\n')
		if i < 0 {
			return "", len(in), false, false
		}
		line := in[:i+1]
		in = in[i+1:]
		if !unended && string(line) == ".\r\n" {
			return out.String(), len(in), true, bare
		}
		text, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || bytes.ContainsAny(text, "\r\n") {
			bare = true
		}
		unended = !ok
		out.Write(bytes.TrimPrefix(text, []byte(".")))
		out.WriteByte('\n')
	}
}

// FuzzBody holds that the fast reader finds what the plain one does, in pieces
// of any size.
func FuzzBody(f *testing.F) {
	f.Add([]byte("\r\nx\r\n..\r\n.\r\nNOOP\r\n"), 3)
	f.Add([]byte("\r\nx\r.\n.\r\n.\r\r\n.\r\n"), 1)
	f.Add([]byte("\r\n"+strings.Repeat("y", 70000)+"\r\n.\r\n"), 1000)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		in = append([]byte("\r\n"), in...) // in the body at once
		if piece < 1 {
			piece = 1
		}
		want, left, done, bare := reference(in)
		got, l, d, err := read(in, piece, "", 1<<30)
		if d != done || done && l != left {
			t.Fatalf("done %v with %d left, want %v with %d", d, l, done, left)
		}
		if done && (err == errBare) != bare && err != errLineLong {
			t.Fatalf("refused %v, bare %v", err, bare)
		}
		if done && err == nil && got != want {
			t.Fatalf("kept %q, want %q", got, want)
		}
	})
}

func ExampleSession_protocol() {
	s := &Session{Listener: &Listener{Socket: true}, ESMTP: true}
	fmt.Println(s.protocol())
	// Output: ESMTPA
}
