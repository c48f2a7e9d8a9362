package mda

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/privsep/msg"
)

// BenchmarkMaildir delivers 4 KiB messages to a few users, whose agents are
// goroutines of this process. Set TMPDIR to choose the disk.
func BenchmarkMaildir(b *testing.B) {
	for _, users := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			o := newOffice(b, msg.AgentConf{Method: uint8(conf.Maildir)})
			o.uid = uidOf
			p := o.pool(Options{})
			body := []byte(strings.Repeat("0123456789abcde\n", 256))
			room := make(chan struct{}, 1000)
			var wg sync.WaitGroup
			var before, after syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ResetTimer()
			for i := range b.N {
				room <- struct{}{}
				wg.Add(1)
				p.Deliver(&Delivery{Gen: 1, Envelope: newEnvelope(fmt.Sprintf("user%d", i%users)), Size: int64(len(body)), Body: body, Done: func(r Result) {
					if r.Err != nil {
						b.Error(r.Stat)
					}
					<-room
					wg.Done()
				}})
			}
			wg.Wait()
			b.StopTimer()
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
			b.ReportMetric(float64(cpu)/float64(b.N)/1000, "µs-cpu/mail")
		})
	}
}
