package regress

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/regress/daemon"
)

// greylisted is a daemon whose clients have addresses of the test's choice.
type greylisted struct {
	*testing.T
	d    *daemon.Daemon
	conf string // with GREY where the times of greylist go
	// dial connects from an address.
	dial func(from netip.Addr) net.Conn
}

const (
	greyAgain = "451 4.7.1 Greylisted: "
	patient   = "delay 1h expire 4h whitelist 36d"
	quick     = "delay 1s expire 4h whitelist 36d"
)

// times are those in force from now on.
func (g *greylisted) times(times string) {
	g.Helper()
	g.configure(times)
	g.d.Ctl("reload")
}

func (g *greylisted) configure(times string) {
	g.d.Configure(strings.Replace(g.conf, "GREY", times, 1))
}

// says plays a session from an address and returns the last reply.
func (g *greylisted) says(from string, lines ...string) string {
	g.Helper()
	c := g.dial(netip.MustParseAddr(from))
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(daemon.Wait)); err != nil {
		g.Fatal(err)
	}
	got := reply(g, c)
	for _, line := range append([]string{"EHLO client.test"}, lines...) {
		if _, err := io.WriteString(c, line+"\r\n"); err != nil {
			g.Fatal(err)
		}
		got = reply(g, c)
	}
	return got
}

// try offers mail from a sender, and returns what is said of the recipient.
func (g *greylisted) try(from, sender string) string {
	g.Helper()
	return g.says(from, "MAIL FROM:<"+sender+">", "RCPT TO:<"+g.me()+">")
}

func (g *greylisted) me() string {
	if g.d.Root {
		return "anna@localhost"
	}
	return me(g) + "@localhost"
}

// refused and passes hold what becomes of a try.
func (g *greylisted) refused(from, sender string) {
	g.Helper()
	if got := g.try(from, sender); !strings.HasPrefix(got, greyAgain) {
		g.Errorf("%s, <%s>: %s", from, sender, got)
	}
}

func (g *greylisted) passes(from, sender string) {
	g.Helper()
	if got := g.try(from, sender); !strings.HasPrefix(got, "250 ") {
		g.Errorf("%s, <%s>: %s", from, sender, got)
	}
}

// comesAgain holds that a triplet of a network passes a second after its first try,
// where that is the delay.
func (g *greylisted) comesAgain(net, from, sender string) {
	g.Helper()
	f := strings.Split(g.shown(net), "|")
	if len(f) != 8 {
		g.Fatalf("%s is shown as %q", net, f)
	}
	first, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		g.Fatal(err)
	}
	g.d.Await("the delay of "+net, func() bool { return time.Now().Unix() > first })
	g.passes(from, sender)
}

// shown is what smtpctl shows of a network, "" when it shows nothing.
func (g *greylisted) shown(net string) string {
	g.Helper()
	for line := range strings.Lines(g.d.Ctl("show", "greylist")) {
		if f := strings.Split(line, "|"); f[1] == net {
			return line
		}
	}
	return ""
}

// shows holds what smtpctl shows of a network: its state, or nothing.
func (g *greylisted) shows(net, state string) {
	g.Helper()
	if got, _, _ := strings.Cut(g.shown(net), "|"); got != state {
		g.Errorf("%s is %q, want %q", net, got, state)
	}
}

// ctl holds what smtpctl prints; what is "" must fail.
func (g *greylisted) ctl(want string, args ...string) {
	g.Helper()
	out, errs, status := g.d.Run("", "smtpctl", args...)
	if out != want || (status == 0) != (want != "") || status != 0 && errs == "" {
		g.Errorf("smtpctl %s: status %d: %s%s", strings.Join(args, " "), status, out, errs)
	}
}

