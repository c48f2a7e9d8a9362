package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

func ends(t testing.TB) (*os.File, *os.File) {
	t.Helper()
	a, b, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func newPeer(t testing.TB, self, other Role, f *os.File, c clock.Clock, log *mlog.Logger) *Peer {
	t.Helper()
	conn, err := imsg.NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return NewPeer(self, other, conn, c, log)
}

// serve runs a peer until the test ends or stop is called, which returns what
// Serve did.
func serve(t testing.TB, p *Peer, rows ...Handler) (stop func() error) {
	t.Helper()
	table, err := NewTable(rows)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = p.Serve(ctx, table)
	}()
	stop = func() error {
		cancel()
		<-done
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}

// connect returns the dispatcher's end of a connection to a queue with rows.
func connect(t testing.TB, rows ...Handler) *Peer {
	t.Helper()
	a, b := ends(t)
	p := newPeer(t, Dispatcher, Queue, a, clock.NewSystem(), nil)
	serve(t, p)
	serve(t, newPeer(t, Queue, Dispatcher, b, clock.NewSystem(), nil), rows...)
	return p
}

func reserve(concurrent bool) Handler {
	return Handler{Dispatcher, msg.TypeReserveIDs, concurrent, func(_ context.Context, r Request) {
		var m msg.ReserveIDs
		if err := r.Parse(&m); err != nil {
			r.Fail(mailerr.Local(err))
			return
		}
		r.Reply(&msg.ReservedIDs{IDs: []mail.MessageID{mail.MessageID(m.N)}})
	}}
}

func TestMain(m *testing.M) {
	if IsReexec(os.Args) {
		os.Exit(reexecuted())
	}
	goleak.VerifyTestMain(m)
}

func TestCalls(t *testing.T) {
	for _, concurrent := range []bool{false, true} {
		p := connect(t, reserve(concurrent))
		var wg sync.WaitGroup
		for g := range uint32(20) {
			wg.Go(func() {
				for i := range uint32(100) {
					n := g<<16 + i
					var reply msg.ReservedIDs
					if err := p.Call(t.Context(), &msg.ReserveIDs{N: n}, &reply); err != nil {
						t.Error(err)
						return
					}
					if len(reply.IDs) != 1 || uint32(reply.IDs[0]) != n {
						t.Errorf("asked %d, got the reply of %v", n, reply.IDs)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestCallErrors(t *testing.T) {
	refused := mailerr.Permanent(550, 1, 1, "no", errors.New("because"))
	p := connect(t,
		Handler{Dispatcher, msg.TypeReserveIDs, false, func(_ context.Context, r Request) { r.Fail(refused) }},
		Handler{Dispatcher, msg.TypeDiscard, false, func(_ context.Context, r Request) { r.Reply(&msg.Discard{}) }},
		Handler{Dispatcher, msg.TypeIntake, false, func(_ context.Context, r Request) {
			var m msg.Commit
			r.Fail(mailerr.Local(r.Parse(&m)))
		}},
		Handler{Dispatcher, msg.TypeConf, false, func(_ context.Context, r Request) {
			r.Reply(&msg.Conf{Data: make([]byte, imsg.MaxBody)})
		}},
	)
	for _, tc := range []struct {
		m    msg.Message
		want string
	}{
		{&msg.ReserveIDs{}, "550 5.1.1 no: because"},
		{&msg.Discard{}, "reply of type"},
		{&msg.Intake{}, "*msg.Commit from dispatcher: message ends too early"},
		{&msg.Expand{}, "queue does not take message"},
		{&msg.Conf{}, "frame of more than 1 MiB"},
		{&msg.BodyChunk{Data: make([]byte, imsg.MaxBody)}, "frame of more than 1 MiB"},
	} {
		err := p.Call(t.Context(), tc.m, &msg.ReservedIDs{})
		var e *mailerr.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%T: %v, want %q", tc.m, err, tc.want)
		}
	}
}

func TestDeadlines(t *testing.T) {
	late := make(chan Request, 3)
	fake := clock.NewFake(time.Unix(1e9, 0))
	a, b := ends(t)
	p := newPeer(t, Dispatcher, Queue, a, fake, nil)
	serve(t, p)
	serve(t, newPeer(t, Queue, Dispatcher, b, fake, nil),
		Handler{Dispatcher, msg.TypeReserveIDs, false, func(_ context.Context, r Request) { late <- r }}, reserve2())

	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- p.Call(ctx, &msg.ReserveIDs{}, &msg.ReservedIDs{}) }()
	first := <-late
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}

	go func() { result <- p.Call(context.Background(), &msg.ReserveIDs{}, &msg.ReservedIDs{}) }()
	second := <-late
	for passed := time.Duration(0); passed < CallTimeout; passed += sweep {
		fake.BlockUntil(1)
		fake.Advance(sweep)
	}
	err := <-result
	var e *mailerr.Error
	if !errors.As(err, &e) || e.Class != mailerr.Temp || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call without an answer: %v", err)
	}

	// Replies nobody waits for are dropped, and the peer goes on.
	first.Reply(&msg.ReservedIDs{IDs: []mail.MessageID{1}})
	second.Reply(&msg.ReservedIDs{IDs: []mail.MessageID{2}})
	second.Reply(&msg.ReservedIDs{IDs: []mail.MessageID{3}})
	var reply msg.ReservedIDs
	if err := p.Call(t.Context(), &msg.Discard{Message: 4}, &reply); err != nil || reply.IDs[0] != 4 {
		t.Errorf("after late replies: %v, %v", reply, err)
	}
}

// reserve2 answers Discard with the identifier it was given.
func reserve2() Handler {
	return Handler{Dispatcher, msg.TypeDiscard, true, func(_ context.Context, r Request) {
		var m msg.Discard
		r.Parse(&m)
		r.Reply(&msg.ReservedIDs{IDs: []mail.MessageID{m.Message}})
	}}
}

func TestPeerGone(t *testing.T) {
	a, b := ends(t)
	p := newPeer(t, Dispatcher, Queue, a, clock.NewSystem(), nil)
	stop := serve(t, p)
	got := make(chan Request)
	stopQueue := serve(t, newPeer(t, Queue, Dispatcher, b, clock.NewSystem(), nil),
		Handler{Dispatcher, msg.TypeReserveIDs, false, func(_ context.Context, r Request) { got <- r }})
	result := make(chan error)
	go func() { result <- p.Call(t.Context(), &msg.ReserveIDs{}, &msg.ReservedIDs{}) }()
	r := <-got
	if err := stopQueue(); err != nil {
		t.Errorf("the queue ended with %v", err)
	}
	if err := <-result; !errors.Is(err, errGone) {
		t.Errorf("call to a queue that went away: %v", err)
	}
	r.Reply(&msg.ReservedIDs{}) // must not harm
	stop()
	for _, err := range []error{
		p.Call(t.Context(), &msg.ReserveIDs{}, &msg.ReservedIDs{}),
		p.Send(t.Context(), &msg.ReserveIDs{}),
	} {
		var e *mailerr.Error
		if !errors.As(err, &e) || e.Class != mailerr.Temp {
			t.Errorf("after the end: %v", err)
		}
	}
}

// A stranger's bytes end that connection, with an error for the log.
func TestGarbageEndsThePeer(t *testing.T) {
	for name, garbage := range map[string]string{
		"text":        strings.Repeat("EHLO\r\n", 20),
		"truncated":   "\x05\x00\x00\x00",
		"free credit": "\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		a, b := ends(t)
		p := newPeer(t, Dispatcher, Queue, a, clock.NewSystem(), nil)
		table, _ := NewTable(nil)
		io.WriteString(b, garbage)
		b.Close()
		if err := p.Serve(t.Context(), table); err == nil {
			t.Errorf("%s: Serve returned nil", name)
		}
	}
}

func TestFiles(t *testing.T) {
	p := connect(t,
		Handler{Dispatcher, msg.TypeAgent, true, func(_ context.Context, r Request) {
			f, err := os.Open(os.DevNull)
			if err != nil {
				r.Fail(mailerr.Local(err))
				return
			}
			r.ReplyFile(&msg.Discard{Message: 1}, f)
		}},
		Handler{Dispatcher, msg.TypeFile, false, func(_ context.Context, r Request) {
			f := r.File()
			defer f.Close()
			io.WriteString(f, "from the queue")
		}},
		Handler{Dispatcher, msg.TypePeer, false, func(context.Context, Request) {}},
	)
	f, err := p.CallFile(t.Context(), agentStandIn{}, &msg.Discard{})
	if err != nil || f == nil {
		t.Fatalf("CallFile() = %v, %v", f, err)
	}
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("not the null device: %v, %v", st, err)
	}
	f.Close()
	for _, m := range []msg.Message{&msg.File{}, &msg.Peer{}} { // Peer's handler leaves it
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SendFile(t.Context(), m, w); err != nil {
			t.Fatal(err)
		}
		want := ""
		if m.Type() == msg.TypeFile {
			want = "from the queue"
		}
		if got, _ := io.ReadAll(r); string(got) != want {
			t.Errorf("%T: read %q", m, got)
		}
		r.Close()
	}
}

type agentStandIn struct{}

func (agentStandIn) Type() msg.Type         { return msg.TypeAgent }
func (agentStandIn) Append(b []byte) []byte { return b }

func TestRows(t *testing.T) {
	p := connect(t, Handler{Dispatcher, msg.TypeReserveIDs, true, func(_ context.Context, r Request) {
		for i := range 5 {
			r.Row(&msg.Discard{Message: mail.MessageID(i + 1)})
		}
		r.Reply(&msg.Committed{})
		r.Row(&msg.Discard{Message: 9})
	}})
	var row msg.Discard
	var got []mail.MessageID
	next := func() error { got = append(got, row.Message); return nil }
	if err := p.CallRows(t.Context(), &msg.ReserveIDs{}, &row, next, &msg.Committed{}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[00000001 00000002 00000003 00000004 00000005]" {
		t.Errorf("rows %v", got)
	}
	full := errors.New("enough")
	if err := p.CallRows(t.Context(), &msg.ReserveIDs{}, &row, func() error { return full }, &msg.Committed{}); !errors.Is(err, full) {
		t.Errorf("a row that was refused: %v", err)
	}
}

// A peer that takes nothing gets the credit and then no more; once it takes,
// all goes on, in order.
func TestCredit(t *testing.T) {
	a, b := ends(t)
	p := newPeer(t, Dispatcher, Queue, a, clock.NewSystem(), nil)
	serve(t, p)
	gate := make(chan struct{})
	const frames, size = 200, 64 << 10
	var next, wrong atomic.Uint32
	all := make(chan struct{})
	q := newPeer(t, Queue, Dispatcher, b, clock.NewSystem(), nil)
	serve(t, q, Handler{Dispatcher, msg.TypeBodyChunk, false, func(_ context.Context, r Request) {
		<-gate
		var m msg.BodyChunk
		if err := r.Parse(&m); err != nil || uint32(m.Message) != next.Load() {
			wrong.Add(1)
		}
		if next.Add(1) == frames {
			close(all)
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	for range frames {
		if p.waits() { // without this the next Send would hang
			break
		}
		if err := p.Send(t.Context(), &msg.BodyChunk{Message: mail.MessageID(sent), Data: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	if sent < Credit/size-1 || sent > Credit/size+1 {
		t.Errorf("%d frames of %d went out on a credit of %d", sent, size, Credit)
	}
	cancel()
	if err := p.Send(ctx, &msg.Discard{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Send without credit: %v", err)
	}
	close(gate)
	for ; sent < frames; sent++ {
		if err := p.Send(t.Context(), &msg.BodyChunk{Message: mail.MessageID(sent), Data: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
	}
	<-all
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d frames came damaged or out of order", n)
	}
}

func (p *Peer) waits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.credit <= 0
}

// More requests than may run at once wait and are all answered.
func TestConcurrentIsBounded(t *testing.T) {
	const calls = 3 * concurrent
	var now, most atomic.Int32
	full := make(chan struct{})
	var once sync.Once
	p := connect(t, Handler{Dispatcher, msg.TypeReserveIDs, true, func(_ context.Context, r Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == concurrent {
			once.Do(func() { close(full) })
		}
		<-full
		now.Add(-1)
		r.Reply(&msg.ReservedIDs{})
	}})
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if err := p.Call(t.Context(), &msg.ReserveIDs{}, &msg.ReservedIDs{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m != concurrent {
		t.Errorf("%d ran at once, want %d", m, concurrent)
	}
}

func TestTableTwice(t *testing.T) {
	if _, err := NewTable([]Handler{reserve(false), reserve(true)}); err == nil {
		t.Error("two rows for one message are accepted")
	}
}

func BenchmarkCall(b *testing.B) {
	for _, row := range []struct {
		name string
		h    Handler
	}{{"serial", reserve(false)}, {"concurrent", reserve(true)}} {
		for _, flight := range []int{1, 50} {
			b.Run(fmt.Sprintf("%s/%d", row.name, flight), func(b *testing.B) {
				p := connect(b, row.h)
				b.ReportAllocs()
				var wg sync.WaitGroup
				var n atomic.Int64
				for range flight {
					wg.Go(func() {
						var reply msg.ReservedIDs
						m := msg.ReserveIDs{N: 1}
						for n.Add(1) <= int64(b.N) {
							if err := p.Call(context.Background(), &m, &reply); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
