package client

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/mailerr"
)

// canned is a connection on which everything that the server will ever say is
// there already, in pieces, and on which what the client says is kept.
type canned struct {
	net.Conn
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(c.in), max(c.piece, 1))
	copy(p, c.in[:n])
	c.in = c.in[n:]
	return n, nil
}

func (c *canned) Write(p []byte) (int, error) { return c.out.Write(p) }

func patience(time.Duration) {}

func TestReply(t *testing.T) {
	for in, want := range map[string]Reply{
		"250 ok\r\n":                       {250, mailerr.Enhanced{}, "ok"},
		"250\r\n":                          {250, mailerr.Enhanced{}, ""},
		"250\n":                            {250, mailerr.Enhanced{}, ""},
		"250 2.1.5\r\n":                    {250, mailerr.Enhanced{2, 1, 5}, ""},
		"550 5.1.1 no\r\n":                 {550, mailerr.Enhanced{5, 1, 1}, "no"},
		"550-5.1.1 a\r\n550 5.1.1 b\r\n":   {550, mailerr.Enhanced{5, 1, 1}, "a b"},
		"550-a\r\n550 5.1.1 b\r\n":         {550, mailerr.Enhanced{}, "a b"},
		"550 4.1.1 wrong\r\n":              {550, mailerr.Enhanced{}, "wrong"},
		"550 5.1111.1 long\r\n":            {550, mailerr.Enhanced{}, "5.1111.1 long"},
		"550 5.1.1x\r\n":                   {550, mailerr.Enhanced{}, "5.1.1x"},
		"451 \x00\x07\r\xff\r\n":           {451, mailerr.Enhanced{}, "?"},
		"451 \xc2\x85caf\xc3\xa9\r\n":      {451, mailerr.Enhanced{}, "café"},
		"250-" + "\r\n250 last\r\n":        {250, mailerr.Enhanced{}, "last"},
		"553-\r\n553\r\n":                  {553, mailerr.Enhanced{}, ""},
		"220 " + strings.Repeat("x", 2000): {},
	} {
		for _, piece := range []int{1, 3, 4096} {
			c := New(&canned{in: []byte(in), piece: piece}, patience)
			got, err := c.reply(wordy)
			if (err != nil) != (want == Reply{}) || err == nil && got != want {
				t.Errorf("%q: %+v, %v", in, got, err)
			}
		}
	}
}

