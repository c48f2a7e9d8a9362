package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/smtp"
)

// nowhere is a Backend that keeps nothing.
type nowhere struct{}

func (nowhere) Admit(*Session) *mailerr.Error                               { return nil }
func (nowhere) Hostname(context.Context, *Session) string                   { return "" }
func (nowhere) Lookup(context.Context, netip.Addr) Name                     { return Name{} }
func (nowhere) Begin(context.Context) (mail.MessageID, *mailerr.Error)      { return 1, nil }
func (nowhere) Chunk(context.Context, *Transaction, []byte) *mailerr.Error  { return nil }
func (nowhere) Commit(context.Context, *Transaction, []byte) *mailerr.Error { return nil }
func (nowhere) Discard(mail.MessageID)                                      {}
func (nowhere) Done(*Session)                                               {}
func (nowhere) Authenticate(context.Context, *Session, string, string) (bool, *mailerr.Error) {
	return false, nil
}
func (nowhere) MaySend(context.Context, *Session, addr.Address) (bool, *mailerr.Error) {
	return true, nil
}
func (nowhere) Rcpt(context.Context, *Session, *Transaction, *smtp.Rcpt) (uint32, *mailerr.Error) {
	return 1, nil
}

// bench serves one client over loopback without a backend.
func bench(b *testing.B) (net.Conn, *bufio.Reader) {
	b.Helper()
	srv := New(Config{Backend: nowhere{}, Clock: clock.NewSystem(), NewID: rand.Uint64})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	srv.Serve(conn, &Listener{Hostname: "mx.example.com", Settings: Settings{MaxMails: 1 << 40, MaxRcpt: 1000, MaxSize: 1 << 40}},
		Client{Addr: netip.MustParseAddrPort("192.0.2.7:4321")})
	b.Cleanup(func() {
		nc.Close()
		srv.Stop(context.Background())
	})
	in := bufio.NewReader(nc)
	skip(b, in, 1)
	ask(b, nc, in, []byte("HELO x\r\n"), 1)
	before := used(b)
	b.Cleanup(func() { b.ReportMetric(float64(used(b)-before)/float64(b.N), "cpu-ns/op") })
	return nc, in
}

// used is the CPU time of the process so far: client and server.
func used(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func skip(b *testing.B, in *bufio.Reader, n int) {
	for range n {
		if line, err := in.ReadSlice('\n'); err != nil || line[0] > '3' {
			b.Fatalf("%q, %v", line, err)
		}
	}
}

func ask(b *testing.B, nc io.Writer, in *bufio.Reader, s []byte, n int) {
	if _, err := nc.Write(s); err != nil {
		b.Fatal(err)
	}
	skip(b, in, n)
}

func message(size int) []byte {
	var m bytes.Buffer
	m.WriteString("From: Alice <alice@example.org>\r\nTo: Bob <bob@example.com>\r\nSubject: a message of some size\r\nDate: Wed, 4 Mar 2026 05:06:07 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n")
	for m.Len() < size {
		m.WriteString("The quick brown fox jumps over the lazy dog, again and again and again.\r\n")
	}
	m.WriteString(".\r\n")
	return m.Bytes()
}

// BenchmarkTransaction is one message of 4 KiB on an open connection, in lock
// step and pipelined; the client's work is in it.
func BenchmarkTransaction(b *testing.B) {
	body := message(4096)
	envelope := [][]byte{[]byte("MAIL FROM:<alice@example.org>\r\n"), []byte("RCPT TO:<bob@example.com>\r\n"), []byte("DATA\r\n")}
	b.Run("lockstep", func(b *testing.B) {
		nc, in := bench(b)
		b.ReportAllocs()
		for b.Loop() {
			for _, s := range envelope {
				ask(b, nc, in, s, 1)
			}
			ask(b, nc, in, body, 1)
		}
	})
	b.Run("pipelined", func(b *testing.B) {
		nc, in := bench(b)
		group := bytes.Join(envelope, nil)
		b.ReportAllocs()
		for b.Loop() {
			ask(b, nc, in, group, 3)
			ask(b, nc, in, body, 1)
		}
	})
}

// BenchmarkData is the rate at which large messages come in over loopback.
func BenchmarkData(b *testing.B) {
	for _, size := range []int{1 << 20, 32 << 20} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			body := message(size)
			group := []byte("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
			nc, in := bench(b)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				ask(b, nc, in, group, 3)
				ask(b, nc, in, body, 1)
			}
		})
	}
}

// BenchmarkBody is the reader of bodies alone.
func BenchmarkBody(b *testing.B) {
	text := message(1 << 20)
	pl := newPools()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var m body
		m.chunk = func([]byte) *mailerr.Error { return nil }
		m.begin(pl, 1<<40)
		for p := text; len(p) > 0; {
			n, done := m.take(p[:min(len(p), inSize)])
			if p = p[n:]; done && len(p) > 0 || n == 0 {
				b.Fatal(n, done)
			}
		}
		m.release()
	}
}
