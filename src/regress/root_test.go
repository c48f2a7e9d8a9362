package regress

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// system is a configuration for real accounts.
const system = `listen on 127.0.0.1 port $port
listen on socket
smtp limit max-mails 1000000
action "local" maildir
match for local action "local"
`

// clearSpool forgets what an earlier test has left.
func clearSpool(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll("/var/spool/smtpd"); err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		for _, f := range []string{"Maildir", ".forward", "got"} {
			if err := os.RemoveAll(filepath.Join(u.home, f)); err != nil && u.home != "/var/empty" {
				t.Fatal(err)
			}
		}
	}
}

func TestRootDeliversAsUsers(t *testing.T) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, system).Start()
	for title, uid := range map[string]int{"dispatcher": 7001, "lookup": 7001, "queue": 7002, "control": 7001, "crypto": 7001, "[priv]": 0} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Roles()[title]))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d", uid, uid, uid, uid); !strings.Contains(string(text), want) {
			t.Errorf("%s does not run with %q", title, want)
		}
	}
	send(t, d, "to two", "anna@localhost", "bert@localhost")
	for _, name := range []string{"anna", "bert"} {
		maildir := filepath.Join("/home", name, "Maildir")
		d.Await("mail of "+name, func() bool { return len(d.Mail(maildir)) == 1 })
		files, err := filepath.Glob(maildir + "/new/*")
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid < 7101 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: uid %d, mode %v", files[0], sys.Uid, st.Mode())
		}
	}
	if got := daemonRefuses(t, d, "nobodyhere@localhost"); !strings.Contains(got, "550") {
		t.Errorf("an unknown user was answered %q", got)
	}
}

// daemonRefuses returns what a recipient was refused with.
func daemonRefuses(t *testing.T, d *daemon.Daemon, rcpt string) string {
	t.Helper()
	c := d.Dial()
	err := c.Send("a@example.org", []string{rcpt}, "x\r\n", false)
	if err == nil {
		t.Fatalf("%s was accepted", rcpt)
	}
	return err.Error()
}

func TestRootMbox(t *testing.T) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, strings.Replace(system, "maildir", "mbox", 1)).Start()
	send(t, d, "one", "anna@localhost")
	send(t, d, "two", "anna@localhost")
	d.Await("two messages in the mbox", func() bool {
		text, _ := os.ReadFile("/var/mail/anna")
		return strings.Count("\n"+string(text), "\nFrom sender@example.org ") == 2
	})
	st, err := os.Stat("/var/mail/anna")
	if err != nil {
		t.Fatal(err)
	}
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 7101 || st.Mode().Perm() != 0o600 {
		t.Errorf("uid %d, mode %v", sys.Uid, st.Mode())
	}
}

func TestRootSpoolOfWrongOwner(t *testing.T) {
	privileged(t)
	clearSpool(t)
	if err := os.MkdirAll("/var/spool/smtpd/queue", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown("/var/spool/smtpd/queue", 7101, 7101); err != nil {
		t.Fatal(err)
	}
	d := daemon.NewRoot(t, system)
	_, errs, st := d.Run("", "smtpd", d.Args("-d")...)
	if st == 0 || !strings.Contains(errs, "/var/spool/smtpd") || !strings.Contains(errs, "_smtpq") {
		t.Errorf("status %d: %s", st, errs)
	}
}

// forward writes ~/.forward of anna and returns what became of a message.
func TestForwardAsUsers(t *testing.T) {
	privileged(t)
	clearSpool(t)
	const path = "/home/anna/.forward"
	d := daemon.NewRoot(t, system).Start()
	write := func(text string, mode os.FileMode, uid int) {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	count := func(user string) int { return len(d.Mail("/home/" + user + "/Maildir")) }
	arrives := func(what, user string) {
		t.Helper()
		before := count(user)
		send(t, d, what, "anna@localhost")
		d.Await(what+": mail of "+user, func() bool { return count(user) == before+1 })
	}

	arrives("no .forward", "anna")
	write("bert\n", 0o600, 7101)
	arrives("a good .forward", "bert")
	write("|cat > /home/anna/got\n", 0o600, 7101)
	send(t, d, "a command", "anna@localhost")
	d.Await("the command as anna", func() bool {
		st, err := os.Stat("/home/anna/got")
		return err == nil && st.Sys().(*syscall.Stat_t).Uid == 7101
	})

	// What is refused counts as no .forward and is said in the log.
	write("bert\n", 0o620, 7101)
	arrives("group may write", "anna")
	write("bert\n", 0o600, 7102)
	arrives("owned by another", "anna")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/home/secret", []byte("bert\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link("/home/secret", path); err != nil {
		t.Fatal(err)
	}
	arrives("hard link to root's file", "anna")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/home/secret", path); err != nil {
		t.Fatal(err)
	}
	arrives("symbolic link", "anna")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	arrives("fifo", "anna")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	arrives("directory", "anna")
}

// TestCommandOfUserHasHisRightsAlone: a command of a .forward has no group of
// root's, no capability, and no file of the daemon.
func TestCommandOfUserHasHisRightsAlone(t *testing.T) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, system).Start()
	const script = "|id -G >got.part; grep CapEff /proc/self/status >>got.part; ls /proc/self/fd >>got.part; mv got.part got\n"
	if err := os.WriteFile("/home/anna/.forward", []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown("/home/anna/.forward", 7101, 7101); err != nil {
		t.Fatal(err)
	}
	send(t, d, "a command", "anna@localhost")
	var got []byte
	d.Await("what the command has seen", func() (ok bool) {
		var err error
		got, err = os.ReadFile("/home/anna/got")
		return err == nil
	})
	// 3 is the directory that ls reads.
	if want := "7101\nCapEff:\t0000000000000000\n0\n1\n2\n3\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// death is one of a process that was killed.
type death struct {
	victim string
	at     time.Time // when nothing was left that could deliver
}

// TestKillLoop kills each process in turn while mail flows, again and again: no
// acknowledged message may be lost, and only a death of queue, or of the agent
// that was at it, may deliver one again.
func TestKillLoop(t *testing.T) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, system).Start()
	var mu sync.Mutex
	acked := make(map[string]bool)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan load.Result, 1)
	go func() {
		result <- load.Run(ctx, load.Options{
			Addr: d.Addr, Sessions: 8, Size: 3000, Reuse: 5, Retry: true, Sender: "bench@localhost",
			Rcpts: []string{"anna@localhost", "bert@localhost", "cleo@localhost"},
			Acked: func(tag string) { mu.Lock(); acked[tag] = true; mu.Unlock() },
		})
	}()
	deaths := killInTurn(t, d, func() int { mu.Lock(); defer mu.Unlock(); return len(acked) })
	cancel()
	res := <-result
	t.Logf("%d deaths; %d acknowledged, %d refused, %d connections broken", len(deaths), res.Acked, res.Refused, res.Broken)
	d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })

	found := delivered(t, d)
	lost := 0
	for tag := range acked {
		if len(found[tag]) == 0 {
			lost++
			t.Logf("lost: %s", tag)
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged messages were lost", lost, len(acked))
	}
	again := repeated(found, deaths)
	t.Logf("delivered more than once, by who died: %v", again)
	for _, innocent := range []string{"dispatcher", "lookup", "control", "crypto", "[priv]"} {
		if n := again[innocent]; n > 0 {
			t.Errorf("%d messages were delivered again after the death of %s", n, innocent)
		}
	}
}

