package smtpctl

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-crypt/crypt/algorithm/bcrypt"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"opensmtpd/src/crypt"

	"opensmtpd/src/clock"
	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/privsep/msg"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve plays control: fn answers every request. The state directory is
// returned.
func serve(t *testing.T, fn func(*ctl.ServerConn, ctl.Request) error) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sc")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "smtpd.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			s := ctl.NewServerConn(c, time.Now, time.Minute)
			err = s.Hello("x")
			for err == nil {
				var q ctl.Request
				if q, err = s.Request(); err == nil {
					err = fn(s, q)
				}
			}
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return dir
}

func row(s *ctl.ServerConn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.Rows([][]byte{b}, nil)
}

// daemon answers as a daemon with a few envelopes does. What it was asked comes
// first, as raw content where the command shows that.
func daemon(s *ctl.ServerConn, q ctl.Request) error {
	switch q.Verb {
	case msg.VerbList:
		if err := rows(s, q.Args); err != nil {
			return err
		}
	case msg.VerbEnvelope, msg.VerbMessage:
		if err := s.Rows(nil, fmt.Appendf(nil, "%s %s\n", q.Verb, q.Args)); err != nil {
			return err
		}
	case msg.VerbRemove, msg.VerbSchedule, msg.VerbPauseEnvelope, msg.VerbResumeEnvelope, msg.VerbDiscover:
		counts := map[string]uint32{"all": 3, "01234567": 1, "0123456789abcdef": 0}
		return s.Done(counts[q.Args[0]])
	case ctl.VerbStatus:
		if err := row(s, ctl.StatusRow{MDA: "running", MTA: "paused", SMTP: "running"}); err != nil {
			return err
		}
	case ctl.VerbStats:
		for _, r := range []ctl.StatRow{{Key: "mda.running", Value: 2}, {Key: "smtp.session", Value: -1}, {Key: "uptime", Value: 90061}} {
			if err := row(s, r); err != nil {
				return err
			}
		}
	case msg.VerbShowGreylist:
		for _, r := range []ctl.GreyRow{
			{State: "white", Net: "192.0.2.0/24", Name: "mail.example.org", First: 1000, Until: 2000},
			{State: "white", Net: "2001:db8::/32", First: 1000},
			{State: "grey", Net: "198.51.100.0/24", Rcpt: "joe\n|@host", First: 1000, Ready: 1500, Until: 2000},
		} {
			if err := row(s, r); err != nil {
				return err
			}
		}
	case msg.VerbWhitelist, msg.VerbUnwhitelist:
		r, ok := map[string]ctl.PassRow{
			"192.0.2.1":    {Net: "192.0.2.1/32", Done: ctl.PassAdded},
			"192.0.2.2":    {Net: "192.0.2.2/32", Done: ctl.PassCovered, By: "192.0.2.2/32"},
			"192.0.2.3":    {Net: "192.0.2.3/32", Done: ctl.PassCovered, By: "192.0.2.0/24"},
			"192.0.2.0/24": {Net: "192.0.2.0/24", Done: ctl.PassRemoved},
			"192.0.2.0/23": {Net: "192.0.2.0/23", Done: ctl.PassRemoved, Entered: true},
		}[q.Args[0]]
		if !ok {
			return s.Fail(&ctl.Refused{Text: "nothing in the whitelist has to do with " + q.Args[0]})
		}
		if err := row(s, r); err != nil {
			return err
		}
	case msg.VerbPauseMTA:
		return s.Fail(&ctl.Refused{Text: "mta is already paused"})
	case msg.VerbReload:
		return s.Fail(&ctl.Refused{})
	case msg.VerbUpdateTable:
		if q.Args[0] != "aliases" {
			return s.Fail(&ctl.Refused{Text: "no table " + q.Args[0]})
		}
	}
	return s.Done(0)
}

