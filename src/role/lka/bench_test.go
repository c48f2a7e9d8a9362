package lka

import (
	"testing"

	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// BenchmarkExpand is one recipient, a user of the system or an address
// elsewhere, without the cost of calls between processes.
func BenchmarkExpand(b *testing.B) {
	for _, rcpt := range []string{"to=bob", "to=x@example.net"} {
		b.Run(rcpt, func(b *testing.B) {
			s := newSystem(b, simple)
			r := s.role()
			m := question(b, rcpt)
			b.ReportAllocs()
			for b.Loop() {
				s.sent, s.asked = s.sent[:0], s.asked[:0]
				reply, fail := ask(b, b.Context(), r, proc.Dispatcher, m)
				if fail != nil || reply.(*msg.Expanded).Added != 1 {
					b.Fatal(reply, fail)
				}
			}
		})
	}
}
