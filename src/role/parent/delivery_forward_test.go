package parent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

func (h *house) userInfo(m msg.UserInfo) *msg.UserInfoReply {
	h.t.Helper()
	return h.ask(proc.Lookup, &m).reply.(*msg.UserInfoReply)
}

func TestForward(t *testing.T) {
	h := newHouse(t, nil)
	eve := me(h.dir)
	r := h.userInfo(msg.UserInfo{Name: "eve", Forward: true})
	if r.Err != nil || !r.Found || r.HasForward || r.UID != eve.UID || r.GID != eve.GID || r.Home != eve.Home || r.Name != "eve" {
		t.Errorf("%+v", r)
	}
	if r := h.userInfo(msg.UserInfo{Name: "nosuch", Forward: true}); r.Err != nil || r.Found {
		t.Errorf("%+v", r)
	}
	if h.spawn.count != 0 {
		t.Errorf("%d agents for users without a .forward", h.spawn.count)
	}
	path := eve.Home + "/.forward"
	if err := os.WriteFile(path, []byte("bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if r := h.userInfo(msg.UserInfo{Name: "eve", Forward: true}); r.Err != nil || !r.HasForward || string(r.Forward) != "bob\n" {
			t.Errorf("%+v", r)
		}
	}
	if r := h.userInfo(msg.UserInfo{Name: "eve"}); r.HasForward {
		t.Errorf("not asked for: %+v", r)
	}
	if r := h.userInfo(msg.UserInfo{Name: "virt", Virtual: true, Forward: true, UID: eve.UID, GID: eve.GID, Home: eve.Home}); !r.Found || r.Name != "virt" || string(r.Forward) != "bob\n" {
		t.Errorf("%+v", r)
	}
	if h.spawn.count != 1 {
		t.Errorf("%d agents for one user", h.spawn.count)
	}
	// What must not be read is ignored, and nobody hangs.
	for name, make := range map[string]func() error{
		"fifo":    func() error { return syscall.Mkfifo(path, 0o600) },
		"symlink": func() error { return os.Symlink("/etc/passwd", path) },
		"dir":     func() error { return os.Mkdir(path, 0o700) },
		"link": func() error {
			if err := os.WriteFile(eve.Home+"/x", []byte("y"), 0o600); err != nil {
				return err
			}
			return os.Link(eve.Home+"/x", path)
		},
	} {
		os.Remove(path)
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if r := h.userInfo(msg.UserInfo{Name: "eve", Forward: true}); r.Err != nil || !r.Found || r.HasForward || len(r.Forward) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	os.Remove(path)
	if err := os.Chmod(eve.Home, 0o700|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if r := h.userInfo(msg.UserInfo{Name: "eve", Forward: true}); r.Err == nil || r.Err.Class != mailerr.Temp {
		t.Errorf("sticky: %+v", r)
	}
}

func TestInclude(t *testing.T) {
	h := newHouse(t, nil)
	if err := os.WriteFile(h.dir+"/list", []byte("a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.ask(proc.Lookup, &msg.Include{Path: h.dir + "/list"}).reply.(*msg.IncludeReply); r.Err != nil || !r.Found || string(r.Data) != "a\n" {
		t.Errorf("%+v", r)
	}
	if r := h.ask(proc.Lookup, &msg.Include{Path: h.dir + "/none"}).reply.(*msg.IncludeReply); r.Err != nil || r.Found {
		t.Errorf("%+v", r)
	}
}

// An agent that dies or does not answer is replaced.
func TestReaderDies(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	h := newHouse(t, func(o *DeliveryOptions) { o.Clock = c })
	if err := os.WriteFile(h.dir+"/eve/.forward", []byte("bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.spawn.stuck = true
	replies := make(chan *msg.UserInfoReply)
	go func() { replies <- h.userInfo(msg.UserInfo{Name: "eve", Forward: true}) }()
	var r *msg.UserInfoReply
	for r == nil {
		c.Advance(time.Second)
		select {
		case r = <-replies:
		default:
		}
	}
	if r.Err == nil || r.Err.Class != mailerr.Temp {
		t.Errorf("%+v", r)
	}
	h.spawn.stuck = false
	for range 2 {
		r := h.userInfo(msg.UserInfo{Name: "eve", Forward: true})
		if r.Err != nil || string(r.Forward) != "bob\n" {
			t.Errorf("%+v", r)
		}
	}
	h.spawn.latest().Kill()
	for dead := false; !dead; {
		h.mu.Lock()
		dead = len(h.agents) == 0
		h.mu.Unlock()
	}
	for tries := 0; ; tries++ {
		if r := h.userInfo(msg.UserInfo{Name: "eve", Forward: true}); r.Err == nil {
			break
		} else if tries > 0 {
			t.Fatalf("%+v", r)
		}
	}
}

func TestReaderRetires(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	h := newHouse(t, func(o *DeliveryOptions) { o.Clock = c })
	if err := os.WriteFile(h.dir+"/eve/.forward", []byte("bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.userInfo(msg.UserInfo{Name: "eve", Forward: true})
	for ended := false; !ended; {
		c.Advance(time.Second)
		h.mu.Lock()
		ended = len(h.agents) == 0 && len(h.readers) == 0
		h.mu.Unlock()
	}
}

func (h *house) agentFor(action string) *agent {
	h.t.Helper()
	r := h.ask(proc.Queue, &msg.Agent{Gen: 1, Action: action, User: "eve", Spawn: true})
	if r.file == nil {
		h.t.Fatalf("%+v", r.reply)
	}
	h.t.Cleanup(func() { r.file.Close() })
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.agents[r.reply.(*msg.AgentReply).ID]
}

func TestMailbox(t *testing.T) {
	c := clock.NewFake(time.Now())
	h := newHouse(t, func(o *DeliveryOptions) { o.Clock = c }, &conf.Action{Name: "box", Method: conf.MBOX})
	a := h.agentFor("box")
	lock := h.dir + "/mail/eve.lock"
	box, f, err := a.mailbox("eve")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if b, err := os.ReadFile(lock); err != nil || strings.TrimSpace(string(b)) == "" {
		t.Errorf("lock file: %q, %v", b, err)
	}
	// A second agent waits for the first.
	got := make(chan error)
	second := func() {
		box, f, err := a.mailbox("eve")
		if err == nil {
			f.Close()
			box.unlock()
		}
		got <- err
	}
	go second()
	select {
	case err := <-got:
		t.Fatalf("locked twice: %v", err)
	default:
	}
	box.unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(lock); !os.IsNotExist(err) {
		t.Errorf("lock file is still there: %v", err)
	}
	// Another program's lock is waited for, but not for ever.
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	go second()
	c.BlockUntil(1)
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	c.Advance(boxPause)
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	go second()
	for range boxTries {
		c.BlockUntil(1)
		c.Advance(boxPause)
	}
	if err := <-got; err == nil {
		t.Error("another program's lock was ignored")
	}
	old := c.Now().Add(-staleLock - time.Minute)
	if err := os.Chtimes(lock, old, old); err != nil {
		t.Fatal(err)
	}
	go second()
	if err := <-got; err != nil {
		t.Errorf("a lock left behind: %v", err)
	}
}

func TestMailboxRefused(t *testing.T) {
	h := newHouse(t, nil, &conf.Action{Name: "box", Method: conf.MBOX})
	a := h.agentFor("box")
	dir := h.dir + "/mail"
	refused := func(what, user string) {
		t.Helper()
		if box, f, err := a.mailbox(user); err == nil {
			t.Errorf("%s: opened", what)
			f.Close()
			box.unlock()
		}
		if entries, _ := filepath.Glob(dir + "/*.lock"); len(entries) > 0 {
			t.Errorf("%s: locks stay: %q", what, entries)
		}
	}
	refused("unknown user", "nosuch")
	refused("another user", "adam")
	refused("name of a lock", ".lock")
	for what, make := range map[string]func(string) error{
		"symlink":   func(p string) error { return os.Symlink(h.dir+"/passwd", p) },
		"dangling":  func(p string) error { return os.Symlink(h.dir+"/new", p) },
		"hard link": func(p string) error { return os.Link(h.dir+"/passwd", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		if err := make(dir + "/eve"); err != nil {
			t.Fatal(err)
		}
		refused(what, "eve")
		os.Remove(dir + "/eve")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("directory of everybody", "eve")
	if _, err := os.Lstat(h.dir + "/new"); err == nil {
		t.Error("a dangling link made a file")
	}
}

// TestAgentAsksForMailboxOfAnother: an agent that its user has taken over gets no
// other box, where the daemon could open it.
func TestAgentAsksForMailboxOfAnother(t *testing.T) {
	h := newHouse(t, func(o *DeliveryOptions) { o.Unprivileged = false }, &conf.Action{Name: "box", Method: conf.MBOX})
	if _, _, err := h.agentFor("box").mailbox("adam"); err == nil || !strings.Contains(err.Error(), "belongs to uid") {
		t.Errorf("the box of adam: %v", err)
	}
}

func TestCloseEndsAgents(t *testing.T) {
	h := newHouse(t, nil, &conf.Action{Name: "md", Method: conf.Maildir})
	h.spawn.stuck = true
	for range 3 {
		h.agentFor("md")
	}
	h.Close()
	if n := len(h.agents); n > 0 {
		t.Errorf("%d agents are left", n)
	}
	if r := h.ask(proc.Queue, &msg.Agent{Gen: 1, Action: "md", User: "eve", Spawn: true}); r.reply.(*msg.AgentReply).Err == nil {
		t.Error("an agent was started after the end")
	}
}

// As root: agents are who they should be, and their files are the users'.
func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	const uid, gid = 4242, 4243
	bin, err := os.MkdirTemp("/tmp", "agent")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(bin)
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(bin+"/agent", data, 0o755)
	}
	if err == nil {
		err = os.Chmod(bin, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	home := bin + "/zoe"
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home+"/.forward", []byte("zoe\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(o *DeliveryOptions) {
		o.Unprivileged = false
		o.Daemon = User{UID: uid, GID: gid}
		data := []byte("zoe:x:4242:4243::" + home + ":/bin/sh\n")
		if err := os.WriteFile(o.Users.passwd, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}, &conf.Action{Name: "md", Method: conf.Maildir}, &conf.Action{Name: "box", Method: conf.MBOX}, &conf.Action{Name: "cmd", Method: conf.MDA, Command: "id -u >who; id -G >>who"})
	h.spawn.program = bin + "/agent"
	// A .forward of root's in her home is not hers.
	if r := h.userInfo(msg.UserInfo{Name: "zoe", Forward: true}); r.Err != nil || r.HasForward {
		t.Errorf("%+v", r)
	}
	if err := os.Chown(home+"/.forward", uid, gid); err != nil {
		t.Fatal(err)
	}
	if r := h.userInfo(msg.UserInfo{Name: "zoe", Forward: true}); r.Err != nil || string(r.Forward) != "zoe\n" {
		t.Errorf("%+v", r)
	}
	// An include that only root may read is not read.
	secret := bin + "/secret"
	if err := os.WriteFile(secret, []byte("s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.ask(proc.Lookup, &msg.Include{Path: secret}).reply.(*msg.IncludeReply); r.Err == nil || len(r.Data) > 0 {
		t.Errorf("%+v", r)
	}
	p := h.pool()
	for _, action := range []string{"md", "box", "cmd"} {
		if r := deliver(p, action, "zoe", "x\n"); r.Err != nil {
			t.Errorf("%s: %s", action, r.Stat)
		}
	}
	if b, err := os.ReadFile(home + "/who"); err != nil || string(b) != "4242\n4243\n" {
		t.Errorf("the command ran as %q, %v", b, err)
	}
	entries, err := filepath.Glob(home + "/Maildir/new/*")
	if err != nil || len(entries) != 1 {
		t.Fatalf("%q, %v", entries, err)
	}
	for _, path := range []string{home + "/Maildir", entries[0], h.dir + "/mail/zoe"} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != uid || sys.Gid != gid || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: uid %d, gid %d, %v", path, sys.Uid, sys.Gid, st.Mode())
		}
	}
	// A mailbox that somebody else has made is not written.
	if err := os.Chown(h.dir+"/mail/zoe", uid+1, gid); err != nil {
		t.Fatal(err)
	}
	if r := deliver(p, "box", "zoe", "x\n"); r.Err == nil || r.Err.Class != mailerr.Temp || !strings.Contains(r.Stat, "belongs to uid") {
		t.Errorf("%s", r.Stat)
	}
}

func TestUsers(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	u := NewUsers(c)
	u.passwd = t.TempDir() + "/passwd"
	asked := 0
	var answer string
	var failure error
	u.getent = func(context.Context, string) (string, bool, error) {
		asked++
		return answer, answer != "", failure
	}
	write := func(data string) {
		t.Helper()
		if err := os.WriteFile(u.passwd, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(name string, uid uint32, found bool, asks int) {
		t.Helper()
		got, ok, err := u.Lookup(t.Context(), name)
		if err != nil || ok != found || found && (got.UID != uid || got.Name != name) || asked != asks {
			t.Errorf("%q: %+v, %v, %v, asked %d times, want %d", name, got, ok, err, asked, asks)
		}
	}
	write("eve:x:1:2:Eve,,:/home/eve:/bin/sh\n# comment\nbad:x:y:2::/:/\nshort:x:1\n+nis::::::\n1234:x:7:7::/n:/\neve:x:9:9::/:/\nlast:x:3:3::/:/bin/sh")
	want("eve", 1, true, 0)
	want("last", 3, true, 0)
	want("1234", 7, true, 0)
	want("bad", 0, false, 1)
	want("bad", 0, false, 1)
	for _, name := range []string{"", "-x", "a:b", "a/b", "a\nb", "a\x00", strings.Repeat("n", 256), "12", "0"} {
		want(name, 0, false, 1)
	}
	write("adam:x:4:4::/home/adam:/bin/sh\n")
	want("adam", 4, true, 1)
	want("eve", 0, false, 2)
	c.Advance(unknownFor)
	answer = "eve:*:11:12::/ldap/eve:/bin/sh\n"
	want("eve", 11, true, 3)
	answer = ""
	c.Advance(knownFor - 1)
	want("eve", 11, true, 3)
	c.Advance(1)
	want("eve", 0, false, 4)
	answer = "other:*:11:12::/:/\n" // as for a uid, or a name in another case
	want("Other", 0, false, 5)
	failure = syscall.EIO
	if _, _, err := u.Lookup(t.Context(), "zoe"); err == nil {
		t.Error("a failure of getent is not told")
	}
	if err := os.Remove(u.passwd); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Lookup(t.Context(), "adam"); err == nil {
		t.Error("a missing passwd file is not told")
	}
	alone := OnlyUser(User{Name: "eve", UID: 5})
	if got, ok, _ := alone.Lookup(t.Context(), "eve"); !ok || got.UID != 5 {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok, _ := alone.Lookup(t.Context(), "root"); ok {
		t.Error("root can be delivered to")
	}
}

func TestOnlyFiles(t *testing.T) {
	for text, want := range map[string]bool{
		"passwd: files\n": true,
		"# x\nhosts: dns\npasswd:  files # systemd": true,
		"passwd: files systemd\n":                   false,
		"passwd: sss files":                         false,
		"shadow: files\n":                           false,
		"":                                          false,
	} {
		if got := onlyFiles([]byte(text)); got != want {
			t.Errorf("onlyFiles(%q) = %v", text, got)
		}
	}
}

func TestUsersForgetStrangers(t *testing.T) {
	u := NewUsers(clock.NewFake(time.Unix(0, 0)))
	u.passwd = t.TempDir() + "/passwd"
	if err := os.WriteFile(u.passwd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u.getent = func(context.Context, string) (string, bool, error) { return "", false, nil }
	for i := range 3 * maxAnswers {
		u.Lookup(t.Context(), "n"+strings.Repeat("x", i%200)+string(rune('a'+i%26))+strings.Repeat("y", i/200))
		if len(u.answers) > maxAnswers {
			t.Fatalf("%d answers are kept", len(u.answers))
		}
	}
}
