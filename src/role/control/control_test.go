package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/ctl"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/stat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a role on the other side, played by functions.
type peer struct {
	mu    sync.Mutex
	call  func(m *msg.Control) (*msg.ControlRows, error)
	file  func(m *msg.LocalSession, f *os.File) error
	asked []msg.Control
	stats stat.Set
}

func (p *peer) Send(context.Context, msg.Message) error { return errors.New("not expected") }

func (p *peer) CallFile(context.Context, msg.Message, msg.Parser) (*os.File, error) {
	return nil, errors.New("not expected")
}

func (p *peer) SendFile(_ context.Context, m msg.Message, f *os.File) error {
	defer f.Close()
	p.mu.Lock()
	file := p.file
	p.mu.Unlock()
	return file(m.(*msg.LocalSession), f)
}

// onControl and onSession say how the role behaves from now on.
func (p *peer) onControl(fn func(*msg.Control) (*msg.ControlRows, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call = fn
}

func (p *peer) onSession(fn func(*msg.LocalSession, *os.File) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.file = fn
}

func (p *peer) requests() []msg.Control {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *peer) Call(_ context.Context, m msg.Message, reply msg.Parser) error {
	switch m := m.(type) {
	case *msg.Stats:
		return reply.Parse(p.stats.Reply().Append(nil))
	case *msg.Control:
		p.mu.Lock()
		p.asked = append(p.asked, *m)
		call := p.call
		p.mu.Unlock()
		rows, err := call(m)
		if err != nil {
			return err
		}
		return reply.Parse(rows.Append(nil))
	}
	return fmt.Errorf("unexpected %T", m)
}

// fixture is a running control process with fakes around it.
type fixture struct {
	*Role
	path  string
	peers map[proc.Role]*peer
	log   *mlog.Memory
	creds atomic.Pointer[ctl.Creds] // of the next clients
}

func (f *fixture) next(uid uint32) { f.creds.Store(&ctl.Creds{UID: uid, GID: uid}) }

func start(t *testing.T, change func(*proc.Env)) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{path: filepath.Join(dir, "s"), peers: make(map[proc.Role]*peer), log: new(mlog.Memory)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	env := proc.Env{
		Role:  proc.Control,
		Clock: clock.NewSystem(),
		Log:   mlog.New(f.log, true),
		Peers: make(map[proc.Role]proc.Caller),
		Conf: proc.Conf{
			Gen:       1,
			Files:     []proc.File{{Identity: ListenerIdentity, File: file}},
			Resources: proc.Resources{Operators: []uint32{500}},
		},
	}
	for _, r := range []proc.Role{proc.Parent, proc.Queue, proc.Dispatcher, proc.Lookup} {
		f.peers[r] = &peer{call: func(*msg.Control) (*msg.ControlRows, error) {
			return &msg.ControlRows{}, nil
		}}
		env.Peers[r] = f.peers[r]
	}
	if change != nil {
		change(&env)
	}
	f.Role, err = New(env)
	if err != nil {
		t.Fatal(err)
	}
	f.peerOf = func(*net.UnixConn) (ctl.Creds, error) { return *f.creds.Load(), nil }
	f.run(t, dir)
	return f
}

func (f *fixture) run(t *testing.T, dir string) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		os.RemoveAll(dir)
	})
}

