package regress

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// passthrough builds the filter program that changes nothing.
func passthrough(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "passthrough")
	c := exec.CommandContext(t.Context(), "go", "build", "-o", program, "opensmtpd/src/bench/passthrough")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// filtered is a configuration with a program on listener and socket, and filters
// that are built in. It takes the program.
const filtered = `filter "pass" proc-exec "%s"
filter "refuse" phase mail-from match mail-from { "bad@example.org" } reject "550 5.7.1 not you"
filter "mark" phase rcpt-to match mail-from regex { "^spam" } junk
listen on 127.0.0.1 port $port filter { "pass", "refuse", "mark" }
listen on socket filter "pass"
action "local" maildir $box
match for local action "local"
`

// logged returns a script that runs a program after it has written its process
// id to the file program.pid.
func logged(t *testing.T, d *daemon.Daemon, program string) string {
	t.Helper()
	script := d.Path("program.sh")
	text := fmt.Sprintf("#!/bin/sh\necho $$ > %s\nexec %s\n", d.Path("program.pid"), program)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return script
}

// programPid waits until the program of filtered has written its process
// id, and it is another than old.
func programPid(d *daemon.Daemon, old int) (pid int) {
	d.Await("the program to start", func() bool {
		text, err := os.ReadFile(d.Path("program.pid"))
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil && pid != old
	})
	return pid
}