// killInTurn kills one process after the other for a while, and waits in between
// until more mail was acknowledged.
func killInTurn(t *testing.T, d *daemon.Daemon, acked func() int) (deaths []death) {
	t.Helper()
	victims := []string{"queue", "dispatcher", "lookup", "control", "crypto", "[priv]", "anna", "queue"}
	for end, i := time.Now().Add(killFor()), 0; time.Now().Before(end); i++ {
		goal := acked() + 40 + 13*i%60
		d.Await("mail to flow", func() bool { return acked() >= goal })
		victim := victims[i%len(victims)]
		pid := pidOf(d, victim)
		if pid == 0 {
			continue
		}
		roles := d.Roles()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			continue // gone by itself
		}
		if victim == "anna" { // an agent; the daemon goes on
			deaths = append(deaths, death{victim, time.Now()})
			continue
		}
		if st := d.Exit(); st == 0 {
			t.Errorf("smtpd ended with status 0 although %s was killed", victim)
		}
		d.Await("all processes to end", func() bool { return !anyRuns(roles) })
		deaths = append(deaths, death{victim, time.Now()})
		d.Restart()
	}
	return deaths
}

// anyRuns tells whether a process of the daemon is still there.
func anyRuns(roles map[string]int) bool {
	for _, pid := range roles {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasPrefix(string(text), "smtpd: ") {
			return true
		}
	}
	return false
}

// copyOf is one delivery of a message.
type copyOf struct {
	user string
	at   time.Time
}

// delivered returns what lies in the mailboxes, by tag.
func delivered(t *testing.T, d *daemon.Daemon) map[string][]copyOf {
	t.Helper()
	found := make(map[string][]copyOf)
	for _, name := range []string{"anna", "bert", "cleo"} {
		box := "/home/" + name + "/Maildir"
		for file, text := range d.Mail(box) {
			_, rest, ok := strings.Cut(text, "X-Bench-Tag: ")
			if !ok || !strings.Contains(text, "postmaster sighs") {
				if !strings.Contains(text, "Auto-Submitted") {
					t.Errorf("%s/%s is not a whole message: %d bytes", name, file, len(text))
				}
				continue
			}
			st, err := os.Stat(filepath.Join(box, "new", file))
			if err != nil {
				t.Fatal(err)
			}
			tag, _, _ := strings.Cut(rest, "\n")
			tag = strings.TrimSpace(tag)
			found[tag] = append(found[tag], copyOf{name, st.ModTime()})
		}
	}
	return found
}

// repeated counts messages that were delivered more than once, by the death that
// came next after the first copy: whoever died then did not tell of it.
func repeated(found map[string][]copyOf, deaths []death) map[string]int {
	again := make(map[string]int)
	for _, list := range found {
		if len(list) < 2 {
			continue
		}
		first := slices.MinFunc(list, func(a, b copyOf) int { return a.at.Compare(b.at) })
		culprit := "nobody"
		for _, k := range deaths {
			if k.at.After(first.at) && (k.victim != "anna" || first.user == "anna") {
				culprit = k.victim
				break
			}
		}
		again[culprit]++
	}
	return again
}

// killFor is how long the kill loop goes on.
func killFor() time.Duration {
	if testing.Short() {
		return 10 * time.Second
	}
	return time.Minute
}

// pidOf returns the process of a title; for a user's name, an agent of his.
func pidOf(d *daemon.Daemon, title string) int {
	for name, pid := range d.Roles() {
		if name == title || strings.Contains(name, title) {
			return pid
		}
	}
	return 0
}
