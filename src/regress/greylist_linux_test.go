package regress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/regress/daemon"
)

// freely lets a socket have an address of IPv6 that only a route makes ours.
func freely(network, _ string, c syscall.RawConn) error {
	if network != "tcp6" {
		return nil
	}
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) })
	return errors.Join(err, failed)
}

// TestRootGreylist is the life of a greylist of a daemon with all its privileges,
// whose clients really have their addresses: in this network they are all local.
func TestRootGreylist(t *testing.T) {
	privileged(t)
	clearSpool(t)
	for _, args := range []string{
		"addr add 192.0.2.1/32 dev lo", "addr add 2001:db8::1/128 dev lo",
		"route add local 192.0.2.0/24 dev lo", "route add local 198.51.100.0/23 dev lo",
		"route add local 203.0.112.0/22 dev lo", "-6 route add local 2001:db8:1::/48 dev lo",
	} {
		sh(t, "ip", strings.Fields(args)...)
		undo := strings.Replace(args, " add ", " del ", 1)
		t.Cleanup(func() {
			if out, err := exec.Command("ip", strings.Fields(undo)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %s", undo, out)
			}
		})
	}
	port := daemon.FreePort(t)
	g := &greylisted{T: t, d: daemon.NewRoot(t, ""), conf: fmt.Sprintf(`filter grey phase rcpt-to match rcpt-to regex ".*" greylist GREY
listen on 127.0.0.1 port $port filter grey
listen on 192.0.2.1 port %[1]s filter grey
listen on 2001:db8::1 port %[1]s filter grey
action "local" maildir "/home/%%{user.username}/Maildir"
match from any for local action "local"
`, port)}
	g.dial = func(from netip.Addr) net.Conn {
		to := net.JoinHostPort("192.0.2.1", port)
		if from.IsLoopback() {
			to = g.d.Addr
		} else if from.Is6() {
			to = net.JoinHostPort("2001:db8::1", port)
		}
		dialer := net.Dialer{Timeout: daemon.Wait, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Control: freely}
		c, err := dialer.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	g.story()
	g.passes("192.0.2.1", "one@far.test")   // from the machine to itself
	g.passes("2001:db8::1", "one@far.test") // likewise
	if st := g.d.Stop(); st != 0 {
		t.Errorf("smtpd ended with status %d", st)
	}
}