func TestFilters(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic)
	d.Configure(fmt.Sprintf(filtered, logged(t, d, passthrough(t))))
	d.Start("-v")
	me := me(t)
	c := d.Dial()
	send := func(c *load.Conn, from string) error {
		return c.Send(from, []string{me}, "Subject: x\r\n\r\n..dot\r\nhello\r\n", false)
	}
	if err := send(c, "eve@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := send(c, "bad@example.org"); err == nil || !strings.Contains(err.Error(), "550 5.7.1 not you") {
		t.Errorf("the sender that is refused: %v", err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := send(c, "spam@example.org"); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := d.Run("Subject: local\n\nby sendmail\n", "sendmail", me); status != 0 {
		t.Errorf("sendmail: %d %s%s", status, out, errs)
	}
	marked := 0
	for _, text := range d.AwaitMail(3) {
		if strings.Contains(text, "X-Spam: Yes\n") {
			marked++
		}
		if !strings.Contains(text, "\n.dot\nhello\n") && !strings.Contains(text, "by sendmail") {
			t.Errorf("delivered %q", text)
		}
	}
	if marked != 1 {
		t.Errorf("%d messages are marked", marked)
	}

	// A reload that does not touch it leaves the program alone.
	pid := programPid(d, 0)
	d.Ctl("reload")
	if err := send(c, "eve@example.org"); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	if again := programPid(d, 0); again != pid {
		t.Errorf("the program was %d and is %d", pid, again)
	}

	// Killed, it costs the sessions that need it, and nobody else.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := send(c, "eve@example.org"); err == nil || !strings.Contains(err.Error(), "421") {
		t.Errorf("without the program: %v", err)
	}
	next := programPid(d, pid)
	d.AwaitLog(`info: pass: program started again`)
	d.AwaitLog(`(?s)debug: filter: pass: ready.*debug: filter: pass: ready`)
	c = d.Dial()
	if err := send(c, "eve@example.org"); err != nil {
		t.Errorf("with the program in its next life: %v", err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}

	// Dropped by a reload it ends, once the session that uses it has.
	old := d.Dial()
	d.Configure(daemon.Basic)
	d.Ctl("reload")
	if err := send(d.Dial(), "bad@example.org"); err != nil {
		t.Errorf("without filters: %v", err)
	}
	if err := send(old, "bad@example.org"); err == nil {
		t.Error("the session that began with filters has none any more")
	}
	if err := old.Quit(); err != nil {
		t.Error(err)
	}
	d.Await("the program to end", func() bool { return syscall.Kill(next, 0) != nil })
	if st := d.Stop(); st != 0 {
		t.Errorf("smtpd ended with status %d", st)
	}
}

// A program that cannot run, one that speaks rubbish and one that ends at once
// leave the daemon alive, and sessions with a temporary failure or, if asked for,
// without the filter.
func TestFilterProgramsBroken(t *testing.T) {
	for _, command := range []string{"/nonexistent/filter", "/bin/echo hello", "/bin/false", "/bin/cat", "/usr/bin/yes", "/usr/bin/printf register"} {
		for _, option := range []string{"", " on-failure bypass"} {
			t.Run(command+option, func(t *testing.T) {
				t.Parallel()
				port := daemon.FreePort(t)
				d := daemon.New(t, fmt.Sprintf("filter f proc-exec %q%s\nlisten on 127.0.0.1 port %s filter f\n", command, option, port)+daemon.Basic).Start()
				d.AwaitLog(`warn: f: program ended: .*; started again in 1s`)
				greeting := ""
				d.Await("a greeting", func() bool {
					nc, err := net.Dial("tcp", "127.0.0.1:"+port)
					if err != nil {
						return false
					}
					defer nc.Close()
					greeting, _ = bufio.NewReader(nc).ReadString('\n')
					return greeting != ""
				})
				want := "421 4.3.0 Temporary failure"
				if option != "" {
					want = "220 "
				}
				if !strings.HasPrefix(greeting, want) {
					t.Errorf("greeting %q, want %q", greeting, want)
				}
				if err := d.Dial().Quit(); err != nil {
					t.Errorf("the other listener: %v", err)
				}
				if st := d.Stop(); st != 0 {
					t.Errorf("smtpd ended with status %d", st)
				}
			})
		}
	}
}

// hearing returns a program that wants to hear everything of a subsystem, and what
// waits until it has heard a text. Each of its lines begins with its process id.
func hearing(t *testing.T, d *daemon.Daemon, subsystem string) (script string, heard func(text string) string) {
	t.Helper()
	book := d.Path("heard")
	script = d.Path("hear.sh")
	text := "#!/bin/sh\nwhile IFS= read -r line; do\n\techo \"$$ $line\" >> " + book + "\n\tcase \"$line\" in 'config|ready')" +
		" printf 'register|report|" + subsystem + "|*\\nregister|ready\\n';; esac\ndone\necho \"$$ end\" >> " + book + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return script, func(text string) (all string) {
		d.Await("the program to hear "+text, func() bool {
			b, _ := os.ReadFile(book)
			all = string(b)
			return strings.Contains(all, text)
		})
		return all
	}
}

// TestFilterTold: a program that is told something else since a reload is another
// one. Sessions that began with the one before end with it, and it with them.
func TestFilterTold(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, daemon.Basic)
	script, heard := hearing(t, d, "smtp-in")
	conf := fmt.Sprintf("filter hear proc-exec %q\nlisten on 127.0.0.1 port $port filter hear\naction here maildir $box\nmatch for local action here\n", script)
	d.Configure("admd one.example\n" + conf)
	d.Start()
	old := d.Dial()
	pid, _, _ := strings.Cut(heard("|link-connect|"), " ")
	d.Ctl("reload")
	d.Configure("admd two.example\n" + conf + "match for nowhere\n")
	if _, _, status := d.Run("", "smtpctl", "reload"); status == 0 {
		t.Error("a configuration that is wrong was loaded")
	}
	d.Configure("admd two.example\n" + conf)
	d.Ctl("reload")
	all := heard("config|admd|two.example")
	if n := strings.Count(all, "config|ready"); n != 2 || !strings.HasPrefix(all, pid+" config|") || strings.Contains(all, pid+" end") {
		t.Errorf("%d programs were started:\n%s", n, all)
	}
	if err := d.Dial().Quit(); err != nil {
		t.Error(err)
	}
	if err := old.Quit(); err != nil {
		t.Error(err)
	}
	teller := make(map[string]string) // who heard of a session
	open := make(map[string]bool)     // sessions whose end was not heard of
	for line := range strings.Lines(heard(pid + " end")) {
		who, rest, _ := strings.Cut(line, " ")
		f := strings.SplitN(strings.TrimSpace(rest), "|", 7)
		if f[0] != "report" {
			continue
		}
		id := f[5]
		if before := teller[id]; before != "" && before != who {
			t.Errorf("both heard of session %s", id)
		}
		teller[id], open[id] = who, f[4] != "link-disconnect"
	}
	for id, who := range teller {
		if who == pid && open[id] {
			t.Errorf("the program that ended was not told of the end of session %s", id)
		}
	}
	if st := d.Stop(); st != 0 {
		t.Errorf("smtpd ended with status %d", st)
	}
}

