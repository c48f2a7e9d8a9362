package server

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/clock"
)

func plain(user, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))
}

// authRig is one whose listener offers AUTH.
func authRig(t testing.TB) *rig {
	r := newRig(t)
	r.ln.Auth, r.ln.AuthClear = AuthOptional, true
	return r
}

// TestAuthLineLength: RFC 4954 section 4.3 wants 12,288 bytes, line end included,
// of AUTH and of what follows it; other commands stay short.
func TestAuthLineLength(t *testing.T) {
	fill := func(head string, n int) string { return head + strings.Repeat("A", n-len(head)-2) }
	for _, tc := range []struct {
		lines []string
		want  string // the start of the last reply
	}{
		{[]string{fill("AUTH PLAIN ", MaxAuth)}, "501 5.5.2"},
		{[]string{fill("auth plain ", MaxAuth+1)}, "500 5.5.2 Syntax error: Command line too long"},
		{[]string{"AUTH PLAIN", fill("", MaxAuth)}, "501 5.5.2"},
		{[]string{"AUTH PLAIN", fill("", MaxAuth+1)}, "500 5.5.2 Syntax error: Command line too long"},
		{[]string{"AUTH PLAIN", fill("", MaxAuth+1), "NOOP"}, "250"}, // the exchange is over
		{[]string{fill("NOOP ", MaxCommand+1)}, "500"},
		{[]string{plain("bob", strings.Repeat("x", maxPassword+1))}, "501"},
		{[]string{plain(strings.Repeat("x", maxUser+1), "x")}, "501"},
		{[]string{plain(strings.Repeat("x", maxUser), strings.Repeat("X", maxUser))}, "235"},
	} {
		r := authRig(t)
		nc := r.dial(t)
		in := bufio.NewReader(nc)
		got := answer(t, in)
		for _, line := range append([]string{"EHLO c.example.org"}, tc.lines...) {
			if _, err := io.WriteString(nc, line+"\r\n"); err != nil {
				t.Fatal(err)
			}
			got = answer(t, in)
		}
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%d lines, the last of %d bytes: %q, want %q", len(tc.lines), len(tc.lines[len(tc.lines)-1]), got, tc.want)
		}
		nc.Close()
	}
}

