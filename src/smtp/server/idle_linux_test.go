package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mlog"
	"opensmtpd/src/pki"
	"opensmtpd/src/pki/pkitest"
)

// BenchmarkIdle measures what a connection costs that has said EHLO and waits:
// proportional set size of the whole process (goroutine, socket, session), for
// 10,000 at once, and after a moment of quiet. The clients are another process.
func BenchmarkIdle(b *testing.B) { idle(b, nil) }

// BenchmarkIdleTLS is BenchmarkIdle in TLS, with the certificate and the cipher
// that most have: RSA, and what both sides prefer.
func BenchmarkIdleTLS(b *testing.B) {
	a := pkitest.New(b)
	s := pki.Server{Chains: []*pki.Chain{a.Chain(pkitest.RSA, "mx.example.com")}, Ask: a.Sign}
	cfg, err := s.Config(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	idle(b, &TLS{Config: cfg, Immediate: true})
}

func idle(b *testing.B, secure *TLS) {
	const n = 10000
	srv := New(Config{Backend: nowhere{}, Clock: clock.NewSystem(), Log: mlog.New(deaf{}, false), NewID: rand.Uint64, Quiet: debug.FreeOSMemory})
	ctx, cancel := context.WithCancel(context.Background())
	swept := make(chan struct{})
	go func() { defer close(swept); srv.Run(ctx) }()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := &Listener{Hostname: "mx.example.com", Settings: Settings{MaxMails: 100, MaxRcpt: 1000, MaxSize: 1 << 20}, TLS: secure}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			srv.Serve(nc, l, Client{Addr: nc.RemoteAddr().(*net.TCPAddr).AddrPort()})
		}
	}()
	b.ResetTimer()
	for range b.N {
		before := pss(b)
		client := exec.Command(os.Args[0], "-test.run=^TestIdleClients$")
		client.Env = append(os.Environ(), "IDLE_CLIENTS="+ln.Addr().String()+" "+fmt.Sprint(n, secure != nil))
		client.Stderr = os.Stderr
		stop, _ := client.StdinPipe()
		out, _ := client.StdoutPipe()
		if err := client.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			b.Fatal(err)
		}
		atOnce := pss(b)
		wait, _ := clock.NewSystem().After((quietSweeps + 2) * sweepEvery)
		<-wait
		b.ReportMetric(float64(atOnce-before)/n, "B/conn-at-once")
		b.ReportMetric(float64(pss(b)-before)/n, "B/conn-quiet")
		stop.Close()
		_ = client.Wait()
		for srv.Len() > 0 {
			wait, _ := clock.NewSystem().After(sweepEvery)
			<-wait
		}
		wait, _ = clock.NewSystem().After((quietSweeps + 2) * sweepEvery)
		<-wait
		b.ReportMetric(float64(pss(b)-before)/n, "B/conn-after")
	}
	ln.Close()
	<-accepted
	srv.Stop(context.Background())
	cancel()
	<-swept
}

// deaf is a log that nobody reads; lines are made all the same.
type deaf struct{}

func (deaf) Line(mlog.Priority, string) {}

// pss reads the proportional set size of this process, in bytes.
func pss(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// TestIdleClients is the other process of BenchmarkIdle.
func TestIdleClients(t *testing.T) {
	var addr string
	var n int
	var secure bool
	if _, err := fmt.Sscan(os.Getenv("IDLE_CLIENTS"), &addr, &n, &secure); err != nil {
		t.Skip("only for BenchmarkIdle")
	}
	for range n {
		nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if secure {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		var b [512]byte
		if _, err := nc.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(nc, "EHLO client.example.org\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(b[:]); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}
