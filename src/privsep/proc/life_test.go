package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

// The test binary, re-executed, plays the roles.
func reexecuted() int {
	b, err := Born()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitTempFail
	}
	return b.Run(newFake, clock.NewSystem(), os.Stderr)
}

// fake is a role that answers ReserveIDs with what it knows of itself, and asks
// queue for it when it is the dispatcher.
type fake struct {
	env     Env
	mu      sync.Mutex
	current string // projection in force
	next    map[mail.Gen]string
	files   []string
	chunks  uint32 // that came from the dispatcher, at its end
}

func newFake(e Env) (Program, error) {
	f := &fake{env: e, current: string(e.Conf.Projection), next: map[mail.Gen]string{}}
	if f.current == "bad" {
		return nil, errors.New("no such thing")
	}
	f.keepFiles(e.Conf)
	return f, nil
}

func (f *fake) keepFiles(c Conf) {
	for _, x := range c.Files {
		text, _ := io.ReadAll(x.File)
		x.File.Close()
		f.files = append(f.files, x.Identity+":"+string(text))
	}
}

func (f *fake) Handlers() []Handler {
	return []Handler{
		{Parent, msg.TypeUserInfo, true, f.answer},
		{Dispatcher, msg.TypeUserInfo, true, f.answer},
		{Dispatcher, msg.TypeBodyChunk, false, f.count},
	}
}

func (f *fake) count(context.Context, Request) {
	f.mu.Lock()
	f.chunks++
	f.mu.Unlock()
}

// answer tells about the role named in the request, itself or queue.
func (f *fake) answer(ctx context.Context, r Request) {
	var m msg.UserInfo
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	switch m.Name {
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL) // seccomp says no; so:
		os.Exit(7)
	case "queue":
		if f.env.Role == Dispatcher {
			var reply msg.UserInfoReply
			if err := f.env.Peers[Queue].Call(ctx, &m, &reply); err != nil {
				r.Fail(mailerr.From(err))
				return
			}
			r.Reply(&reply)
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := f.env.Conf.Resources
	r.Reply(&msg.UserInfoReply{
		GID: f.chunks, Found: f.env.Trace("smtp"), Name: string(f.env.Role), Home: f.current, UID: uint32(len(f.env.Peers)),
		Forward: fmt.Appendf(nil, "%v %s %d %v %v %v", f.files, res.Hosts, len(res.CABundle), res.UIDs, res.Operators, f.env.Paused),
	})
}

func (f *fake) Prepare(_ context.Context, c Conf) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keepFiles(c)
	if string(c.Projection) == "bad" {
		return errors.New("no such thing")
	}
	f.next[c.Gen] = string(c.Projection)
	return nil
}

func (f *fake) Commit(gen mail.Gen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = f.next[gen]
}

func (f *fake) Abort(gen mail.Gen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.next, gen)
}