func rows(s *ctl.ServerConn, args []string) error {
	list := []ctl.QueueRow{
		{
			ID: "0123456789abcdef", Source: "inet4", Type: "mda", Sender: "a@b", Rcpt: "joe@host", Dest: "joe@host",
			Created: 1000, Expires: 346600, LastTry: 1010, Retry: 2, State: "pending", Seconds: -3,
			Error: "mailbox full\r\nx\\|\xe9\x80",
		},
		{
			ID: "0123456700000001", Source: "local", Type: "bounce", Flags: []string{"bounce", "internal", "hold"},
			Rcpt: "root", Dest: "\"a b\"@c", Created: 2000, Expires: 3000, State: "inflight", Seconds: 7,
		},
		{ID: "89abcdef00000001", Source: "inet6", Type: "mta", Flags: []string{"auth"}, Sender: "x@y", State: "invalid"},
	}
	for _, r := range list {
		if len(args) > 0 && !strings.HasPrefix(r.ID, args[0]) {
			continue
		}
		if err := row(s, r); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, dir, stdin, name string, args ...string) string {
	var out strings.Builder
	call := &invoke.Call{
		Name: name, Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: prefixed{&out},
		Getenv: func(string) string { return dir },
		Clock:  clock.NewFake(time.Unix(0, 0)),
	}
	status := Run(ctx, call)
	return out.String() + fmt.Sprintf("status %d\n", status)
}

// prefixed marks what goes to stderr.
type prefixed struct{ b *strings.Builder }

func (p prefixed) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		p.b.WriteString("stderr: " + line)
	}
	return len(b), nil
}

