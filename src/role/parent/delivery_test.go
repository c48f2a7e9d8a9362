package parent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

// TestMain lets the test binary be the agent that the tests start.
func TestMain(m *testing.M) {
	switch os.Getenv("PARENT_TEST_AGENT") {
	case "":
		os.Exit(m.Run())
	case "stuck": // does not even notice that its links are gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	if err := beAgent(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func beAgent() error {
	link, err := imsg.Inherited(3)
	if err != nil {
		return err
	}
	var queue *os.File
	if os.Getenv("PARENT_TEST_AGENT") == "queue" {
		if queue, err = imsg.Inherited(4); err != nil {
			return err
		}
	}
	return mda.Serve(context.Background(), link, queue)
}

// starter starts the test binary as an agent.
type starter struct {
	t       *testing.T
	program string // "": this binary
	stuck   bool
	fail    error

	mu    sync.Mutex
	count int
	last  *started
}

type started struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	killed chan struct{}
	once   sync.Once
}

func (s *started) Pid() int    { return s.cmd.Process.Pid }
func (s *started) Wait() error { return s.cmd.Wait() }
func (s *started) Kill() {
	s.once.Do(func() { close(s.killed) })
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
}

func (s *starter) latest() *started {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *starter) SpawnAgent(_ context.Context, a AgentSpec) (AgentProcess, error) {
	defer a.Parent.Close()
	files, kind := []*os.File{a.Parent}, "alone"
	if a.Queue != nil {
		defer a.Queue.Close()
		files, kind = append(files, a.Queue), "queue"
	}
	if s.fail != nil {
		return nil, s.fail
	}
	program := s.program
	if program == "" {
		program = os.Args[0]
	}
	if s.stuck {
		kind = "stuck"
	}
	c := exec.Command(program)
	c.Env = []string{"PARENT_TEST_AGENT=" + kind, "PATH=/usr/bin:/bin"}
	c.ExtraFiles, c.Stderr = files, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Getuid() == 0 && a.UID != 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: []uint32{a.GID}}
		c.Dir = "/"
	}
	p := &started{cmd: c, killed: make(chan struct{})}
	stdin, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	if err := c.Start(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.count++
	s.last = p
	s.mu.Unlock()
	return p, nil
}

// request is one from another role.
type request struct {
	m     msg.Message
	reply msg.Message
	file  *os.File
	err   *mailerr.Error
}

func (r *request) From() proc.Role                     { return "" }
func (r *request) Type() msg.Type                      { return r.m.Type() }
func (r *request) Body() []byte                        { return r.m.Append(nil) }
func (r *request) Parse(m msg.Parser) error            { return m.Parse(r.Body()) }
func (r *request) File() *os.File                      { return nil }
func (r *request) Row(msg.Message)                     {}
func (r *request) Reply(m msg.Message)                 { r.reply = m }
func (r *request) ReplyFile(m msg.Message, f *os.File) { r.reply, r.file = m, f }
func (r *request) Fail(err *mailerr.Error)             { r.err = err }

// house is Deliveries with what is around it.
type house struct {
	*Deliveries
	t     *testing.T
	dir   string
	spawn *starter
	conf  *conf.Config
	table *proc.Table
}

func me(dir string) User {
	return User{Name: "eve", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: filepath.Join(dir, "eve")}
}