// as returns a client with the credentials of uid. Clients are made one after
// the other.
func (f *fixture) as(t *testing.T, uid uint32) *ctl.Client {
	t.Helper()
	f.next(uid)
	c, err := ctl.Dial(t.Context(), f.path, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func refusal(err error) string {
	var r *ctl.Refused
	if errors.As(err, &r) {
		return r.Text
	}
	return fmt.Sprint(err)
}

const (
	root     = 0
	operator = 500
	joe      = 1000
)

// TestPermissions asks every verb as everybody.
func TestPermissions(t *testing.T) {
	f := start(t, nil)
	args := map[msg.Verb][]string{
		msg.VerbEnvelope: {"0123456789abcdef"}, msg.VerbMessage: {"01234567"},
		msg.VerbRemove: {"all"}, msg.VerbSchedule: {"01234567"}, msg.VerbDiscover: {"01234567"},
		msg.VerbPauseEnvelope: {"all"}, msg.VerbResumeEnvelope: {"0123456789abcdef"},
		msg.VerbUpdateTable: {"aliases"}, msg.VerbVerbose: {"1"},
		msg.VerbTrace: {"smtp"}, msg.VerbUntrace: {"all"}, msg.VerbProfile: {"imsg"}, msg.VerbUnprofile: {"queue"},
	}
	mine := map[msg.Verb]bool{msg.VerbList: true, msg.VerbEnvelope: true, msg.VerbMessage: true}
	clients := map[uint32]*ctl.Client{joe: f.as(t, joe), operator: f.as(t, operator), root: f.as(t, root)}
	for _, v := range verbs() {
		if v.name == ctl.VerbSession {
			continue
		}
		for uid, c := range clients {
			_, err := c.Do(ctl.Request{Verb: v.name, Args: args[v.name]}, ctl.Answer{Row: func([]byte) error { return nil }})
			denied := refusal(err) == "permission denied"
			if want := uid == joe && !mine[v.name]; denied != want {
				t.Errorf("%s by uid %d: %v", v.name, uid, err)
			}
		}
	}
	for _, m := range f.peers[proc.Queue].requests() {
		if m.Operator != (m.UID != joe) || m.UID == joe && !mine[m.Verb] {
			t.Errorf("queue was asked %+v", m)
		}
	}
	if n := len(f.peers[proc.Queue].requests()); n < 20 {
		t.Errorf("queue was asked %d times only", n)
	}
}

func TestArguments(t *testing.T) {
	f := start(t, nil)
	c := f.as(t, root)
	for _, tc := range []struct {
		verb msg.Verb
		args []string
		want string
	}{
		{"shutdown", nil, "unknown command"},
		{"", nil, "unknown command"},
		{msg.VerbList, []string{"x"}, "not a message id"},
		{msg.VerbList, []string{"01234567", "01234567"}, "2 arguments"},
		{msg.VerbRemove, nil, "0 arguments"},
		{msg.VerbRemove, []string{"everything"}, "not an envelope id"},
		{msg.VerbRemove, []string{"../../x"}, "not a message id"},
		{msg.VerbMessage, []string{"0123456789abcdef"}, "not a message id"},
		{msg.VerbUpdateTable, []string{"a\nb"}, "not a table name"},
		{msg.VerbUpdateTable, []string{""}, "1 to 255"},
		{msg.VerbUpdateTable, []string{strings.Repeat("a", 256)}, "1 to 255"},
		{msg.VerbVerbose, []string{"2"}, "not one of 0, 1"},
		{msg.VerbTrace, []string{"everything"}, "not one of"},
		{msg.VerbReload, []string{"now"}, "1 arguments"},
	} {
		if _, err := c.Do(ctl.Request{Verb: tc.verb, Args: tc.args}, ctl.Answer{}); !strings.Contains(refusal(err), tc.want) {
			t.Errorf("%s %q: %v, want %q", tc.verb, tc.args, err, tc.want)
		}
	}
	for _, p := range f.peers {
		if len(p.requests()) > 0 {
			t.Errorf("a role was asked %+v", p.requests())
		}
	}
}

func TestPages(t *testing.T) {
	f := start(t, nil)
	f.peers[proc.Queue].onControl(func(m *msg.Control) (*msg.ControlRows, error) {
		n := 0
		if m.Cursor != "" {
			fmt.Sscan(m.Cursor, &n)
		}
		r := &msg.ControlRows{Rows: [][]byte{fmt.Appendf(nil, "%d", n)}, Count: 1}
		if n < 9 {
			r.Next = fmt.Sprint(n + 1)
		}
		return r, nil
	})
	var got []string
	n, err := f.as(t, root).Do(ctl.Request{Verb: msg.VerbList}, ctl.Answer{Row: func(b []byte) error {
		got = append(got, string(b))
		return nil
	}})
	if err != nil || n != 10 || strings.Join(got, "") != "0123456789" {
		t.Errorf("%d, %v, %v", n, err, got)
	}
	// A role that gives the same cursor for ever does not hold us for ever.
	f.peers[proc.Queue].onControl(func(*msg.Control) (*msg.ControlRows, error) {
		return &msg.ControlRows{Next: "7"}, nil
	})
	if _, err := f.as(t, root).Do(ctl.Request{Verb: msg.VerbList}, ctl.Answer{}); !strings.Contains(refusal(err), "does not get beyond") {
		t.Errorf("got %v", err)
	}
}

// TestBackPressure holds that the next page is fetched only when the client has
// taken the one before, and that others are served meanwhile.
func TestBackPressure(t *testing.T) {
	f := start(t, nil)
	pages := make(chan struct{}, 1000)
	f.peers[proc.Queue].onControl(func(m *msg.Control) (*msg.ControlRows, error) {
		if len(m.Args) > 0 {
			return &msg.ControlRows{}, nil
		}
		pages <- struct{}{}
		return &msg.ControlRows{Raw: make([]byte, msg.ControlPage), Next: m.Cursor + "x"}, nil
	})
	slow := f.as(t, root)
	first := make(chan struct{})
	hold := make(chan struct{})
	gone := errors.New("gone")
	done := make(chan error)
	go func() {
		once := sync.OnceFunc(func() { close(first) })
		_, err := slow.Do(ctl.Request{Verb: msg.VerbList}, ctl.Answer{Raw: func([]byte) error {
			once()
			<-hold
			return gone
		}})
		done <- err
	}()
	<-first
	other := f.as(t, joe)
	for range 100 {
		if _, err := other.Do(ctl.Request{Verb: msg.VerbList, Args: []string{"01234567"}}, ctl.Answer{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(pages); n > 8 {
		t.Errorf("%d pages were fetched for a client that does not read", n)
	}
	close(hold)
	if err := <-done; !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestRoleFails(t *testing.T) {
	f := start(t, nil)
	for _, tc := range []struct {
		err  error
		uid  uint32
		want ctl.Refused
	}{
		{mailerr.Permanent(550, 0, 0, "no such envelope", nil), joe, ctl.Refused{Text: "no such envelope"}},
		{mailerr.Local(errors.New("disk is on fire")), root, ctl.Refused{Text: "disk is on fire", Temp: true}},
		{mailerr.Local(errors.New("disk is on fire")), joe, ctl.Refused{Text: "Temporary failure", Temp: true}},
		{errors.New("peer is gone"), joe, ctl.Refused{Text: "Temporary failure", Temp: true}},
	} {
		f.peers[proc.Queue].onControl(func(*msg.Control) (*msg.ControlRows, error) { return nil, tc.err })
		_, err := f.as(t, tc.uid).Do(ctl.Request{Verb: msg.VerbList}, ctl.Answer{})
		var r *ctl.Refused
		if !errors.As(err, &r) || *r != tc.want {
			t.Errorf("%v: got %+v, want %+v", tc.err, err, tc.want)
		}
	}
}

func TestSession(t *testing.T) {
	f := start(t, nil)
	f.peers[proc.Dispatcher].onSession(func(m *msg.LocalSession, file *os.File) error {
		if m.UID != joe || m.GID != joe {
			t.Errorf("session of %+v", m)
		}
		c, err := net.FileConn(file)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.WriteString(c, "220 ready\r\n")
		return err
	})
	c := f.as(t, joe)
	conn, err := c.Session()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if line != "220 ready\r\n" {
		t.Errorf("got %q, %v", line, err)
	}

	f.peers[proc.Dispatcher].onSession(func(*msg.LocalSession, *os.File) error { return errors.New("gone") })
	if _, err := c.Session(); refusal(err) != "Temporary failure" {
		t.Errorf("dispatcher gone: %v", err)
	}
	if _, err := f.as(t, root).Do(ctl.Request{Verb: msg.VerbPauseSMTP}, ctl.Answer{}); err != nil {
		t.Fatal(err)
	}
	var r *ctl.Refused
	if _, err := c.Session(); !errors.As(err, &r) || !r.Temp || r.Text != "smtp is paused" {
		t.Errorf("paused: %v", err)
	}
}

func TestPauseAndStatus(t *testing.T) {
	f := start(t, func(env *proc.Env) { env.Paused = []string{"mta"} })
	c := f.as(t, root)
	do := func(v msg.Verb, want string) {
		t.Helper()
		if _, err := c.Do(ctl.Request{Verb: v}, ctl.Answer{}); refusal(err) != want {
			t.Errorf("%s: %v, want %s", v, err, want)
		}
	}
	status := func() (row ctl.StatusRow) {
		t.Helper()
		_, err := c.Do(ctl.Request{Verb: ctl.VerbStatus}, ctl.Answer{Row: func(b []byte) error { return json.Unmarshal(b, &row) }})
		if err != nil {
			t.Error(err)
		}
		return row
	}
	if got, want := status(), (ctl.StatusRow{MDA: "running", MTA: "paused", SMTP: "running"}); got != want {
		t.Errorf("at first: %v", got)
	}
	do(msg.VerbPauseMTA, "mta is already paused")
	do(msg.VerbPauseMDA, "<nil>")
	do(msg.VerbPauseMDA, "mda is already paused")
	do(msg.VerbResumeMTA, "<nil>")
	do(msg.VerbResumeSMTP, "smtp is already running")
	f.peers[proc.Dispatcher].onControl(func(*msg.Control) (*msg.ControlRows, error) {
		return nil, mailerr.Local(errors.New("no"))
	})
	do(msg.VerbPauseSMTP, "no")
	if got, want := status(), (ctl.StatusRow{MDA: "paused", MTA: "running", SMTP: "running"}); got != want {
		t.Errorf("after all: %v", got)
	}
	if !f.log.Has("info: mda paused") || !f.log.Has("info: mta resumed") || f.log.Has("smtp paused") {
		t.Errorf("log: %v", f.log)
	}
	if n := len(f.peers[proc.Queue].requests()); n != 2 {
		t.Errorf("queue was asked %d times, want 2", n)
	}
}

func TestStats(t *testing.T) {
	f := start(t, nil)
	f.peers[proc.Dispatcher].stats.Counter(stat.SMTPSession).Add(5)
	f.peers[proc.Dispatcher].stats.Counter(stat.SMTPSession).Sub(3)
	f.peers[proc.Queue].stats.Counter(stat.DeliveryOK).Add(4)
	f.peers[proc.Lookup].stats.Counter(stat.DeliveryOK).Add(1)
	c := f.as(t, root)
	got := map[string]int64{}
	last := ""
	_, err := c.Do(ctl.Request{Verb: ctl.VerbStats}, ctl.Answer{Row: func(b []byte) error {
		var row ctl.StatRow
		if err := json.Unmarshal(b, &row); err != nil {
			return err
		}
		if row.Key <= last {
			t.Errorf("%s comes after %s", row.Key, last)
		}
		last = row.Key
		got[row.Key] = row.Value
		return nil
	}})
	if _, ok := got["uptime"]; !ok || err != nil {
		t.Errorf("no uptime, %v", err)
	}
	delete(got, "uptime")
	if diff := cmp.Diff(map[string]int64{stat.SMTPSession: 2, stat.DeliveryOK: 5, stat.ControlSession: 1}, got); diff != "" {
		t.Error(diff)
	}
	var d ctl.DigestRow
	_, err = c.Do(ctl.Request{Verb: ctl.VerbDigest}, ctl.Answer{Row: func(b []byte) error { return json.Unmarshal(b, &d) }})
	if want := (ctl.DigestRow{ClientConnect: 5, ClientDisconnect: 3, OK: 5}); d != want || err != nil {
		t.Errorf("digest %+v, %v", d, err)
	}
}

func TestLimitPerUser(t *testing.T) {
	f := start(t, nil)
	var clients []*ctl.Client
	for range maxPerUser {
		clients = append(clients, f.as(t, joe))
	}
	if _, err := ctl.Dial(t.Context(), f.path, "x"); refusal(err) != "too many connections" {
		t.Errorf("one more: %v", err)
	}
	if !f.log.Has("too many connections to control socket from user with uid 1000") {
		t.Errorf("log: %v", f.log)
	}
	// Another user and root are served all the same.
	for _, uid := range []uint32{joe + 1, root} {
		if _, err := f.as(t, uid).Do(ctl.Request{Verb: msg.VerbList}, ctl.Answer{}); err != nil {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
	clients[0].Close()
	f.next(joe)
	for {
		c, err := ctl.Dial(t.Context(), f.path, "x")
		if err == nil {
			c.Close()
			break
		}
		if refusal(err) != "too many connections" {
			t.Fatal(err)
		}
	}
}

// TestHalfOpen opens more connections than a user may and says nothing.
func TestHalfOpen(t *testing.T) {
	f := start(t, nil)
	f.next(joe)
	for range 60 {
		c, err := net.Dial("unix", f.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	f.log.Await("too many connections")
	if _, err := f.as(t, root).Do(ctl.Request{Verb: ctl.VerbStatus}, ctl.Answer{Row: func([]byte) error { return nil }}); err != nil {
		t.Errorf("root is kept out: %v", err)
	}
}

func TestGarbage(t *testing.T) {
	f := start(t, nil)
	f.next(joe)
	for _, say := range []string{"\x00", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 1<<20)} {
		c, err := net.Dial("unix", f.path)
		if err != nil {
			t.Fatal(err)
		}
		// The other side may hang up before all is written.
		_, _ = io.WriteString(c, say)
		c.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	if _, err := f.as(t, root).Do(ctl.Request{Verb: msg.VerbList}, ctl.Answer{}); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

func TestReload(t *testing.T) {
	f := start(t, nil)
	may := func(uid uint32) bool {
		t.Helper()
		_, err := f.as(t, uid).Do(ctl.Request{Verb: msg.VerbRemove, Args: []string{"all"}}, ctl.Answer{})
		return err == nil
	}
	conf := func(gen mail.Gen, uids ...uint32) proc.Conf {
		return proc.Conf{Gen: gen, Resources: proc.Resources{Operators: uids}}
	}
	if err := f.Prepare(t.Context(), conf(2, joe)); err != nil {
		t.Fatal(err)
	}
	if !may(operator) || may(joe) {
		t.Error("a prepared generation is in force")
	}
	f.Abort(2)
	if err := f.Prepare(t.Context(), conf(3, joe)); err != nil {
		t.Fatal(err)
	}
	f.Commit(3)
	if may(operator) || !may(joe) {
		t.Error("a committed generation is not in force")
	}
}

func TestUnprivileged(t *testing.T) {
	f := start(t, func(env *proc.Env) { env.Unprivileged = true })
	status := ctl.Request{Verb: ctl.VerbStatus}
	if _, err := f.as(t, root).Do(status, ctl.Answer{Row: func([]byte) error { return nil }}); err != nil {
		t.Fatal(err) // Run has begun when this is answered
	}
	f.mu.Lock()
	f.owner = joe
	f.mu.Unlock()
	if _, err := f.as(t, joe).Do(ctl.Request{Verb: msg.VerbReload}, ctl.Answer{}); err != nil {
		t.Errorf("the owner may not reload: %v", err)
	}
	if _, err := f.as(t, joe+1).Do(ctl.Request{Verb: msg.VerbReload}, ctl.Answer{}); refusal(err) != "permission denied" {
		t.Errorf("a stranger: %v", err)
	}
}

func TestNewFails(t *testing.T) {
	env := proc.Env{Clock: clock.NewSystem()}
	if _, err := New(env); err == nil {
		t.Error("no socket is no error")
	}
	file, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	env.Conf.Files = []proc.File{{Identity: ListenerIdentity, File: file}}
	if _, err := New(env); err == nil {
		t.Error("a plain file is no error")
	}
}
