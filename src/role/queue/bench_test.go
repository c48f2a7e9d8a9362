package queue

import (
	"context"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mda"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// instant is a delivery agent that costs nothing.
type instant struct{}

func (instant) Deliver(d *mda.Delivery) { d.Done(delivered) }
func (instant) SetLimits(mda.Limits)    {}
func (instant) Load() (int, int, int)   { return 0, 0, 0 }
func (instant) Close(context.Context)   {}

// BenchmarkMail is one message of 4 KiB through the whole process, on the real
// disk, with many clients at once.
func BenchmarkMail(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	r, err := New(proc.Env{
		Role: proc.Queue, Clock: clock.NewSystem(), Log: mlog.New(new(mlog.Memory), false),
		Peers: map[proc.Role]proc.Caller{proc.Dispatcher: &fakeDispatcher{intake: make(chan msg.Intake, 100)}},
		Conf:  proc.Conf{Gen: 1, Projection: projection(nil)},
	}, Options{Disk: func() (disk.FS, error) { return disk.NewReal(b.TempDir()) }})
	if err != nil {
		b.Fatal(err)
	}
	r.pool = instant{}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-r.ready
	body := make([]byte, 4096)
	d := &daemon{Role: r}
	b.SetParallelism(50)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var ids []mail.MessageID
		for pb.Next() {
			if len(ids) == 0 {
				q := newRequest(proc.Dispatcher, &msg.ReserveIDs{N: 64})
				r.reserveIDs(ctx, q)
				ids = (<-q.reply).(*msg.ReservedIDs).IDs
			}
			id := ids[0]
			ids = ids[1:]
			e := d.benchEnvelope(id)
			r.addEnvelope(ctx, newRequest(proc.Lookup, &msg.AddEnvelope{Envelope: e}))
			q := newRequest(proc.Dispatcher, &msg.Commit{Message: id, Envelopes: 1, Size: 4096, Body: body})
			r.commit(ctx, q)
			if err := q.committed(); err != nil {
				b.Error(err)
			}
		}
	})
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

func (d *daemon) benchEnvelope(id mail.MessageID) envelope.Envelope {
	e := envelope.Envelope{
		ID: mail.EnvelopeAt(id, 0), Action: "local", SMTPName: "mx.example.org", Helo: "client.example", MDAUser: "user",
		Created: d.env.Clock.Now(), TTL: 1e15,
	}
	e.Sender.Local, e.Sender.Domain = "sender", "example.org"
	e.Rcpt.Local, e.Rcpt.Domain = "user", "example.org"
	e.Dest = e.Rcpt
	return e
}