// TestErrata74LinkAuth: filters hear of results, and never of passwords but in the
// request that is for them. 7.4 link-auth: the user comes last, so that a bar in
// it shifts nothing.
func TestErrata74LinkAuth(t *testing.T) {
	r := authRig(t)
	f := &scripted{}
	r.ln.Filter = f
	nc := r.dial(t)
	in := bufio.NewReader(nc)
	answer(t, in)
	say := func(line string) {
		if _, err := io.WriteString(nc, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	say("EHLO c.example.org")
	answer(t, in)
	say(plain("a|pass", "wrong"))
	r.clk.BlockUntil(2)
	r.clk.Advance(time.Second)
	answer(t, in)
	say("AUTH LOGIN")
	answer(t, in)
	say(base64.StdEncoding.EncodeToString([]byte("a|pass")))
	answer(t, in)
	say(base64.StdEncoding.EncodeToString([]byte("A|PASS")))
	answer(t, in)
	nc.Close()
	<-r.mem.done
	wrong := strings.TrimPrefix(plain("a|pass", "wrong"), "AUTH ")
	i := slices.Index(f.heard, "tell < AUTH PLAIN ********")
	if i < 0 {
		t.Fatalf("%q", f.heard)
	}
	want := []string{
		"tell < AUTH PLAIN ********", fmt.Sprintf("ask %d %s", PhaseAuth, wrong), "tell response proceed", "tell auth fail|a|pass", "tell > 535 Authentication failed",
		"tell < AUTH LOGIN", fmt.Sprintf("ask %d LOGIN", PhaseAuth), "tell response proceed", "tell > 334 VXNlcm5hbWU6",
		"tell < ********", "tell > 334 UGFzc3dvcmQ6",
		"tell < ********", "tell auth pass|a|pass", "tell > 235 2.0.0 Authentication succeeded",
		"tell disconnect",
	}
	if diff := cmp.Diff(want, f.heard[i:]); diff != "" {
		t.Error(diff)
	}
}

func TestGuesses(t *testing.T) {
	clk := clock.NewFake(birthday)
	g := guesses{clock: clk}
	a := netip.MustParseAddr("192.0.2.1")
	var waits []time.Duration
	for range maxGuesses {
		if !g.begin(a) {
			t.Fatal("refused too early")
		}
		waits = append(waits, g.end(a, true))
	}
	if diff := cmp.Diff([]time.Duration{1e9, 2e9, 4e9, 8e9, 8e9}, waits[:5]); diff != "" || waits[maxGuesses-1] != lastWait {
		t.Error(diff, waits[maxGuesses-1])
	}
	if g.begin(a) {
		t.Error("one too many may guess")
	}
	if !g.begin(netip.MustParseAddr("192.0.2.2")) {
		t.Error("a neighbour may not")
	}
	clk.Advance(guessMemory)
	if !g.begin(a) {
		t.Error("never forgiven")
	}
	if w := g.end(a, true); w != firstWait {
		t.Error(w)
	}
	// Those that wait for a verdict count: a thousand connections are no way to
	// guess a thousand times.
	b := netip.MustParseAddr("2001:db8::1")
	for range maxGuesses {
		if !g.begin(b) {
			t.Fatal("refused too early")
		}
	}
	if g.begin(netip.MustParseAddr("2001:db8::2")) {
		t.Error("another address of the same network may")
	}
	if !g.begin(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Error("the next network may not")
	}
	for range maxGuesses {
		g.end(b, false)
	}
	if len(g.of) != 3 {
		t.Errorf("%d remembered, want a, its neighbour and the next network", len(g.of))
	}
	for range 10 * maxGuesses {
		for _, local := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
			l := netip.MustParseAddr(local)
			if !g.begin(l) {
				t.Fatal("this machine is locked out")
			}
			g.end(l, true)
		}
	}
}

func TestGuessesAreBounded(t *testing.T) {
	clk := clock.NewFake(birthday)
	g := guesses{clock: clk}
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range maxGuessers + 500 {
		g.begin(at(i))
		g.end(at(i), true)
		clk.Advance(time.Millisecond)
	}
	if len(g.of) > maxGuessers {
		t.Errorf("%d addresses", len(g.of))
	}
	p, _ := Customer(at(maxGuessers + 499))
	if g.of[p] == nil {
		t.Error("the newest was forgotten")
	}
}

// TestBruteForce: many sessions of one address.
func TestBruteForce(t *testing.T) {
	r := authRig(t)
	for range maxGuesses {
		if !r.guesses.begin(r.local.Addr()) {
			t.Fatal()
		}
		r.guesses.end(r.local.Addr(), true)
	}
	nc := r.dial(t)
	in := bufio.NewReader(nc)
	answer(t, in)
	for _, line := range []string{"EHLO c.example.org", plain("bob", "BOB")} {
		if _, err := io.WriteString(nc, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		answer(t, in)
	}
	if len(r.mem.asked) != 0 || !strings.Contains(r.log.String(), "454 4.7.0 Too many authentication failures, try again later") {
		t.Errorf("%v\n%v", r.mem.asked, r.log)
	}
}

func TestWithoutSecret(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"NOOP secret", "NOOP secret"}, {"AUTH", "AUTH"}, {"AUTH LOGIN", "AUTH LOGIN"}, {"auth login", "auth login"},
		{"AUTH PLAIN secret", "AUTH PLAIN *"}, {"auth plain secret", "AUTH PLAIN *"}, {"AUTH  PLAIN  secret", "AUTH PLAIN *"},
		{"AUTH\tPLAIN\tsecret", "AUTH PLAIN *"}, {"AUTHPLAIN secret", "AUTHPLAIN *"}, {"AUTH=PLAIN secret x", "AUTH=PLAIN *"},
		{"AUT", "AUT"}, {"", ""},
	} {
		if got := withoutSecret(tc.in, "*"); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}

// FuzzAuth throws anything at a session that offers AUTH. Nobody is verified
// whose name could not stand in a line.
func FuzzAuth(f *testing.F) {
	f.Add([]byte("AUTH PLAIN AGJvYgBCT0I=\r\nMAIL FROM:<bob@example.org>\r\n"))
	f.Add([]byte("AUTH PLAIN\r\nAGJvYgBCT0I=\r\nAUTH LOGIN\r\n"))
	f.Add([]byte("AUTH LOGIN\r\nYm9i\r\nQk9C\r\nEHLO y\r\nAUTH LOGIN\r\n*\r\n"))
	f.Add([]byte("AUTH LOGIN =\r\n=\r\n\r\nAUTH LOGIN Ym9i\r\nQk9C\r\nNOOP\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		r := authRig(t)
		throwAt(t, r, append([]byte("EHLO x\r\n"), input...))
		for _, asked := range r.mem.asked {
			if strings.ContainsAny(asked, "\r\n\x00") || len(asked) > maxUser+1+maxPassword {
				t.Errorf("%q leads to %q", input, asked)
			}
		}
	})
}
