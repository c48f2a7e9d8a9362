package regress

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"opensmtpd/src/regress/daemon"
)

// farAddress is that of the client, as the server has it.
const farAddress = "[fe80::2%cable0]"

// cable makes interface cable0, which is fe80::1, and its other end, cable1.
func cable(t *testing.T) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1").CombinedOutput(); err != nil {
		t.Skipf("this kernel makes no cable: %s", out)
	}
	// It may have gone with the other end already.
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "cable0").Run() })
	for _, args := range []string{"link set cable0 addrgenmode none", "addr add fe80::1/64 dev cable0 nodad", "link set cable0 up"} {
		sh(t, "ip", strings.Fields(args)...)
	}
}

// dialFar connects to port of fe80::1 from a network of its own, into which
// cable1 is moved and where it is fe80::2.
func dialFar(t *testing.T, port string) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		// The thread must come back: the daemon that it may have started ends with it.
		runtime.LockOSThread()
		c, err := func() (net.Conn, error) {
			here := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			home, err := os.Open(here)
			if err != nil {
				return nil, err
			}
			defer home.Close()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return nil, err
			}
			defer func() {
				if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
					runtime.UnlockOSThread()
				}
			}()
			script := fmt.Sprintf(`set -e
nsenter --net=/proc/%d/fd/%d ip link set cable1 netns $$
ip link set cable1 addrgenmode none
ip addr add fe80::2/64 dev cable1 nodad
ip link set cable1 up
ip -o link show cable1 | cut -d: -f1`, os.Getpid(), home.Fd())
			out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("%w: %s", err, out)
			}
			// By number: package net keeps the names of the network that it saw first.
			return net.DialTimeout("tcp", net.JoinHostPort("fe80::1%"+strings.TrimSpace(string(out)), port), daemon.Wait)
		}()
		done <- result{c, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	if err := r.c.SetDeadline(time.Now().Add(daemon.Wait)); err != nil {
		t.Fatal(err)
	}
	return r.c
}

// TestCVE_2023_29323_ScopedPeer: a client with a link-local address, in a network
// of its own behind a cable, is served like any other, and its zone survives in
// log, envelope and report.
func TestCVE_2023_29323_ScopedPeer(t *testing.T) {
	privileged(t)
	clearSpool(t)
	cable(t)
	p := newPeer(t, map[string]string{"RCPT": "451 4.2.0 later"})
	port := daemon.FreePort(t)
	d := daemon.NewRoot(t, fmt.Sprintf(`listen on 127.0.0.1 port $port
listen on cable0 port %s
action "local" maildir "/home/%%{user.username}/Maildir"
match for local action "local"
action "out" relay host smtp://%s
match from any for domain elsewhere.test action "out"
`, port, p.addr)).Start()
	c := dialFar(t, port)
	defer c.Close()
	if got := reply(t, c); !strings.HasPrefix(got, "220") {
		t.Fatal(got)
	}
	for _, step := range []struct{ line, want string }{
		{"HELO far.test", "250 "}, {"MAIL FROM:<anna@localhost>", "250"}, {"RCPT TO:<b@elsewhere.test>", "250"},
		{"DATA", "354"}, {"Subject: scoped\r\n\r\nx\r\n.", "250"}, {"QUIT", "221"},
	} {
		if _, err := c.Write([]byte(step.line + "\r\n")); err != nil {
			t.Fatal(err)
		}
		got := reply(t, c)
		if !strings.HasPrefix(got, step.want) || step.line[:4] == "HELO" && !strings.Contains(got, farAddress) {
			t.Fatalf("%s: %s", step.line, got)
		}
	}
	d.AwaitLog(`smtp connected address=\[fe80::2%cable0\] host=`)
	id := d.AwaitLog(`mta delivery evpid=([0-9a-f]{16}) .*result="TempFail"`)[1]
	if env := d.Ctl("show", "envelope", id); !strings.Contains(env, "fe80::2%cable0") {
		t.Errorf("envelope:\n%s", env)
	}
	d.Stop()
	d.Start() // what is on disk is read again
	p.set(map[string]string{"RCPT": "550 5.1.1 nobody"})
	d.Ctl("schedule", "all")
	d.Await("the report", func() bool { return len(d.Mail("/home/anna/Maildir")) == 1 })
	for _, text := range d.Mail("/home/anna/Maildir") {
		if !strings.Contains(text, "from far.test (<unknown> "+farAddress+")") {
			t.Errorf("the report lacks the zone:\n%s", text)
		}
	}
}