// newHouse knows the users of passwd, and eve, who we are.
func newHouse(t *testing.T, opt func(*DeliveryOptions), actions ...*conf.Action) *house {
	h := &house{t: t, dir: t.TempDir(), spawn: &starter{t: t}, conf: &conf.Config{Actions: actions}}
	h.conf.Server.SubAddrDelim.Value = "+"
	h.conf.Server.Wrappers = []*conf.Wrapper{{Name: "polite", Command: "nice %{mda}"}}
	eve := me(h.dir)
	passwd := filepath.Join(h.dir, "passwd")
	lines := fmt.Sprintf("root:x:0:0::/root:/bin/sh\neve:x:%d:%d::%s:/bin/sh\nadam:x:%d:%d::/nonexistent:/bin/sh\n.lock:x:%d:1::/:/bin/sh\n",
		eve.UID, eve.GID, eve.Home, eve.UID+1, eve.GID+1, eve.UID)
	for path, data := range map[string]string{passwd: lines} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{eve.Home, h.dir + "/mail"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	users := NewUsers(clock.NewSystem())
	users.passwd = passwd
	users.getent = func(context.Context, string) (string, bool, error) { return "", false, nil }
	o := DeliveryOptions{
		Clock: clock.NewSystem(), Spawn: h.spawn, Users: users, MailDir: h.dir + "/mail", LibExec: "/usr/libexec", Daemon: eve, Unprivileged: true,
		Config: func(g mail.Gen) *conf.Config {
			if g == 1 {
				return h.conf
			}
			return nil
		},
		UserBase: func(_ context.Context, _ mail.Gen, table, name string) (User, bool, error) {
			if name == "broken" {
				return User{}, false, errors.New("no table")
			}
			return User{Name: name, UID: eve.UID, GID: eve.GID, Home: h.dir + "/virtual/" + name}, table == "users" && name == "virt", nil
		},
	}
	if opt != nil {
		opt(&o)
	}
	h.Deliveries = NewDeliveries(o)
	var err error
	if h.table, err = proc.NewTable(h.Handlers()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// ask hands a message to the row for it.
func (h *house) ask(from proc.Role, m msg.Message) *request {
	h.t.Helper()
	r := &request{m: m}
	for _, row := range h.Handlers() {
		if row.From == from && row.Type == m.Type() {
			row.Do(context.Background(), r)
			return r
		}
	}
	h.t.Fatalf("%s may not send %T", from, m)
	return nil
}

// asQueue plays the queue process: what mda.Pool asks goes to the house.
type asQueue struct{ h *house }

func (q asQueue) Send(_ context.Context, m msg.Message) error {
	q.h.ask(proc.Queue, m)
	return nil
}
func (q asQueue) SendFile(context.Context, msg.Message, *os.File) error { return errors.New("unused") }
func (q asQueue) Call(ctx context.Context, m msg.Message, reply msg.Parser) error {
	_, err := q.CallFile(ctx, m, reply)
	return err
}
func (q asQueue) CallFile(_ context.Context, m msg.Message, reply msg.Parser) (*os.File, error) {
	r := q.h.ask(proc.Queue, m)
	if r.err != nil {
		return nil, r.err
	}
	return r.file, reply.Parse(r.reply.Append(nil))
}

// pool delivers through the house.
func (h *house) pool() *mda.Pool {
	p := mda.NewPool(asQueue{h}, mda.Options{Clock: clock.NewSystem()})
	h.t.Cleanup(func() { p.Close(context.Background()) })
	return p
}

func deliver(p *mda.Pool, action, user, body string) mda.Result {
	ch := make(chan mda.Result, 1)
	p.Deliver(&mda.Delivery{
		Gen: 1, Size: int64(len(body)), Body: []byte(body), Done: func(r mda.Result) { ch <- r },
		Envelope: &envelope.Envelope{
			Action: action, MDAUser: user, Sender: addr.Address{Local: "bob", Domain: "x"},
			Rcpt: addr.Address{Local: "info", Domain: "y"}, Dest: addr.Address{Local: user, Domain: "y"},
		},
	})
	return <-ch
}

func only(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%s: %d entries, %v", dir, len(entries), err)
	}
	b, err := os.ReadFile(filepath.Join(dir, entries[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// From pool to mailbox, by agents that are processes.
func TestDeliver(t *testing.T) {
	h := newHouse(t, nil,
		&conf.Action{Name: "md", Method: conf.Maildir},
		&conf.Action{Name: "box", Method: conf.MBOX},
		&conf.Action{Name: "cmd", Method: conf.MDA, Command: "cat >out; echo done; exit 67"},
		&conf.Action{Name: "base", Method: conf.Maildir, Path: "~/M", UserBase: "users"},
		&conf.Action{Name: "virtual", Method: conf.Maildir, UserBase: "users", User: "eve"},
	)
	p := h.pool()
	const head = "Return-Path: <bob@x>\nDelivered-To: info@y\n"
	for _, action := range []string{"md", "box", "base", "virtual"} {
		user := "eve"
		if action == "base" || action == "virtual" {
			user = "virt"
		}
		if r := deliver(p, action, user, action+"\n"); r.Err != nil {
			t.Errorf("%s: %s", action, r.Stat)
		}
	}
	if r := deliver(p, "cmd", "eve", "cmd\n"); r.Err == nil || r.Stat != `Error (user unknown: "done")` {
		t.Errorf("cmd: %s", r.Stat)
	}
	if b, err := os.ReadFile(h.dir + "/eve/out"); err != nil || string(b) != head+"cmd\n" {
		t.Errorf("%q, %v", b, err)
	}
	if got := only(t, h.dir+"/virtual/virt/M/new"); got != head+"base\n" {
		t.Errorf("%q", got)
	}
	b, err := os.ReadFile(h.dir + "/mail/eve")
	if _, got, _ := strings.Cut(string(b), "\n"); err != nil || got != head+"box\n\n" {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Stat(h.dir + "/mail/eve"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	// Without a path the maildir is that of whom the delivery runs as.
	entries, err := os.ReadDir(h.dir + "/eve/Maildir/new")
	if err != nil || len(entries) != 2 {
		t.Errorf("%d messages, %v", len(entries), err)
	}
	if h.spawn.count != 5 {
		t.Errorf("%d agents for 5 actions", h.spawn.count)
	}
}

func TestOrders(t *testing.T) {
	h := newHouse(t, nil,
		&conf.Action{Name: "md", Method: conf.Maildir},
		&conf.Action{Name: "relay", Method: conf.Relay},
		&conf.Action{Name: "base", Method: conf.Maildir, UserBase: "users"},
		&conf.Action{Name: "as", Method: conf.Maildir, User: "eve"},
		&conf.Action{Name: "nobody", Method: conf.Maildir, User: "nosuch"},
		&conf.Action{Name: "cmd", Method: conf.MDA, Command: "true"},
		&conf.Action{Name: "box", Method: conf.MBOX},
		&conf.Action{Name: "wrapped", Method: conf.Maildir, Wrapper: "polite"},
		&conf.Action{Name: "unwrapped", Method: conf.Maildir, Wrapper: "rude"},
	)
	eve := me(h.dir)
	for _, tc := range []struct {
		m     msg.Agent
		class mailerr.Class
		stat  string
		want  msg.AgentReply
	}{
		{m: msg.Agent{Gen: 1, Action: "md", User: "eve"}, want: msg.AgentReply{UID: eve.UID, GID: eve.GID, Name: "eve", Home: eve.Home, RunHome: eve.Home}},
		{m: msg.Agent{Gen: 1, Action: "cmd", User: "eve"}, want: msg.AgentReply{UID: eve.UID, GID: eve.GID, Name: "eve", Home: eve.Home, RunHome: eve.Home, Command: true}},
		{m: msg.Agent{Gen: 1, Action: "wrapped", User: "eve"}, want: msg.AgentReply{UID: eve.UID, GID: eve.GID, Name: "eve", Home: eve.Home, RunHome: eve.Home, Command: true}},
		{m: msg.Agent{Gen: 1, Action: "as", User: "adam"}, want: msg.AgentReply{UID: eve.UID, GID: eve.GID, Name: "adam", Home: "/nonexistent", RunHome: eve.Home}},
		{m: msg.Agent{Gen: 2, Action: "md", User: "eve"}, class: mailerr.Temp, stat: "Error (action md does not exist)"},
		{m: msg.Agent{Gen: 1, Action: "no", User: "eve"}, class: mailerr.Temp, stat: "Error (action no does not exist)"},
		{m: msg.Agent{Gen: 1, Action: "relay", User: "eve"}, class: mailerr.Temp, stat: "does not deliver to this machine"},
		{m: msg.Agent{Gen: 1, Action: "md", User: "nosuch"}, class: mailerr.Perm, stat: "Permanent failure in user lookup"},
		{m: msg.Agent{Gen: 1, Action: "md", User: "../eve"}, class: mailerr.Perm, stat: "Permanent failure in user lookup"},
		{m: msg.Agent{Gen: 1, Action: "base", User: "eve"}, class: mailerr.Perm, stat: "Permanent failure in user lookup"},
		{m: msg.Agent{Gen: 1, Action: "base", User: "broken"}, class: mailerr.Temp, stat: "Temporary failure in user lookup"},
		{m: msg.Agent{Gen: 1, Action: "nobody", User: "eve"}, class: mailerr.Perm, stat: "Error (user unknown: delivery user 'nosuch' does not exist)"},
		{m: msg.Agent{Gen: 1, Action: "md", User: "adam"}, class: mailerr.Temp, stat: "without being root"},
		{m: msg.Agent{Gen: 1, Action: "unwrapped", User: "eve", Spawn: true}, class: mailerr.Temp, stat: "could not find wrapper rude"},
	} {
		got := h.ask(proc.Queue, &tc.m).reply.(*msg.AgentReply)
		switch {
		case tc.class == 0 && *got != tc.want:
			t.Errorf("%+v: %+v, want %+v", tc.m, got, tc.want)
		case tc.class != 0 && (got.Err == nil || got.Err.Class != tc.class || !strings.Contains(got.Stat, tc.stat)):
			t.Errorf("%+v: %q, %v, want %q", tc.m, got.Stat, got.Err, tc.stat)
		}
	}
	if h.spawn.count > 0 {
		t.Errorf("%d agents", h.spawn.count)
	}
}

// Root receives in the system mailbox and nowhere else, and runs no command.
func TestRootDelivery(t *testing.T) {
	h := newHouse(t, func(o *DeliveryOptions) { o.Unprivileged = false },
		&conf.Action{Name: "md", Method: conf.Maildir},
		&conf.Action{Name: "cmd", Method: conf.MDA, Command: "true"},
		&conf.Action{Name: "box", Method: conf.MBOX},
		&conf.Action{Name: "wrapped", Method: conf.MBOX, Wrapper: "polite"},
		&conf.Action{Name: "asroot", Method: conf.Maildir, User: "root"},
	)
	for action, ok := range map[string]bool{"md": false, "cmd": false, "box": true, "wrapped": false, "asroot": false} {
		r := h.ask(proc.Queue, &msg.Agent{Gen: 1, Action: action, User: "root"}).reply.(*msg.AgentReply)
		if ok != (r.Err == nil) || !ok && (r.Err.Class != mailerr.Perm || r.Stat != "Error (permission denied: MDA not allowed to deliver to: root)") {
			t.Errorf("%s: %q, %v", action, r.Stat, r.Err)
		}
	}
	o, res := h.order(t.Context(), 1, "box", "root")
	if c, _ := h.agentConf(o); res.Err != nil || !c.NoExec || !c.NoCommand || c.UID != 0 {
		t.Errorf("%+v, %v", c, res.Err)
	}
}

func TestSpawnFails(t *testing.T) {
	h := newHouse(t, nil, &conf.Action{Name: "md", Method: conf.Maildir})
	h.spawn.fail = syscall.EAGAIN
	r := h.ask(proc.Queue, &msg.Agent{Gen: 1, Action: "md", User: "eve", Spawn: true}).reply.(*msg.AgentReply)
	if r.Err == nil || r.Err.Class != mailerr.Temp || len(h.agents) != 0 {
		t.Errorf("%+v, %d agents", r, len(h.agents))
	}
}

func TestMaxAgents(t *testing.T) {
	h := newHouse(t, func(o *DeliveryOptions) { o.MaxAgents = 2 }, &conf.Action{Name: "md", Method: conf.Maildir})
	for i := range 3 {
		r := h.ask(proc.Queue, &msg.Agent{Gen: 1, Action: "md", User: "eve", Spawn: true})
		if err := r.reply.(*msg.AgentReply).Err; (err == nil) != (i < 2) {
			t.Errorf("agent %d: %v", i, err)
		}
		if r.file != nil {
			defer r.file.Close()
		}
	}
}

func TestAgentEnd(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	h := newHouse(t, func(o *DeliveryOptions) { o.Clock = c }, &conf.Action{Name: "md", Method: conf.Maildir})
	h.spawn.stuck = true
	r := h.ask(proc.Queue, &msg.Agent{Gen: 1, Action: "md", User: "eve", Spawn: true})
	defer r.file.Close()
	id := r.reply.(*msg.AgentReply).ID
	h.ask(proc.Queue, &msg.AgentEnd{ID: id + 1})
	h.ask(proc.Queue, &msg.AgentEnd{ID: id})
	h.ask(proc.Queue, &msg.AgentEnd{ID: id})
	c.BlockUntil(1)
	select {
	case <-h.spawn.latest().killed:
		t.Error("killed at once")
	default:
	}
	c.Advance(lastWait)
	<-h.spawn.latest().killed
}

// A command does not outlive the agent that would tell of its end.
func TestAgentKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, to hear of the parent's end")
	}
	fifo := filepath.Join(t.TempDir(), "f")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, nil, &conf.Action{Name: "cmd", Method: conf.MDA, Command: "exec 9>" + fifo + "; echo up >&9; exec sleep 1000"})
	p := h.pool()
	result := make(chan mda.Result, 1)
	go func() { result <- deliver(p, "cmd", "eve", "x\n") }()
	f, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 10)
	if n, err := f.Read(buf); err != nil || string(buf[:n]) != "up\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	h.spawn.latest().Kill()
	if r := <-result; r.Err == nil || r.Err.Class != mailerr.Temp {
		t.Errorf("%+v", r)
	}
	if n, err := f.Read(buf); err != io.EOF {
		t.Errorf("%q, %v", buf[:n], err)
	}
}
