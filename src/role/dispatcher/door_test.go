package dispatcher

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// played is a net.Listener that plays back what Accept returns.
type played struct {
	net.Listener
	results chan any // error or net.Conn; closed when the listener is
}

func (p *played) Accept() (net.Conn, error) {
	switch r := (<-p.results).(type) {
	case net.Conn:
		return r, nil
	case error:
		return nil, r
	}
	return nil, net.ErrClosed
}

// TestOutOfDescriptors holds that a listener rests when there is no descriptor
// left, rather than spin, and then goes on.
func TestOutOfDescriptors(t *testing.T) {
	r, at := newRig(t)
	p := &played{results: make(chan any)}
	d := &door{role: r.Role, ln: p}
	d.listener.Store(r.current.net[0])
	done := make(chan struct{})
	go func() { defer close(done); d.accept(context.Background()) }()

	for _, errno := range []error{syscall.EMFILE, syscall.ENFILE} {
		p.results <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)}
		r.clk.BlockUntil(3) // the sweep, the dates and the rest
		select {
		case p.results <- errors.New("too soon"):
			t.Fatal("it does not rest")
		default:
		}
		r.clk.Advance(exhausted)
	}
	p.results <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ECONNABORTED)}

	client, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	c := talk(t, client)
	c.want("220") // the real door still works
	other, nc := net.Pipe()
	defer other.Close()
	p.results <- nc // no TCP: a client that has gone
	close(p.results)
	<-done
	if n := strings.Count(r.log.String(), "Disabling incoming SMTP connections"); n != 2 {
		t.Errorf("said %d times:\n%v", n, r.log)
	}
}

// TestGate holds that sessions are counted right and said once.
func TestGate(t *testing.T) {
	g := gate{max: 32}
	for range 32 {
		g.enter()
	}
	said := 0
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 3 {
		if g.admit(ctx, func() { said++ }) {
			t.Error("admitted")
		}
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
	if g.leave() {
		t.Error("one place is not enough to say that it is over")
	}
	if !g.leave() || g.leave() {
		t.Error("two places are, once")
	}
	if !g.admit(context.Background(), func() {}) {
		t.Error("not admitted")
	}
}