// story is the life of a greylist, through restarts.
func (g *greylisted) story() {
	g.configure(patient)
	g.d.Start()
	g.refused("198.51.100.7", "one@far.test")
	g.refused("198.51.100.7", "one@far.test")
	g.refused("2001:db8:1:2::7", "bounce-1@far.test")
	g.shows("198.51.100.0/24", "grey")
	if got := g.shown("2001:db8:1:2::/64"); !strings.HasPrefix(got, "grey|2001:db8:1:2::/64||") || !strings.Contains(got, "|bounce-0@far.test|"+g.me()+"|") {
		g.Errorf("shown: %q", got)
	}
	if got := g.try("127.0.0.1", "one@far.test"); !strings.HasPrefix(got, "250 ") {
		g.Errorf("a client of this machine: %s", got)
	}

	g.times(quick)
	g.comesAgain("198.51.100.0/24", "198.51.100.9", "one@far.test")
	g.shows("198.51.100.0/24", "white")
	g.d.AwaitLog(`smtp failed-command command="RCPT TO:<[^"]*>" result="451 4\.7\.1 Greylisted: `)
	g.d.AwaitLog(`[0-9a-f]{16} smtp greylist filter=grey result=passed network=198\.51\.100\.0/24 after=[0-9]+s`)
	g.passes("198.51.100.200", "other@else.test")
	g.comesAgain("2001:db8:1:2::/64", "2001:db8:1:2:3::1", "bounce-2@far.test")
	g.times(patient)
	g.refused("2001:db8:1:3::7", "bounce-1@far.test")
	g.refused("198.51.101.9", "one@far.test")

	g.d.Stop()
	g.d.Restart()
	g.passes("198.51.100.1", "three@far.test")
	g.passes("2001:db8:1:2::ffff", "three@far.test")
	g.shows("198.51.101.0/24", "grey") // a moment before it was stopped

	g.refused("203.0.113.5", "one@far.test")
	before := g.shown("203.0.113.0/24")
	g.ctl("192.0.2.77/32 passes from now on\n", "whitelist", "192.0.2.77") // and all before is on disk
	g.killed()
	g.d.Restart()
	if after := g.shown("203.0.113.0/24"); after != before || after == "" {
		g.Errorf("before it was killed: %q, after that: %q", before, after)
	}
	g.passes("192.0.2.77", "one@far.test")
	g.passes("198.51.100.1", "one@far.test")
	g.refused("192.0.2.78", "one@far.test")
	g.byHand()

	g.times("delay 1s expire 2s whitelist 36d")
	g.refused("203.0.114.5", "one@far.test")
	g.d.Await("a triplet to expire", func() bool { return g.shown("203.0.114.0/24") == "" })
	g.times("delay 1h expire 4h whitelist 1s")
	g.refused("203.0.114.5", "one@far.test")
	g.passes("198.51.100.1", "one@far.test")
	g.d.Await("a network to be forgotten", func() bool { return g.shown("198.51.100.0/24") == "" })
	g.refused("198.51.100.1", "one@far.test")
	g.shows("192.0.2.77/32", "white")
}

// byHand is what an operator does about the networks of story.
func (g *greylisted) byHand() {
	g.Helper()
	g.ctl("192.0.2.77/32 passes already\n", "whitelist", "::ffff:192.0.2.77")
	g.ctl("203.0.113.0/24 passes from now on\n", "whitelist", "203.0.113.99/24")
	g.ctl("203.0.113.5/32 passes already, by 203.0.113.0/24\n", "whitelist", "203.0.113.5")
	g.passes("203.0.113.6", "one@far.test")
	g.ctl("203.0.113.0/24 removed, which was entered\n", "unwhitelist", "203.0.113.6")
	g.refused("203.0.113.6", "one@far.test")
	g.ctl("2001:db8:1:2::/64 removed, which had proven itself\n", "unwhitelist", "[2001:DB8:1:2:0::99]/64")
	g.refused("2001:db8:1:2::7", "two@far.test")
	g.ctl("", "unwhitelist", "203.0.113.6")
	g.ctl("", "unwhitelist", "everybody")
	g.ctl("", "whitelist", "198.51.100.0/33")
	if out, _, status := g.d.Run("", "smtpctl", "-j", "show", "greylist"); status != 0 || !strings.Contains(out, `{"state":"white","net":"192.0.2.77/32",`) {
		g.Errorf("smtpctl -j: %s", out)
	}
}

// killed ends all processes of the daemon without a word.
func (g *greylisted) killed() {
	g.Helper()
	for _, pid := range g.d.Roles() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			g.Error(err)
		}
	}
	g.d.Exit()
}

// damaged holds that a daemon whose store on disk is hurt comes up, says so, and
// has lost no more than what was hurt.
func (g *greylisted) damaged() {
	var all []string
	for i := range 40 {
		net := fmt.Sprintf("10.%d.0.0/16", i)
		all = append(all, net)
		g.ctl(net+" passes from now on\n", "whitelist", net)
	}
	g.d.Stop()
	name := g.d.Path("spool", "journal", "checkpoint")
	whole, err := os.ReadFile(name)
	if err != nil {
		g.Fatal(err)
	}
	segments, err := filepath.Glob(g.d.Path("spool", "journal", "seg.*"))
	if err != nil || len(segments) == 0 {
		g.Fatal(segments, err)
	}
	for _, f := range segments { // as if they had been used again long since
		if err := os.Remove(f); err != nil {
			g.Fatal(err)
		}
	}
	hurt := append([]byte(nil), whole...)
	hurt[len(hurt)/2] ^= 0xff
	if err := os.WriteFile(name, hurt, 0o600); err != nil {
		g.Fatal(err)
	}
	g.d.Restart()
	g.d.AwaitLog(`warn: queue: damaged checkpoint, kept as corrupt/`)
	var kept []string
	for _, net := range all {
		if g.shown(net) != "" {
			kept = append(kept, net)
		}
	}
	if len(kept) < len(all)-1 {
		g.Fatalf("one byte cost %d networks of %d", len(all)-len(kept), len(all))
	}
	g.passes(netip.MustParsePrefix(kept[0]).Addr().Next().String(), "one@far.test")
}

