package filter

import (
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/filter/filterprog"
)

// BenchmarkLines passes messages of 64 KiB through a program that changes nothing,
// as bench filter does, without the other processes.
func BenchmarkLines(b *testing.B) {
	r := newRig(b)
	ours, theirs := r.pair()
	g := &Program{owner: r.programs, identity: "p", name: "p"}
	r.named["p"] = g
	p := filterprog.New(theirs, theirs)
	p.OnLine(func(_ *filterprog.Session, line []byte, out func([]byte)) { out(line) })
	done := make(chan error, 1)
	go func() { done <- p.Run() }()
	g.begin(ours)
	r.filter(progFilter("f", "p", conf.TempFail))
	const lines = 64 << 10 / 72
	body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", lines) + "."
	r.ln.Settings.MaxMails = 1 << 30
	c := r.dial()
	c.play("EHLO x")
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		for _, line := range []string{"MAIL FROM:<eve@example.org>", "RCPT TO:<bob@example.com>", "DATA", body} {
			fmt.Fprint(c.nc, line+"\r\n")
			if got := c.reply(); got == "" || got[0] > '3' {
				b.Fatalf("%.60q is answered %q", line, got)
			}
		}
	}
	b.ReportMetric(float64(b.N*lines)/b.Elapsed().Seconds(), "lines/s")
	r.close(c)
	theirs.Close()
	<-done
}