// TestGolden runs every line of testdata/commands and compares what it prints.
func TestGolden(t *testing.T) {
	commands, err := os.ReadFile("testdata/commands")
	if err != nil {
		t.Fatal(err)
	}
	dir := serve(t, daemon)
	var got strings.Builder
	for line := range strings.Lines(string(commands)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		fmt.Fprintf(&got, "$ %s\n%s\n", strings.Join(words, " "), run(t.Context(), dir, "", words[0], words[1:]...))
	}
	if *update {
		if err := os.WriteFile("testdata/commands.golden", []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/commands.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Error(diff)
	}
}

// TestEveryCommand finds each command of the table by its own words.
func TestEveryCommand(t *testing.T) {
	example := map[string]string{"<evpid>": "0123456789abcdef", "<msgid>": "01234567", "<routeid>": "3", "<str>": "word", "<words>": "word"}
	table := commands()
	for i := range table {
		var args, params []string
		for _, w := range table[i].words {
			if e, ok := example[w]; ok {
				params = append(params, e)
				w = e
			}
			args = append(args, w)
		}
		c, got, _ := find(table, args)
		if c != &table[i] || !cmp.Equal(got, params) {
			t.Errorf("%q finds %v with %q", args, c, got)
		}
	}
}

func TestNotRunning(t *testing.T) {
	for _, args := range []string{"show queue", "remove all", "reload", "log brief", "monitor"} {
		got := run(t.Context(), t.TempDir(), "", "smtpctl", strings.Fields(args)...)
		if want := "stderr: smtpctl: smtpd doesn't seem to be running\nstatus 1\n"; got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	if got := run(t.Context(), t.TempDir(), "", "mailq"); !strings.Contains(got, "mailq: smtpd doesn't seem") {
		t.Errorf("mailq: %q", got)
	}
}

func TestStateOption(t *testing.T) {
	dir := serve(t, daemon)
	if got := run(t.Context(), "/nonexistent", "", "smtpctl", "-S", dir, "show", "status"); !strings.HasPrefix(got, "MDA running\n") {
		t.Errorf("got %q", got)
	}
}

func TestBadAnswer(t *testing.T) {
	dir := serve(t, func(s *ctl.ServerConn, _ ctl.Request) error {
		return s.Rows([][]byte{[]byte("{")}, nil)
	})
	if got := run(t.Context(), dir, "", "smtpctl", "show", "queue"); !strings.Contains(got, "answer of smtpd") || !strings.HasSuffix(got, "status 1\n") {
		t.Errorf("got %q", got)
	}
}

func TestMonitor(t *testing.T) {
	n := int64(0)
	dir := serve(t, func(s *ctl.ServerConn, _ ctl.Request) error {
		n++
		if n == 28 {
			return s.Fail(&ctl.Refused{Text: "enough"})
		}
		if err := row(s, ctl.DigestRow{ClientConnect: 3 * n, ClientDisconnect: 2 * n, Enqueued: 1000 * n, Bounce: 1}); err != nil {
			return err
		}
		return s.Done(0)
	})
	fake := clock.NewFake(time.Unix(0, 0))
	var out strings.Builder
	call := &invoke.Call{
		Name: "smtpctl", Args: []string{"monitor"}, Stdout: &out, Stderr: prefixed{&out},
		Getenv: func(string) string { return dir }, Clock: fake,
	}
	done := make(chan int)
	go func() { done <- Run(t.Context(), call) }()
	for range 27 {
		fake.BlockUntil(1)
		fake.Advance(time.Second)
	}
	if status := <-done; status != 1 {
		t.Errorf("status %d", status)
	}
	lines := strings.Split(out.String(), "\n")
	want := map[int]string{
		0:  "--- client ---  -- envelope --   ---- relay/delivery --- ------- misc -------",
		1:  "curr conn disc  curr  enq  deq   ok tmpfail prmfail loop expire remove bounce",
		2:  "   1    3    2  1000 1000    0    0       0       0    0      0      0      1",
		3:  "   2    3    2  2000 1000    0    0       0       0    0      0      0      0",
		27: "",
		28: "--- client ---  -- envelope --   ---- relay/delivery --- ------- misc -------",
		32: "stderr: smtpctl: enough",
	}
	for i, w := range want {
		if i >= len(lines) || lines[i] != w {
			t.Errorf("line %d: %q, want %q", i, lines[min(i, len(lines)-1)], w)
		}
	}
}

func TestMonitorEnds(t *testing.T) {
	dir := serve(t, daemon)
	ctx, cancel := context.WithCancel(t.Context())
	fake := clock.NewFake(time.Unix(0, 0))
	call := &invoke.Call{
		Name: "smtpctl", Args: []string{"-j", "monitor"}, Stdout: &strings.Builder{}, Stderr: &strings.Builder{},
		Getenv: func(string) string { return dir }, Clock: fake,
	}
	done := make(chan int)
	go func() { done <- Run(ctx, call) }()
	fake.BlockUntil(1)
	cancel()
	if status := <-done; status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestEncrypt(t *testing.T) {
	check := func(hash, password string) {
		t.Helper()
		d, err := bcrypt.Decode(hash)
		if err != nil {
			t.Fatalf("%q: %v", hash, err)
		}
		if !strings.HasPrefix(hash, "$2b$") || !d.Match(password) || d.Match(password+"x") {
			t.Errorf("%q is no hash of %q", hash, password)
		}
	}
	hashes := func(out string) []string {
		t.Helper()
		text, ok := strings.CutSuffix(out, "status 0\n")
		if !ok {
			t.Fatalf("got %q", out)
		}
		return strings.Fields(text)
	}
	one := hashes(run(t.Context(), "", "", "smtpctl", "encrypt", "secret"))
	check(one[0], "secret")
	two := hashes(run(t.Context(), "", "first\nsecond word\r\n", "smtpctl", "enc"))
	if len(two) != 2 {
		t.Fatalf("%d hashes of 2 lines", len(two))
	}
	check(two[0], "first")
	check(two[1], "second word")
	for _, args := range [][]string{{"-s", "sha512", "secret"}, {"-s", "sha512"}} {
		out := hashes(run(t.Context(), "", "secret\n", "smtpctl", append([]string{"encrypt"}, args...)...))
		if h, err := crypt.Parse(out[0]); err != nil || !strings.HasPrefix(out[0], "$6$") || !h.Matches("secret") {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
	if got := run(t.Context(), "", "x\n", "smtpctl", "encrypt", "-s", "rot13"); !strings.Contains(got, "argon2id") || !strings.HasSuffix(got, "status 1\n") {
		t.Errorf("unknown scheme: %q", got)
	}
	for _, bad := range []string{strings.Repeat("x", 73), "a\x00b", ""} {
		if got := run(t.Context(), "", bad+"\n", "smtpctl", "encrypt"); !strings.HasSuffix(got, "status 1\n") {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[int64]string{0: "0s", 59: "59s", 3600: "1h", 90061: "1d1h1m1s", -61: "-1m1s"} {
		if got := duration(in); got != want {
			t.Errorf("%d: %s, want %s", in, got, want)
		}
	}
}
