package regress

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

func TestProcesses(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	roles := d.Roles()
	for _, title := range []string{"[priv]", "dispatcher", "lookup", "queue", "control", "crypto"} {
		if roles[title] == 0 {
			t.Errorf("no process is called smtpd: %s; there are %v", title, roles)
		}
	}
	if len(roles) != 6 {
		t.Errorf("%d processes, want 6: %v", len(roles), roles)
	}
}

func TestRoleDiesLoudly(t *testing.T) {
	for _, title := range []string{"dispatcher", "lookup", "queue", "control", "crypto"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			d := daemon.New(t, daemon.Basic).Start()
			if err := syscall.Kill(d.Roles()[title], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if st := d.Exit(); st == 0 {
				t.Error("smtpd ended with status 0")
			}
			d.AwaitLog(`(?i)` + title + `.*(signal|killed|died|lost)`)
		})
	}
}

// TestParentDiesAllEnd: without parent all end, whatever they are at, soon enough
// for the next daemon to take their place at its first try.
func TestParentDiesAllEnd(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic)
	begun := d.Path("begun")
	d.Configure(`listen on 127.0.0.1 port $port
action "local" mda "cat >` + begun + `; exec sleep 120"
match for local action "local"
`)
	d.Start()
	send(t, d, "takes its time", me(t)+"@localhost")
	d.Await("the command", func() bool {
		_, err := os.Stat(begun)
		return err == nil
	})
	roles := d.Roles()
	if err := syscall.Kill(roles["[priv]"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.Exit()
	ended := func(title string) func() bool {
		return func() bool {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", roles[title]))
			return err != nil || !strings.HasPrefix(string(text), "smtpd: ")
		}
	}
	d.Await("control, which would answer that smtpd is running, to end", ended("control"))
	d.Start()
	for title := range roles {
		d.Await(title+" to end", ended(title))
	}
}

func TestStopGivesSessions421(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	c := d.Dial()
	stopped := make(chan int, 1)
	go func() { stopped <- d.Stop() }()
	if got := reply(t, c); !strings.HasPrefix(got, "421 ") {
		t.Errorf("at the stop the session was told %q", got)
	}
	if st := <-stopped; st != 0 {
		t.Errorf("status %d", st)
	}
}

func TestSecondInstance(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	_, errs, st := d.Run("", "smtpd", d.Args("-d")...)
	if st == 0 || !strings.Contains(errs, "already running") {
		t.Errorf("status %d: %s", st, errs)
	}
	send(t, d, "the first lives", me(t)+"@localhost")
	d.AwaitMail(1)
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic)
	l, err := net.Listen("tcp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, errs, st := d.Run("", "smtpd", d.Args("-d")...)
	if st != 1 || !strings.Contains(errs, "smtpd.conf:1:") || !strings.Contains(errs, "in use") || !strings.Contains(errs, d.Port()) {
		t.Errorf("status %d: %s", st, errs)
	}
}

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, `listen on nosuchif0 port $port
table t file:/nonexistent/table
action "a" maildir alias <nowhere>
match from any for domain example.org action "b"
listen on 127.0.0.1 port 99999
`)
	_, errs, st := d.Run("", "smtpd", d.Args("-n")...)
	if st != 1 {
		t.Errorf("status %d", st)
	}
	for _, want := range []string{
		"smtpd.conf:1:11:", "nosuchif0", "smtpd.conf:2:", "/nonexistent/table",
		"smtpd.conf:3:", "nowhere", "smtpd.conf:4:", `"b"`, "smtpd.conf:5:", "99999", "^",
	} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in\n%s", want, errs)
		}
	}
	d.Configure(daemon.Basic)
	_, errs, st = d.Run("", "smtpd", d.Args("-n")...)
	if st != 0 || !strings.Contains(errs, "configuration OK") {
		t.Errorf("a good configuration: status %d: %s", st, errs)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	port := daemon.FreePort(t)
	second := "127.0.0.1:" + port
	old := d.Dial()
	// A broken file changes nothing and says so.
	d.Configure(daemon.Basic + "match from any for any action \"missing\"\n")
	out, errs, st := d.Run("", "smtpctl", "reload")
	if st == 0 || !strings.Contains(out+errs, "missing") {
		t.Errorf("a broken configuration was taken: status %d: %s%s", st, out, errs)
	}
	send(t, d, "after the broken one", me(t)+"@localhost")

	// A good one opens the new listener and keeps the old, and a session that
	// was open goes on.
	d.Configure(daemon.Basic + "listen on 127.0.0.1 port " + port + "\ntable who { \"x@new.test\" = " + me(t) +
		" }\naction \"new\" maildir $box virtual <who>\nmatch for domain \"new.test\" action \"new\"\n")
	d.Ctl("reload")
	c, err := load.Dial(t.Context(), second, daemon.Wait)
	if err != nil {
		t.Fatalf("the new listener: %v", err)
	}
	defer c.Close()
	if err := c.Hello("x"); err != nil {
		t.Fatal(err)
	}
	if err := c.Send("a@b.c", []string{"x@new.test"}, "Subject: new\r\n\r\n", false); err != nil {
		t.Error(err)
	}
	if err := old.Send("a@b.c", []string{me(t) + "@localhost"}, "Subject: old\r\n\r\n", false); err != nil {
		t.Error(err)
	}
	d.AwaitMail(3)

	// SIGHUP does the same; a listener that is gone no longer answers.
	d.Configure(daemon.Basic)
	if err := syscall.Kill(d.Roles()["[priv]"], syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.Await("the second listener to close", func() bool {
		c, err := net.DialTimeout("tcp", second, time.Second)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	send(t, d, "after all", me(t)+"@localhost")
	d.AwaitMail(4)
}

func TestControlCommands(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start()
	d.Ctl("pause", "mda")
	send(t, d, "held", me(t)+"@localhost")
	var line string
	d.Await("the message in the queue", func() bool {
		line = d.Ctl("show", "queue")
		return line != ""
	})
	evpid, _, _ := strings.Cut(line, "|")
	if len(evpid) != 16 {
		t.Fatalf("show queue: %q", line)
	}
	if got := d.Ctl("show", "message", evpid[:8]); !strings.Contains(got, "body of held") {
		t.Errorf("show message: %q", got)
	}
	if got := d.Ctl("show", "envelope", evpid); !strings.Contains(got, "sender: sender@example.org") {
		t.Errorf("show envelope: %q", got)
	}
	if got := d.Ctl("show", "status"); !strings.Contains(got, "MDA paused") {
		t.Errorf("show status: %q", got)
	}
	if got := d.Ctl("show", "stats"); !strings.Contains(got, "smtp.session=") {
		t.Errorf("show stats: %q", got)
	}
	if got, _, _ := d.Run("", "mailq"); !strings.HasPrefix(got, evpid) {
		t.Errorf("mailq: %q", got)
	}
	d.Ctl("remove", evpid)
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
	d.Ctl("resume", "mda")
	send(t, d, "flows", me(t)+"@localhost")
	d.AwaitMail(1)
	d.Ctl("log", "verbose")
	d.Ctl("log", "brief")
	d.Ctl("pause", "smtp")
	d.Ctl("resume", "smtp")
}

// TestSandboxLayers shows which layers confine each role here. On Linux none at
// all is a failure; what each forbids is tried from inside in privsep/priv.
func TestSandboxLayers(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic).Start("-v")
	for _, role := range []string{"dispatcher", "lookup", "queue", "control", "crypto"} {
		m := d.AwaitLog(`(?m)^debug: ` + role + `: confined by (.*)$`)
		t.Logf("%s: %s", role, m[1])
		if runtime.GOOS == "linux" && !strings.Contains(m[1], "seccomp") && !strings.Contains(m[1], "landlock") {
			t.Errorf("%s runs without a sandbox: %s", role, m[1])
		}
	}
}