func TestBody(t *testing.T) {
	for in, want := range map[string]string{
		"":               ".\r\n",
		"a\n":            "a\r\n.\r\n",
		"a":              "a\r\n.\r\n",
		".\n":            "..\r\n.\r\n",
		"..a\n.b":        "...a\r\n..b\r\n.\r\n",
		"a\r\nb\r\n":     "a\r\nb\r\n.\r\n",
		"a\rb\n":         "a b\r\n.\r\n",
		"a\r\r\n":        "a \r\n.\r\n",
		"a\r":            "a \r\n.\r\n",
		"\r.\r\n":        " .\r\n.\r\n",
		"\n\n":           "\r\n\r\n.\r\n",
		"a\n.\r\nMAIL\n": "a\r\n..\r\nMAIL\r\n.\r\n",
	} {
		for piece := 1; piece <= len(in)+1; piece++ {
			nc := &canned{in: []byte("250 ok\r\n"), piece: 100}
			c := New(nc, patience)
			c.Open()
			for rest := []byte(in); len(rest) > 0; {
				n := min(piece, len(rest))
				if err := c.Body(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if r, err := c.End(1); err != nil || !r[0].OK() {
				t.Fatal(r, err)
			}
			if got := nc.out.String(); got != want {
				t.Errorf("%q in pieces of %d: %q, want %q", in, piece, got, want)
			}
		}
	}
}

// A command that would be two is not sent.
func TestNoSecondLine(t *testing.T) {
	for _, pipe := range []bool{false, true} {
		for _, bad := range []string{"a\r\nRCPT TO:<x>", "a\nb", "a\rb"} {
			for i := range 4 {
				tr := &Transaction{From: "a@b", EnvID: "x", Rcpts: []Rcpt{{To: "c@d", ORcpt: "rfc822;c@d"}}}
				*[]*string{&tr.From, &tr.EnvID, &tr.Rcpts[0].To, &tr.Rcpts[0].ORcpt}[i] = bad
				nc := &canned{in: []byte("250 a\r\n250 b\r\n354 c\r\n"), piece: 1 << 10}
				c := New(nc, patience)
				c.ext = Extensions{Pipelining: pipe, DSN: true}
				if !pipe {
					nc.piece = 7 // one reply at a time
				}
				if _, err := c.Begin(tr); err != errLine {
					t.Errorf("pipelining %v, %q at %d: %v, sent %q", pipe, bad, i, err, nc.out.String())
				}
				if strings.Contains(nc.out.String(), bad) {
					t.Errorf("sent %q", nc.out.String())
				}
			}
		}
	}
}

// FuzzReplies lets a server say anything through a whole session.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("220 x\r\n250-x\r\n250-SIZE 10\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n221 bye\r\n"), 1)
	f.Add([]byte("220-\r\n220\r\n250 \x00\r\n550-5.1.1 a\r\n550 5.1.1 b\r\n"), 7)
	f.Add([]byte("553-\r\n553\r\ntype: mda\r\nmda-exec: id\r\n"), 100)
	f.Add([]byte("220 x\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n421 4.3.2 no\r\n"), 4096)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		nc := &canned{in: in, piece: piece}
		c := New(nc, patience)
		check := func(r Reply) {
			if len(r.Text) > 4*maxText || strings.ContainsAny(r.Text, "\r\n\x00") {
				t.Errorf("text of %d bytes: %q", len(r.Text), r.Text)
			}
			if r.Code != 0 && (r.Code < 200 || r.Code > 599) {
				t.Errorf("code %d", r.Code)
			}
		}
		r, err := c.Greeting()
		if check(r); err != nil {
			return
		}
		r, err = c.Hello("EHLO", "x")
		if check(r); err != nil {
			return
		}
		a, err := c.Begin(&Transaction{From: "a@b", Size: 5, Rcpts: []Rcpt{{To: "c@d"}, {To: "e@f"}}})
		check(a.Mail)
		check(a.Data)
		for i := range a.Rcpts {
			check(a.Rcpts[i])
		}
		if len(a.Rcpts) > 2 || a.Accepted() > len(a.Rcpts) {
			t.Errorf("%d replies", len(a.Rcpts))
		}
		if err != nil || a.Accepted() == 0 {
			return
		}
		c.Open()
		if err := c.Body([]byte("x\n")); err != nil {
			t.Fatal(err)
		}
		last, err := c.End(a.Accepted())
		for i := range last {
			check(last[i])
		}
		if err == nil && len(last) != 1 {
			t.Errorf("%d replies at the end", len(last))
		}
	})
}

// FuzzBody: nothing that leaves has a bare CR or LF, or a line that is a dot
// before the last.
func FuzzBody(f *testing.F) {
	f.Add([]byte("a\r\n.\r\nMAIL FROM:<x>\r\n"), 3)
	f.Add([]byte("\r.\n\n.\r.\r\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		nc := &canned{in: []byte("250 ok\r\n"), piece: 100}
		c := New(nc, patience)
		c.Open()
		for rest := in; len(rest) > 0; {
			n := min(max(piece, 1), len(rest))
			if err := c.Body(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if _, err := c.End(1); err != nil {
			t.Fatal(err)
		}
		out := nc.out.String()
		if !strings.HasSuffix(out, ".\r\n") || out != ".\r\n" && !strings.HasSuffix(out, "\r\n.\r\n") {
			t.Fatalf("ends in %q", out)
		}
		rest := strings.ReplaceAll(out, "\r\n", "")
		if strings.ContainsAny(rest, "\r\n") {
			t.Errorf("%q has a bare CR or LF", out)
		}
		if text := "\r\n" + strings.TrimSuffix(out, ".\r\n"); strings.Contains(text, "\r\n.\r\n") {
			t.Errorf("%q ends early", out)
		}
	})
}