func (f *fake) Run(ctx context.Context) error {
	f.env.Log.Infof("info: %s runs", f.env.Role)
	<-ctx.Done()
	if f.env.Role == Lookup {
		return errors.New("cannot finish")
	}
	if q := f.env.Peers[Queue]; f.env.Role == Dispatcher && q != nil {
		for range lastChunks {
			if err := q.Send(context.Background(), &msg.BodyChunk{Data: make([]byte, 64<<10)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastChunks is how many chunks the dispatcher sends to queue when it ends: more
// than the system takes at once, less than the credit.
const lastChunks = Credit / 2 / (64 << 10)

// TestForget holds that the code of the start is given back once, when that is
// over and the program runs.
func TestForget(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	forgotten := make(chan struct{})
	l := &life{clock: c, program: &fake{}, forget: func() { close(forgotten) }}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.run(ctx) }()
	c.BlockUntil(1)
	select {
	case <-forgotten:
		t.Error("forgotten before the start is over")
	default:
	}
	c.Advance(startTime)
	<-forgotten
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// start spawns a role, gives it its first configuration and returns its layers.
func start(t *testing.T, role Role, stderr *os.File) *Child {
	t.Helper()
	c, err := Spawn(role, Start{Stderr: stderr}, clock.NewSystem(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	table, _ := NewTable(nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.Peer.Serve(ctx, table)
	}()
	t.Cleanup(func() {
		c.Kill()
		<-c.Done()
		cancel()
		<-served
	})
	err = c.Hello(t.Context(), &msg.Hello{
		Unprivileged: true, Dir: "/tmp", Trace: []string{"smtp"}, Paused: []string{"mda"}, GraceMillis: 60_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, c *Child, who string) msg.UserInfoReply {
	t.Helper()
	var reply msg.UserInfoReply
	if err := c.Peer.Call(t.Context(), &msg.UserInfo{Name: who}, &reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func textFile(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	io.WriteString(w, text)
	w.Close()
	return r
}

func TestRolesLife(t *testing.T) {
	ctx := t.Context()
	d, q := start(t, Dispatcher, os.Stderr), start(t, Queue, os.Stderr)
	must(t, Link(ctx, d, q))
	big := strings.Repeat("x", 3*piece/2)
	must(t, d.Give(ctx, msg.ResourceCABundle, []byte(big)))
	must(t, d.Give(ctx, msg.ResourceHosts, []byte("hosts")))
	must(t, d.Give(ctx, msg.ResourceUIDs, []byte("root=0\neve=1000\n")))
	must(t, d.Give(ctx, msg.ResourceOperators, []byte("1000\n1001\n")))
	layers, err := d.Prepare(ctx, 1, []byte(big), []File{{"one", textFile(t, "1")}})
	must(t, err)
	if runtime.GOOS == "linux" && !slices.Contains(layers, "nodump") {
		t.Errorf("layers %v", layers)
	}
	_, err = q.Prepare(ctx, 1, []byte("q1"), nil)
	must(t, err)
	must(t, d.Commit(ctx, 1))
	must(t, q.Commit(ctx, 1))

	got := ask(t, d, "")
	if got.Name != "dispatcher" || got.Home != big || got.UID != 2 || !got.Found {
		t.Errorf("the dispatcher is %q, %d bytes of configuration, %d peers, trace %v", got.Name, len(got.Home), got.UID, got.Found)
	}
	want := fmt.Sprintf("[one:1] hosts %d map[eve:1000 root:0] [1000 1001] [mda]", len(big))
	if string(got.Forward) != want {
		t.Errorf("it was given %s, want %s", got.Forward, want)
	}
	if got := ask(t, d, "queue"); got.Name != "queue" || got.Home != "q1" {
		t.Errorf("through the dispatcher: %+v", got)
	}

	// A generation that one role refuses is aborted in the other.
	_, err = q.Prepare(ctx, 2, []byte("q2"), []File{{"two", textFile(t, "2")}})
	must(t, err)
	if _, err = d.Prepare(ctx, 2, []byte("bad"), nil); err == nil || !strings.Contains(err.Error(), "dispatcher: no such thing") {
		t.Errorf("a bad configuration: %v", err)
	}
	must(t, d.Abort(ctx, 2))
	must(t, q.Abort(ctx, 2))
	if got := ask(t, q, ""); got.Home != "q1" {
		t.Errorf("after the abort: %q", got.Home)
	}
	_, err = q.Prepare(ctx, 3, []byte("q3"), nil)
	must(t, err)
	must(t, q.Commit(ctx, 3))
	if got := ask(t, q, ""); got.Home != "q3" || !strings.HasPrefix(string(got.Forward), "[two:2]") {
		t.Errorf("after the commit: %q, %s", got.Home, got.Forward)
	}

	must(t, d.Verbose(ctx, true, nil))
	if got := ask(t, d, ""); got.Found {
		t.Error("a trace is still on")
	}
	must(t, d.Shutdown(ctx))
	<-d.Done()
	// What was sent at the end arrives.
	late := time.Now().Add(time.Minute)
	for n := uint32(0); n < lastChunks; n = ask(t, q, "").GID {
		if time.Now().After(late) {
			t.Fatalf("%d of %d chunks have arrived", n, lastChunks)
		}
	}
	must(t, q.Shutdown(ctx))
	<-q.Done()
	if d.Exited() != "" || q.Exited() != "" {
		t.Errorf("dispatcher %q, queue %q", d.Exited(), q.Exited())
	}
}

// started returns a role that runs, without peers.
func started(t *testing.T, role Role, stderr *os.File) *Child {
	t.Helper()
	c := start(t, role, stderr)
	_, err := c.Prepare(t.Context(), 1, []byte("x"), nil)
	must(t, err)
	must(t, c.Commit(t.Context(), 1))
	return c
}

func TestWaysToEnd(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		c := started(t, Crypto, nil)
		c.Kill()
		<-c.Done()
		if got := c.Exited(); got != "terminated; signal 9 (killed)" {
			t.Errorf("Exited() = %q", got)
		}
	})
	t.Run("exit status", func(t *testing.T) {
		c := started(t, Crypto, nil)
		err := c.Peer.Call(t.Context(), &msg.UserInfo{Name: "die"}, &msg.UserInfoReply{})
		<-c.Done()
		if got := c.Exited(); got != "exited abnormally with status 7" || err == nil {
			t.Errorf("Exited() = %q, the call: %v", got, err)
		}
	})
	t.Run("error at the end", func(t *testing.T) {
		r, w, err := os.Pipe()
		must(t, err)
		c := started(t, Lookup, w)
		w.Close()
		must(t, c.Shutdown(t.Context()))
		out, _ := io.ReadAll(r)
		<-c.Done()
		if got := c.Exited(); got != "exited abnormally with status 1" || !strings.Contains(string(out), "fatal: lookup: cannot finish") {
			t.Errorf("Exited() = %q, it said %q", got, out)
		}
	})
	t.Run("parent gone", func(t *testing.T) {
		c := started(t, Crypto, nil)
		c.Peer.Close()
		<-c.Done()
		if got := c.Exited(); got != "" {
			t.Errorf("Exited() = %q", got)
		}
	})
	t.Run("signals are parent's business", func(t *testing.T) {
		c := started(t, Crypto, nil)
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			must(t, syscall.Kill(c.Pid(), s))
		}
		if got := ask(t, c, ""); got.Name != "crypto" {
			t.Errorf("after the signals: %+v", got)
		}
	})
	t.Run("bad first configuration", func(t *testing.T) {
		c := start(t, Crypto, nil)
		if _, err := c.Prepare(t.Context(), 1, []byte("bad"), nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("Prepare: %v", err)
		}
		<-c.Done()
	})
}

func TestOtherBuild(t *testing.T) {
	c, err := Spawn(Crypto, Start{}, clock.NewSystem(), nil)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	table, _ := NewTable(nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.Peer.Serve(ctx, table)
	}()
	var reply msg.Hello
	err = c.Peer.Call(ctx, &msg.Hello{Build: "another", Role: "crypto"}, &reply)
	if err != nil || reply.Build == "another" || reply.Build == "" {
		t.Errorf("it says it is %q: %v", reply.Build, err)
	}
	<-c.Done()
	<-served
	if got := c.Exited(); got != fmt.Sprintf("exited abnormally with status %d", ExitTempFail) {
		t.Errorf("Exited() = %q", got)
	}
}

func TestTitle(t *testing.T) {
	for args, want := range map[string]bool{
		"smtpd": false, "/usr/sbin/smtpd,-d": false, "smtpd: queue": true, "smtpd: queue,-d": false,
	} {
		if got := IsReexec(strings.Split(args, ",")); got != want {
			t.Errorf("IsReexec(%q) = %v", args, got)
		}
	}
	if runtime.GOOS != "linux" {
		return
	}
	c := started(t, Control, nil)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Pid()))
	if err != nil || string(text) != "smtpd: control\x00" {
		t.Errorf("ps shows %q: %v", text, err)
	}
}