// TestFilterOutgoing: the program of a relay action hears of the sessions with
// other servers.
func TestFilterOutgoing(t *testing.T) {
	t.Parallel()
	_, addr := takeAll(t)
	d := daemon.New(t, daemon.Basic)
	script, heard := hearing(t, d, "smtp-out")
	d.Configure(daemon.Basic + fmt.Sprintf("filter hear proc-exec %q\naction \"out\" relay host smtp://%s filter hear\nmatch from any for any action \"out\"\n", script, addr))
	d.Start()
	c := d.Dial()
	if err := c.Send("eve@example.org", []string{"bob@example.net"}, "Subject: x\r\n\r\nhello\r\n", false); err != nil {
		t.Fatal(err)
	}
	all := heard("|smtp-out|link-disconnect|")
	at := 0
	for _, want := range []string{
		"config|subsystem|smtp-out\n", "|link-connect|", "|pass|127.0.0.1:", "|127.0.0.1:", "|protocol-server|", "|link-greeting|",
		"|protocol-client|", "|EHLO ", "|link-identify|", "|EHLO|", "|protocol-client|", "|MAIL FROM:<eve@example.org>",
		"|tx-begin|", "|tx-mail|", "|ok|eve@example.org\n", "|tx-envelope|", "|tx-rcpt|", "|ok|bob@example.net\n", "|tx-data|", "|ok\n",
		"|protocol-client|", "|.\n", "|tx-commit|", "|tx-reset|", "|QUIT\n", "|link-disconnect|",
	} {
		i := strings.Index(all[at:], want)
		if i < 0 {
			t.Fatalf("no %q behind %q in\n%s", want, all[:at], all)
		}
		at += i + len(want)
	}
	if strings.Contains(all, "hello") || strings.Contains(all, "smtp-in|") {
		t.Errorf("it heard what it must not:\n%s", all)
	}
}

// TestFilterExamples runs the programs that smtpd-filters(7) shows.
func TestFilterExamples(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../man/smtpd-filters.7")
	if err != nil {
		t.Fatal(err)
	}
	d := daemon.New(t, daemon.Basic)
	var names []string
	conf := ""
	for _, text := range strings.Split(string(manual), "\n#!")[1:] {
		text, _, _ = strings.Cut(text, ".Ed\n")
		name := fmt.Sprintf("example%d", len(names))
		if err := os.WriteFile(d.Path(name), []byte("#!"+strings.ReplaceAll(text, `\e`, `\`)), 0o755); err != nil {
			t.Fatal(err)
		}
		conf += fmt.Sprintf("filter %s proc-exec %q\n", name, d.Path(name))
		names = append(names, name)
	}
	if len(names) != 2 {
		t.Fatalf("there are %d examples", len(names))
	}
	d.Configure(conf + "listen on 127.0.0.1 port $port filter { " + strings.Join(names, ", ") + " }\naction here maildir $box\nmatch for local action here\n")
	d.Start()
	for i, hello := range []string{"localhost", "client.example.org"} {
		nc, err := net.Dial("tcp", d.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		in := bufio.NewReader(nc)
		say := func(line, want string) {
			t.Helper()
			if line != "" {
				fmt.Fprint(nc, line+"\r\n")
			}
			if got, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("%q is answered %q, %v; want %q", line, got, err, want)
			}
		}
		say("", "220 ")
		say("HELO "+hello, []string{"550 5.7.1 that is me", "250 "}[i])
		if i == 0 {
			continue
		}
		for n := range 2 {
			say("MAIL FROM:<eve@example.org>", "250 ")
			say("RCPT TO:<"+me(t)+">", "250 ")
			say("DATA", "354 ")
			say(fmt.Sprintf("Subject: %d|a\\b\r\n\r\n..dot\r\n -n *\r\n.", n), "250 ")
		}
	}
	for _, text := range d.AwaitMail(2) {
		if strings.Count(text, "X-Passed: mx.example.org\nReceived: ") != 1 || !strings.Contains(text, `|a\b`+"\n") || !strings.HasSuffix(text, "\n\n.dot\n -n *\n") {
			t.Errorf("delivered %q", text)
		}
	}
}
