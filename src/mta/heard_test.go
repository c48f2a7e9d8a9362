package mta

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/filter"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
)

// hearing lets a program hear of all sessions of w, and returns what waits until
// one has ended and returns what it heard of that.
func hearing(w *world) func() string {
	w.t.Helper()
	ours, theirs, err := imsg.Pair()
	if err != nil {
		w.t.Fatal(err)
	}
	nc, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	ps := filter.NewPrograms(clock.NewSystem(), mlog.New(&w.log, true), func(string) {})
	d := &project.DispatcherConf{
		Procs:   []project.Proc{{Name: "p", Identity: "p"}},
		Filters: []project.Filter{{Name: "f", Kind: conf.FilterProc, Proc: "p"}},
		Relays:  []project.RelayAction{{Name: defaultRelay, Filter: "f"}},
	}
	programs, err := ps.Prepare(d, func(string) *os.File { return ours })
	if err != nil {
		w.t.Fatal(err)
	}
	w.conf.Actions[defaultRelay].ToldTo(filter.New(filter.Options{Clock: clock.NewSystem(), Programs: programs}, d).Outbound("f"))
	ended := make(chan string, 10)
	var wg sync.WaitGroup
	wg.Go(func() { hear(nc, ended) })
	w.t.Cleanup(func() {
		over, now := context.WithCancel(context.Background())
		now()
		w.Stop(over) // the sessions, before who hears of them
		ps.Close()
		wg.Wait()
	})
	return func() string { return <-ended }
}

// hear is the program.
func hear(nc net.Conn, ended chan<- string) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 7)
		switch {
		case f[0] == "config" && f[1] == "ready":
			io.WriteString(nc, "register|report|smtp-out|*\nregister|ready\n")
		case f[0] == "report" && f[4] == "link-disconnect":
			b.WriteString(f[4])
			ended <- b.String()
			b.Reset()
		case f[0] == "report":
			b.WriteString(f[4] + " " + varying.ReplaceAllString(strings.Join(f[6:], ""), "$1") + "\n")
		}
	}
}

// varying is what differs from run to run, our port; and, to be short, the message
// where more follows.
var varying = regexp.MustCompile(`:\d+(\|192.*)$|^\d{8}\|`)

// TestHeard holds what a filter program hears of sessions with servers, which
// take one command after the other as in OpenSMTPD; what comes of RSET and QUIT
// depends on how the session ends, and is left out.
func TestHeard(t *testing.T) {
	const ehlo = "250-far.example\r\n250 8BITMIME"
	const begin = `link-connect host.example|pass|127.0.0.1|192.0.2.1:25
protocol-server 220 far.example ESMTP
link-greeting far.example
protocol-client EHLO mx.here.example
link-identify EHLO|mx.here.example
protocol-server 250-far.example
protocol-server 250 8BITMIME
protocol-client MAIL FROM:<sender@here.example>
`
	const taken = `protocol-server 250 2.0.0 ok
tx-begin 00000001
tx-mail ok|sender@here.example
`
	const first = taken + `protocol-client RCPT TO:<b@far.example>
protocol-server 250 2.1.5 ok
tx-envelope ENV
tx-rcpt ok|b@far.example
`
	const gone, commit = "tx-rollback 00000001\ntx-reset 00000001\n", "protocol-server 250 2.0.0 taken\ntx-commit 51\ntx-reset 00000001\n"
	const data = "protocol-client DATA\nprotocol-server 354 go on\ntx-data ok\nprotocol-client .\n"
	for name, tc := range map[string]struct {
		verb, reply string
		rcpts       string
		want        string
	}{
		"taken":           {"", "", "b", begin + first + data + commit},
		"sender refused":  {"MAIL", "550 no", "b", begin + "protocol-server 550 no\ntx-mail permfail|sender@here.example\n"},
		"nobody taken":    {"RCPT", "450 no", "b", begin + taken + "protocol-client RCPT TO:<b@far.example>\nprotocol-server 450 no\ntx-envelope ENV\ntx-rcpt tempfail|b@far.example\n" + gone},
		"some taken":      {"RCPT c", "550 no", "b c", begin + first + "protocol-client RCPT TO:<c@far.example>\nprotocol-server 550 no\ntx-envelope ENV\ntx-rcpt permfail|c@far.example\n" + data + commit},
		"DATA refused":    {"DATA", "550 no", "b", begin + first + "protocol-client DATA\nprotocol-server 550 no\ntx-data permfail\n" + gone},
		"message refused": {"END", "550 no", "b", begin + first + data + "protocol-server 550 no\n" + gone},
		"closed":          {"DATA", "", "b", begin + first + "protocol-client DATA\n" + gone},
		"no greeting":     {"BANNER", "554 no", "b", "link-connect host.example|pass|127.0.0.1|192.0.2.1:25\nprotocol-server 554 no\n"},
		"odd name":        {"BANNER", "220 -odd!", "b", strings.NewReplacer("220 far.example ESMTP", "220 -odd!", "greeting far.example", "greeting ").Replace(begin+first) + data + commit},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{say: map[string]string{"EHLO": ehlo}}
			if tc.verb != "" {
				s.say[tc.verb] = tc.reply
			}
			w := far(t, s)
			heard := hearing(w)
			var rcpts []string
			for _, r := range strings.Fields(tc.rcpts) {
				rcpts = append(rcpts, r+"@far.example")
			}
			task := w.task(rcpts...)
			want := strings.ReplaceAll(tc.want, "00000001\n", task.Envelopes[0].ID.Message().String()+"\n")
			for i := range task.Envelopes {
				want = strings.Replace(want, "ENV", task.Envelopes[i].ID.String(), 1)
			}
			w.send(task)
			over, now := context.WithCancel(context.Background())
			now()
			w.Stop(over)
			got := heard()
			if rest, found := strings.CutPrefix(got, want); !found || strings.Contains(rest, "tx-") {
				t.Errorf("(-want +got)\n%s", cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
			}
		})
	}
}
