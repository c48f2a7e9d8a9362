package regress

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"opensmtpd/src/regress/daemon"
)

// zone is what the name server of a test knows.
type zone struct {
	t       *testing.T
	records []dns.RR
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	ask := q.Question[0]
	known := false
	for _, rr := range z.records {
		if !strings.EqualFold(rr.Header().Name, ask.Name) {
			continue
		}
		known = true
		if rr.Header().Rrtype == ask.Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	switch {
	case strings.HasSuffix(strings.ToLower(ask.Name), "broken.test."):
		m.Rcode = dns.RcodeServerFailure
	case !known:
		m.Rcode = dns.RcodeNameError
	}
	if err := w.WriteMsg(m); err != nil {
		z.t.Logf("name server: %v", err)
	}
}

// nameServer makes a name server of ours that of the machine, until the test
// ends.
func nameServer(t *testing.T, d *daemon.Daemon, records string) {
	t.Helper()
	z := &zone{t: t}
	for line := range strings.Lines(records) {
		rr, err := dns.NewRR(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			z.records = append(z.records, rr)
		}
	}
	pc, err := net.ListenPacket("udp", "127.0.0.53:53")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: z}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ActivateAndServe()
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
	})
	if err := os.WriteFile(d.Path("resolv.conf"), []byte("nameserver 127.0.0.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, "mount", "--bind", d.Path("resolv.conf"), "/etc/resolv.conf")
	undo(t, "umount", "/etc/resolv.conf")
}

// undo runs a command when the test has ended.
func undo(t *testing.T, name string, args ...string) {
	t.Cleanup(func() {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %v: %v: %s", name, args, err, out)
		}
	})
}

// TestRelayMX finds its way by DNS: to the second server when the first does not
// answer, to the host itself without an MX; to nobody by a null MX (RFC 7505) or
// localhost, and not back to itself.
func TestRelayMX(t *testing.T) {
	privileged(t)
	clearSpool(t)
	for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.9"} {
		sh(t, "ip", "addr", "add", a+"/32", "dev", "lo")
		undo(t, "ip", "addr", "del", a+"/32", "dev", "lo")
	}
	p := newPeerAt(t, "192.0.2.2:25", nil)
	d := daemon.NewRoot(t, `listen on 127.0.0.1 port $port
listen on 192.0.2.9 port 25
action "out" relay
match for any action "out"
`)
	nameServer(t, d, `two.test. 60 IN MX 10 a.two.test.
		two.test. 60 IN MX 20 b.two.test.
		a.two.test. 60 IN A 192.0.2.1
		b.two.test. 60 IN A 192.0.2.2
		alone.test. 60 IN A 192.0.2.2
		null.test. 60 IN MX 0 .
		local.test. 60 IN MX 10 localhost.
		own.test. 60 IN MX 10 us.own.test.
		us.own.test. 60 IN A 192.0.2.9
		behind.test. 60 IN MX 5 b.two.test.
		behind.test. 60 IN MX 10 us.own.test.
	`)
	d.Start()
	for domain, want := range map[string]string{
		"two.test":    `relay="192\.0\.2\.2.*result="Ok"`,
		"alone.test":  `relay="192\.0\.2\.2.*result="Ok"`,
		"behind.test": `relay="192\.0\.2\.2.*result="Ok"`,
		"null.test":   `result="PermFail" stat=".*does not accept mail`,
		"local.test":  `result="PermFail" stat=".*does not accept mail`,
		"gone.test":   `result="PermFail" stat="Domain does not exist`,
		"own.test":    `result="PermFail" stat="Mail for own\.test loops back to this host`,
		"broken.test": `result="TempFail" stat="Temporary failure in MX lookup`,
	} {
		t.Run(domain, func(t *testing.T) {
			submit(t, d, "joe@here.example", "a@"+domain)
			d.AwaitLog(`mta delivery .*to=<a@` + domain + `> .*` + want)
		})
	}
	if n := len(p.got()); n != 3 {
		t.Errorf("%d messages arrived", n)
	}
}
