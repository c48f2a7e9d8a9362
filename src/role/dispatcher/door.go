package dispatcher

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"opensmtpd/src/smtp/server"
)

const (
	// exhausted is how long a listener rests when the process has no descriptor
	// left: connections wait in the backlog meanwhile.
	exhausted = 250 * time.Millisecond
	// reserve is how many descriptors sessions leave to everything else.
	reserve = 64
)

// maxSessions is how many sessions the process has descriptors for.
func maxSessions() int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1<<20 {
		return 1 << 20
	}
	return max(int(lim.Cur)-reserve, 16)
}

// A door is a socket that accepts connections, as long as a generation has a
// listener of that identity.
type door struct {
	role     *Role
	ln       net.Listener
	listener atomic.Pointer[server.Listener] // of the current generation
	started  bool                            // guarded by Role.mu
}

// open takes the descriptor over.
func (d *door) open(f *os.File) error {
	if f == nil {
		return errors.New("no descriptor")
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	d.ln = ln
	return nil
}

// close stops accepting. Its sessions go on.
func (d *door) close() { _ = d.ln.Close() }

// interrupt ends a wait in accept, and while on every later one.
func (d *door) interrupt(on bool) {
	var at time.Time
	if on {
		at = time.Unix(1, 0)
	}
	if t, ok := d.ln.(interface{ SetDeadline(time.Time) error }); ok {
		_ = t.SetDeadline(at) // it fails when the door is closed
	}
}

// accept starts sessions until the door is closed.
func (d *door) accept(ctx context.Context) {
	gate, full := &d.role.gate, d.role.log.SMTPFull
	for gate.admit(ctx, full) {
		nc, err := d.ln.Accept()
		switch {
		case err == nil && gate.admit(ctx, full): // paused meanwhile, it waits
			d.role.welcome(nc, d.listener.Load())
		case err == nil:
			_ = nc.Close() // the daemon stops
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			d.role.log.SMTPExhausted(err)
			d.role.rest(ctx, exhausted)
		case errors.Is(err, os.ErrDeadlineExceeded):
			// paused: admit waits
		default:
			// ECONNABORTED and its like concern one client.
			d.role.log.Debugf("debug: smtp: accept: %v", err)
		}
	}
}

// rest waits for d or the end of ctx.
func (r *Role) rest(ctx context.Context, d time.Duration) {
	over, cancel := r.clock.After(d)
	defer cancel()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// welcome begins a session.
func (r *Role) welcome(nc net.Conn, l *server.Listener) {
	a, ok := remote(nc)
	if !ok {
		_ = nc.Close() // it has gone already
		return
	}
	r.serve(nc, l, server.Client{Addr: a, To: local(nc)})
}

// remote returns the client's address. IPv4 in IPv6 is IPv4; the zone of a link
// local address stays.
func remote(nc net.Conn) (netip.AddrPort, bool) {
	t, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	a := t.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), a.IsValid()
}

// local returns which of our addresses the client connected to. Of a listener on
// all of them the connection alone knows.
func local(nc net.Conn) netip.Addr {
	if t, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
