package server

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const script = "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<list@example.com>\r\nDATA\r\nSubject: cut\r\n\r\nbody\r\n..\r\n.\r\n"

// TestDisconnectAnywhere cuts a session after every byte: nothing is left
// behind, and a message is there only if it was whole.
func TestDisconnectAnywhere(t *testing.T) {
	r := newRig(t)
	for at := range len(script) + 1 {
		nc := r.dial(t)
		if at > 0 {
			greeting(t, nc)
		}
		if _, err := io.WriteString(nc, script[:at]); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		<-r.mem.done
		if n := r.mem.pending(); n != 0 {
			t.Fatalf("cut after %q: %d messages neither kept nor discarded", script[:at], n)
		}
	}
	if n := len(r.mem.accepted()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func greeting(t *testing.T, nc net.Conn) {
	t.Helper()
	b := make([]byte, 1)
	for b[0] != '\n' {
		if _, err := nc.Read(b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDrip feeds a session byte by byte: over a pipe, where each byte is read on
// its own, and over a socket.
func TestDrip(t *testing.T) {
	r := newRig(t)
	pipe, nc := net.Pipe()
	defer pipe.Close()
	r.Serve(nc, r.ln, Client{Addr: r.local})
	for i, client := range []net.Conn{pipe, r.dial(t)} {
		in := bufio.NewReader(client)
		if got := answer(t, in); !strings.HasPrefix(got, "220") {
			t.Errorf("client %d: got %q, want 220", i, got)
		}
		go func() {
			for i := range len(script) {
				if _, err := io.WriteString(client, script[i:i+1]); err != nil {
					return // the replies tell
				}
			}
		}()
		for _, want := range []string{"250 HELP", "250 2.0.0", "250 2.1.5", "354", "250 2.0.0"} {
			if got := answer(t, in); !strings.HasPrefix(got, want) {
				t.Errorf("client %d: got %q, want %s", i, got, want)
			}
		}
	}
	all := r.mem.accepted()
	if len(all) != 2 {
		t.Fatalf("%d messages", len(all))
	}
	for _, m := range all {
		if !strings.HasSuffix(m.body.String(), "Subject: cut\n\nbody\n.\n") {
			t.Errorf("kept %q", m.body.String())
		}
	}
}

// TestTurnedAwayHoldsNoPlace: a client that has too many sessions does not keep
// those that it was refused, by not closing them.
func TestTurnedAwayHoldsNoPlace(t *testing.T) {
	r := newRig(t)
	r.local = netip.MustParseAddrPort("192.0.2.66:1")
	client := r.dial(t)
	if got := answer(t, bufio.NewReader(client)); !strings.HasPrefix(got, "421") {
		t.Errorf("got %q", got)
	}
	<-r.mem.done // while the clock stands still and the client is there
}

// TestNeverReads holds that a client which asks and does not read costs a bounded
// amount, and its time ends.
func TestNeverReads(t *testing.T) {
	r := newRig(t)
	nc := r.dial(t)
	if err := nc.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	asked := make(chan int)
	go func() {
		block, n := bytes.Repeat([]byte("HELP\r\n"), 1000), 0
		for {
			m, err := nc.Write(block)
			if n += m; err != nil {
				asked <- n
				return
			}
		}
	}()
	// The server is stuck once the sweep finds it so, five minutes later.
	r.outlast(idleTime / 10)
	nc.Close()
	<-asked
	if !strings.Contains(r.log.String(), "disconnected reason=") {
		t.Errorf("log:\n%v", r.log)
	}
	if c := r.mem; c.pending() != 0 {
		t.Errorf("%d pending", c.pending())
	}
}

// TestOthersAreServed shows that clients who hold on to everything they can do
// not keep a new one waiting (CVE-2013-2125).
func TestOthersAreServed(t *testing.T) {
	r := newRig(t)
	for i := range 200 {
		nc := r.dial(t)
		if i%2 == 0 {
			greeting(t, nc)
			_, _ = io.WriteString(nc, script[:len(script)-5])
		}
	}
	greeting(t, r.dial(t))
}

func TestEarlyTalker(t *testing.T) {
	for _, first := range []string{"EHLO x\r\n", "GET / HTTP/1.1\r\n", "\n"} {
		r := newRig(t)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		// It has talked before the session begins, and it has arrived.
		if _, err := io.WriteString(client, first); err != nil {
			t.Fatal(err)
		}
		arrived(t, nc)
		r.Serve(nc, r.ln, Client{Addr: r.local})
		in := bufio.NewReader(client)
		if got := answer(t, in); got != earlyTalker.String() {
			t.Errorf("%q: %q", first, got)
		}
		if line, err := in.ReadString('\n'); err != io.EOF {
			t.Errorf("%q: then %q, %v", first, line, err)
		}
		client.Close()
	}
}

// interloper is a Filter that does something in a phase.
type interloper struct {
	scripted
	at Phase
	do func(*Session)
}

func (f *interloper) Phase(ctx context.Context, s *Session, p Phase, param string) Verdict {
	if p == f.at {
		f.do(s)
	}
	return f.scripted.Phase(ctx, s, p, param)
}

// TestLastReply has a line come that the server does not read any more: behind
// the last reply comes the end of the connection and not a reset, which might
// overtake it.
func TestLastReply(t *testing.T) {
	for _, tc := range []struct {
		say, want string
		at        Phase
		stop      bool
	}{
		{"QUIT\r\n", "221 2.0.0 Bye\r\n", PhaseQuit, false},
		{"NOOP\r\n", "250 2.0.0 Ok\r\n" + shuttingDown.String() + "\r\n", PhaseNoop, true},
	} {
		r := newRig(t)
		clients, stopped := make(chan net.Conn, 1), make(chan struct{})
		r.ln.Filter = &interloper{at: tc.at, do: func(s *Session) {
			if _, err := io.WriteString(<-clients, "HELP\r\n"); err != nil {
				t.Error(err)
			}
			arrived(t, s.in.nc)
			go func() {
				defer close(stopped)
				if tc.stop {
					r.Stop(context.Background())
				}
			}()
			if tc.stop {
				<-r.stop
			}
		}}
		client := r.dial(t)
		clients <- client
		greeting(t, client)
		if _, err := io.WriteString(client, tc.say); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); string(got) != tc.want || err != nil {
			t.Errorf("%q: %q, %v", tc.say, got, err)
		}
		<-stopped
	}
}

// arrived waits until nc is readable, without reading.
func arrived(t *testing.T, nc net.Conn) {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err == nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestOverPipe serves a connection that cannot be waited for without a buffer.
func TestOverPipe(t *testing.T) {
	r := newRig(t)
	client, nc := net.Pipe()
	defer client.Close()
	r.Serve(nc, r.ln, Client{Addr: r.local})
	in := bufio.NewReader(client)
	answer(t, in)
	go func() { _, _ = io.WriteString(client, script+"QUIT\r\n") }()
	for _, want := range []string{"250 HELP", "250 2.0.0", "250 2.1.5", "354", "250 2.0.0", "221"} {
		if got := answer(t, in); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %s", got, want)
		}
	}
}

func TestServeAfterStop(t *testing.T) {
	r := newRig(t)
	r.Stop(context.Background())
	client, nc := net.Pipe()
	defer client.Close()
	if r.Serve(nc, r.ln, Client{}) {
		t.Error("a session began")
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
}

func TestCommitFailure(t *testing.T) {
	r := newRig(t)
	r.mem.failing = mailerr.Local(io.ErrUnexpectedEOF)
	nc := r.dial(t)
	greeting(t, nc)
	in := bufio.NewReader(nc)
	if _, err := io.WriteString(nc, script); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"250", "250", "250", "354", "451 4.3.0 Temporary failure"} {
		if got := answer(t, in); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	if len(r.mem.accepted()) != 0 || r.mem.pending() != 0 {
		t.Error("something is left")
	}
}

// TestFloodIsFlat sends 100 MB without a newline, in command and in a message.
func TestFloodIsFlat(t *testing.T) {
	r := newRig(t)
	nc := r.dial(t)
	greeting(t, nc)
	if _, err := io.WriteString(nc, script[:strings.Index(script, "Subject")]+"\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(nc)
	for range 4 {
		answer(t, in)
	}
	block := bytes.Repeat([]byte{'x'}, 1<<20)
	for range 100 {
		if _, err := nc.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(nc, "\r\n.\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, in); got != "500 5.0.0 Line too long" {
		t.Errorf("got %q", got)
	}
	for range 100 {
		if _, err := nc.Write(block); err != nil {
			t.Fatal(err) // it is read to the end, so that the answer is seen
		}
	}
	if got := answer(t, in); got != "500 5.0.0 Line too long" {
		t.Errorf("got %q", got)
	}
}

// FuzzSession throws anything at a live session: it ends with its client, leaves
// nothing behind, and every reply is one.
func FuzzSession(f *testing.F) {
	f.Add([]byte(script + "QUIT\r\n"))
	f.Add([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n\r\n.\r\n.\r\n"))
	f.Add([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 5\r\nA: b\rBDAT 4\r\n\n.\r\nBDAT 0 LAST\r\nBDAT 3\r\nNOOP\r\n"))
	f.Add([]byte("EHLO x\r\nBDAT 99999999999999999999\r\nBDAT 3 last\r\n\r\n\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\n"))
	f.Add([]byte("HELO [::1]\r\nNOOP\nRSET\r\r\n\x00\r\nSTARTTLS\r\nAUTH PLAIN\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) { throwAt(t, newRig(t), input) })
}

// throwAt is one session that sends input and listens.
func throwAt(t *testing.T, r *rig, input []byte) {
	client, nc := net.Pipe()
	r.Serve(nc, r.ln, Client{Addr: r.local})
	replies := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(client) // it ends with an error when we close
		replies <- b
	}()
	go func() {
		_, _ = client.Write(input)
		client.Close()
	}()
	over := false
	for !over {
		select {
		case <-r.mem.done:
			over = true
		default:
			r.clk.BlockUntil(1)
			r.clk.Advance(errorPause)
		}
	}
	for line := range strings.SplitAfterSeq(string(<-replies), "\r\n") {
		if line != "" && strings.HasSuffix(line, "\r\n") {
			checkReply(t, input, line)
		}
	}
	if n := r.mem.pending(); n != 0 {
		t.Errorf("%q leaves %d messages", input, n)
	}
}

func checkReply(t *testing.T, input []byte, line string) {
	t.Helper()
	text := strings.TrimSuffix(line, "\r\n")
	plain := strings.Replace(text, "-", " ", 1)
	if text == "334 " {
		return // the empty challenge (RFC 4954 section 4)
	}
	if _, ok := smtp.ParseReply(text); !ok {
		if _, ok := smtp.ParseReply(plain); !ok {
			t.Errorf("%q was answered %q", input, line)
		}
	}
}

// TestQuiet holds that rest after work is noticed, once.
func TestQuiet(t *testing.T) {
	r := newRig(t)
	calls := make(chan struct{}, 9)
	r.quiet = func() { calls <- struct{}{} }
	pass := func() {
		r.clk.BlockUntil(1)
		r.clk.Advance(sweepEvery)
	}
	for range much {
		nc := r.dial(t)
		greeting(t, nc)
		nc.Close()
		<-r.mem.done
	}
	for len(calls) == 0 { // the last session may not be counted yet
		pass()
	}
	<-calls
	for range 2 * quietSweeps {
		pass()
	}
	greeting(t, r.dial(t)) // little work
	for range 2 * quietSweeps {
		pass()
	}
	if len(calls) != 0 {
		t.Error("noticed again")
	}
}
