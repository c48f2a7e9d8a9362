package server

import (
	"bytes"
	"strings"
	"testing"

	"opensmtpd/src/mail/rfc5322"
	"opensmtpd/src/mailerr"
)

// readChunks feeds input to a body in chunks that end at cuts, and returns what
// was kept, the lines that a filter would see, and the refusal.
func readChunks(input []byte, filtered bool, cuts ...int) (kept string, lines []string, refused *mailerr.Error) {
	var out bytes.Buffer
	b := body{raw: true, head: rfc5322.Rewriter{}}
	b.chunk = func(p []byte) *mailerr.Error { out.Write(p); return nil }
	if filtered {
		b.line = func(p []byte) { lines = append(lines, string(p)) }
	}
	b.begin(newPools(), 1<<30)
	defer b.release()
	at := 0
	for _, cut := range append(cuts, len(input)) {
		if cut = min(max(cut, at), len(input)); cut > at {
			b.takeChunk(input[at:cut])
		}
		at = cut
	}
	b.closeLine()
	b.end()
	b.handOn()
	return out.String(), lines, b.err
}

func TestChunks(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		err            *mailerr.Error
	}{
		{"nothing", "", "", nil},
		{"dots", "A: b\r\n\r\n.\r\n..\r\n.x\r\n", "A: b\n\n.\n..\n.x\n", nil},
		{"no end", "A: b\r\n\r\nx", "A: b\n\nx\n", nil},
		{"ends in the header", "A: b", "A: b\n", nil},
		{"half an end", "A: b\r\n\r\nx\r", "", errBare},
		{"bare LF", "A: b\r\n\r\nx\ny\r\n", "", errBare},
		{"bare CR", "A: b\r\n\r\nx\ry\r\n", "", errBare},
		{"malformed", "no header\r\n", "", errMalformed},
		{"too long a line", "A: b\r\n\r\n" + strings.Repeat("x", MaxLine+1) + "\r\n", "", errLineLong},
		{"as long as may be", "A: b\r\n\r\n" + strings.Repeat("x", MaxLine) + "\r\n", "A: b\n\n" + strings.Repeat("x", MaxLine) + "\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for cut := range min(len(tc.in), 20) + 1 {
				kept, _, err := readChunks([]byte(tc.in), false, cut)
				if err != tc.err || err == nil && kept != tc.want {
					t.Fatalf("cut at %d: %q, %v", cut, kept, err)
				}
			}
		})
	}
}

// TestChunksToFilter holds that a filter sees the lines of DATA, whole, wherever
// chunks are cut.
func TestChunksToFilter(t *testing.T) {
	in := "A: b\r\n\r\n.\r\n.x\r\nend"
	for cut := range len(in) + 1 {
		_, lines, err := readChunks([]byte(in), true, cut, cut+1)
		if got := strings.Join(lines, "|"); got != "A: b||..|..x|end" || err != nil {
			t.Errorf("cut at %d: %q, %v", cut, got, err)
		}
	}
}

// FuzzChunks holds that a message in chunks is the message, wherever it is cut.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("A: b\r\n\r\n.\r\n..x\r\n"), 3, 9)
	f.Add([]byte("A: b\r\n\r\nx\r\n\r"), 10, 11)
	f.Add([]byte("A: b\n\nx\r\ry\n"), 0, 1)
	f.Add([]byte("A: b\r\n\r\n"+strings.Repeat("y", 70000)), 1000, 69000)
	f.Fuzz(func(t *testing.T, in []byte, one, two int) {
		whole, _, err := readChunks(in, false)
		kept, _, cutErr := readChunks(in, false, one, two)
		if kept != whole && err == nil || (err == nil) != (cutErr == nil) {
			t.Fatalf("cut at %d and %d: %q, %v; whole: %q, %v", one, two, kept, cutErr, whole, err)
		}
		if err != nil {
			return
		}
		// What DATA makes of the same message, stuffed.
		var wire bytes.Buffer
		for line := range bytes.Lines(in) {
			if line[0] == '.' {
				wire.WriteByte('.')
			}
			wire.Write(line)
		}
		if wire.Len() > 0 && !bytes.HasSuffix(in, []byte("\n")) {
			wire.WriteString("\r\n")
		}
		wire.WriteString(".\r\n")
		data, left, done, err := read(wire.Bytes(), inSize, "", 1<<30)
		if data != whole || left != 0 || !done || err != nil {
			t.Fatalf("DATA keeps %q, BDAT %q (%v)", data, whole, err)
		}
	})
}