// proxied is a daemon behind a proxy that says what address a client has.
func proxied(t *testing.T) *greylisted {
	if runtime.GOOS != "linux" {
		t.Skip("needs 127.0.0.2, which Linux alone has by itself")
	}
	d := daemon.New(t, "")
	host := net.JoinHostPort("127.0.0.2", d.Port())
	return &greylisted{t, d, `table users file:` + d.Path("users") + `
filter grey phase rcpt-to match rcpt-to regex ".*" greylist GREY
listen on 127.0.0.1 port $port filter grey
listen on 127.0.0.2 port $port proxy-v2 auth-optional <users> filter grey
action "local" maildir $box
match from any for local action "local"
`, func(from netip.Addr) net.Conn {
		c, err := net.DialTimeout("tcp", host, daemon.Wait)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(proxyHeader(from)); err != nil {
			t.Fatal(err)
		}
		return c
	}}
}

// proxyHeader is what a proxy says of a client.
func proxyHeader(from netip.Addr) []byte {
	family, to := byte(0x11), netip.MustParseAddr("192.0.2.1")
	if from.Is6() {
		family, to = 0x21, netip.MustParseAddr("2001:db8::1")
	}
	both := append(from.AsSlice(), to.AsSlice()...)
	b := append([]byte(fromProxy[:12]), 0x21, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(both)+4))
	return append(append(b, both...), 0x30, 0x39, 0x00, 0x19)
}

// TestGreylist is the life of a greylist, with clients behind a proxy.
func TestGreylist(t *testing.T) {
	t.Parallel()
	g := proxied(t)
	if err := os.WriteFile(g.d.Path("users"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.story()
	g.damaged()
}

// TestGreylistWho is about clients and senders who are treated in their own way.
func TestGreylistWho(t *testing.T) {
	t.Parallel()
	g := proxied(t)
	hash := strings.TrimSpace(g.d.Ctl("encrypt", "secret"))
	if err := os.WriteFile(g.d.Path("users"), []byte("bob "+hash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.configure(patient)
	g.d.Start()
	plain := base64.StdEncoding.EncodeToString([]byte("\x00bob\x00secret"))
	to := "RCPT TO:<" + g.me() + ">"
	for name, tc := range map[string]struct {
		want  string
		lines []string
	}{
		"who has authenticated":  {"250 ", []string{"AUTH PLAIN " + plain, "MAIL FROM:<a@far.test>", to}},
		"who has not":            {greyAgain, []string{"MAIL FROM:<a@far.test>", to}},
		"who only asks":          {"250 ", []string{"MAIL FROM:<>", to}},
		"a bounce":               {greyAgain, []string{"MAIL FROM:<>", to, "DATA"}},
		"a bounce in a chunk":    {greyAgain, []string{"MAIL FROM:<>", to, "BDAT 4 LAST\r\nab"}},
		"beside one that passes": {"503 ", []string{"MAIL FROM:<a@far.test>", to, "DATA"}},
	} {
		if got := g.says("198.51.100.7", tc.lines...); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	lines := []string{"MAIL FROM:<a@far.test>"}
	for range 250 {
		lines = append(lines, to)
	}
	if got := g.says("198.51.100.7", append(lines, "NOOP")...); !strings.HasPrefix(got, "250 ") {
		t.Errorf("after 250 tries: %s", got)
	}
	// Of list members, of days and of signatures there is one triplet.
	for i := range 5 {
		g.refused("203.0.113.1", fmt.Sprintf("bounces-%d=member=x.test@lists.test", i))
		g.refused("203.0.113.1", fmt.Sprintf("prvs=%04d0a1b2c=carl@far.test", i))
		g.refused("203.0.113.1", fmt.Sprintf("SRS0=AB%dX=T%d=far.test=carl@mid.test", i, i))
	}
	if n := strings.Count(g.d.Ctl("show", "greylist"), "|203.0.113.0/24|"); n != 3 {
		t.Errorf("%d triplets", n)
	}
}
