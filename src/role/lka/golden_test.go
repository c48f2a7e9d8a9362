package lka

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

var update = flag.Bool("update", false, "write what the tests get into testdata")

// TestGolden asks the questions of every file in testdata, lines that begin with
// "> ", in the section called ask, and compares the answers. The other sections
// are the world: smtpd.conf first, then files by path, users, and why the
// .forward in a home is refused.
//
//	> to=local[@domain] [src=addr] [from=addr] [auth=user] [helo=] [rdns=] [tag=] [tls] [bounce]
//
// Without src the client is on the local socket; without a domain the recipient
// is of this machine.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) < 8 {
		t.Fatalf("found %d golden files: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			world, questions, found := strings.Cut(string(b), "-- ask --\n")
			if !found {
				t.Fatal("no questions")
			}
			got := answers(t, world, questions)
			if *update {
				if err := os.WriteFile(name, []byte(world+"-- ask --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(questions, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func answers(t *testing.T, text, questions string) string {
	s := newSystem(t, text)
	r := s.role()
	r.current.expand.LibExec = "/libexec"
	var b strings.Builder
	for _, line := range s.log.Take() {
		fmt.Fprintf(&b, "log: %s\n", line)
	}
	for line := range strings.Lines(questions) {
		q, ok := strings.CutPrefix(line, "> ")
		if !ok {
			if strings.HasPrefix(line, "#") || line == "\n" {
				b.WriteString(line)
			}
			continue
		}
		b.WriteString(line)
		b.WriteString(answer(t, s, r, question(t, q)))
	}
	return b.String()
}

func question(t testing.TB, line string) *msg.Expand {
	m := &msg.Expand{Gen: 1, Session: 0xabc, Message: 0x11223344}
	m.Client.Socket = true
	for _, w := range strings.Fields(line) {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "to":
			if m.Rcpt = addr.Cut(v); m.Rcpt.Domain == "" {
				m.Rcpt.Domain = "mail.example.org"
			}
		case "from":
			m.Sender = addr.Cut(v)
		case "src":
			m.Client.Socket, m.Client.Addr = false, netip.AddrPortFrom(netip.MustParseAddr(v), 1025)
		case "auth":
			m.Flags |= envelope.Authenticated
			m.Client.AuthUser = v
		case "helo":
			m.Client.Helo = v
		case "rdns":
			m.Client.RDNS = v
		case "tag":
			m.Client.Tag = v
		case "tls":
			m.Client.TLS = true
		case "bounce":
			m.Flags |= envelope.IsBounce | envelope.Internal
		default:
			t.Fatalf("%q in %q", k, line)
		}
	}
	return m
}

func answer(t testing.TB, s *system, r *Role, m *msg.Expand) string {
	s.sent, s.asked = nil, nil
	reply, fail := ask(t, t.Context(), r, proc.Dispatcher, m)
	var b strings.Builder
	for _, line := range s.log.Take() {
		fmt.Fprintf(&b, "  log: %s\n", line)
	}
	if fail != nil {
		fmt.Fprintf(&b, "  FAIL %v\n", fail)
		return b.String()
	}
	x := reply.(*msg.Expanded)
	if x.Err != nil {
		fmt.Fprintf(&b, "  %s\n", x.Err.Reply())
	}
	if int(x.Added) != len(s.sent) || len(x.Dests) != len(s.sent) {
		t.Errorf("%v: %d added, %d dests, but %d envelopes", m.Rcpt, x.Added, len(x.Dests), len(s.sent))
	}
	for i := range s.sent {
		e := &s.sent[i]
		if e.Dest != x.Dests[i] || e.Rcpt != m.Rcpt {
			t.Errorf("envelope %+v for %v, %v", e, m.Rcpt, x.Dests[i])
		}
		b.WriteString("  " + show(e) + "\n")
	}
	return b.String()
}

func show(e *envelope.Envelope) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s action=%s dest=%s", [...]string{"mda", "mta", "bounce"}[e.Type], e.Action, e.Dest.SMTP())
	for _, f := range []struct{ name, value string }{{"user", e.MDAUser}, {"sub", e.MDASubaddress}, {"exec", e.MDAExec}} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s=%s", f.name, f.value)
		}
	}
	return b.String()
}
