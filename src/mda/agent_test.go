package mda

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/command"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

func TestMaildir(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.Maildir), Junk: true})
	p := o.pool(Options{})
	var wg sync.WaitGroup
	const n = 300
	for i := range n {
		wg.Add(1)
		body := fmt.Sprintf("Subject: %03d\n\nx\n", i)
		p.Deliver(&Delivery{Gen: 1, Envelope: newEnvelope(fmt.Sprintf("user%d", i%3)), Size: int64(len(body)), Body: []byte(body), Done: func(r Result) {
			check(t, body, r, 0, "")
			wg.Done()
		}})
	}
	wg.Wait()
	for u := range 3 {
		var want []string
		for i := u; i < n; i += 3 {
			want = append(want, fmt.Sprintf("%sSubject: %03d\n\nx\n", added, i))
		}
		expect(t, fmt.Sprintf("%s/user%d/Maildir/new", o.dir, u), want...)
		expect(t, fmt.Sprintf("%s/user%d/Maildir/tmp", o.dir, u))
	}
	if o.spawned != 1 {
		t.Errorf("%d agents for one uid", o.spawned)
	}
	check(t, "spam", deliver(p, newEnvelope("eve"), "X-Spam: yes\n\n"), 0, "")
	expect(t, o.dir+"/eve/Maildir/.Junk/new", added+"X-Spam: yes\n\n")
	e := newEnvelope("eve")
	e.Sender = addr.Address{}
	check(t, "null sender", deliver(p, e, "\n"), 0, "")
	expect(t, o.dir+"/eve/Maildir/new", "Return-Path: <>\nDelivered-To: info@example.org\n\n")
}

func TestMaildirPath(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.Maildir)})
	o.conf.Path = o.dir + "/v/%{dest.domain}/%{dest.user:strip}"
	p := o.pool(Options{})
	e := newEnvelope("eve")
	e.Dest.Local = "Eve/../x+tag"
	check(t, "path", deliver(p, e, "x\n"), 0, "")
	expect(t, o.dir+"/v/example.org/Eve:..:x/new", added+"x\n")
	e = newEnvelope("eve")
	e.Dest.Local = ".."
	check(t, "dots", deliver(p, e, "x\n"), mailerr.Perm, "could not be expanded")
	if err := os.WriteFile(o.dir+"/v/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e = newEnvelope("eve")
	e.Dest = addr.Address{Local: "eve", Domain: "file"}
	r := deliver(p, e, "x\n")
	check(t, "in a file", r, mailerr.Temp, `Error (temporary failure: mail.maildir: `)
	if strings.Contains(r.Err.Text, o.dir) {
		t.Errorf("the report shows our paths: %q", r.Err.Text)
	}
}

func TestLargeBodies(t *testing.T) {
	dir := t.TempDir()
	for method, read := range map[conf.Method]func(t *testing.T, o *office) []string{
		conf.Maildir: func(t *testing.T, o *office) []string { return contents(t, o.dir+"/eve/Maildir/new") },
		conf.MBOX: func(t *testing.T, o *office) []string {
			b, err := os.ReadFile(o.dir + "/eve.mbox")
			if err != nil {
				t.Fatal(err)
			}
			parts := regexp.MustCompile(`(?m)^From bob@sender.example .*\n`).Split(string(b), -1)[1:]
			for i := range parts {
				parts[i] = strings.TrimSuffix(parts[i], "\n")
			}
			sort.Strings(parts)
			return parts
		},
		conf.MDA: func(t *testing.T, o *office) []string { return contents(t, dir) },
	} {
		t.Run(method.String(), func(t *testing.T) {
			o := newOffice(t, msg.AgentConf{Method: uint8(method), Command: "cat >$(mktemp " + dir + "/XXXXXX)"})
			p := o.pool(Options{})
			big := strings.Repeat("Subject: x\nline\n", 1<<17) // 2 MiB
			var wg sync.WaitGroup
			for range 2 {
				for _, d := range []*Delivery{
					{Size: int64(len(big)), Body: []byte(big)},
					{Size: int64(len(big)), Reader: strings.NewReader(big)},
					{Size: 5, Reader: strings.NewReader("tiny\n")},
					{Size: 5, Body: []byte("tiny\n")},
					{Size: 0},
				} {
					wg.Add(1)
					d.Gen, d.Envelope = 1, newEnvelope("eve")
					d.Done = func(r Result) {
						check(t, "large", r, 0, "")
						wg.Done()
					}
					p.Deliver(d)
				}
			}
			wg.Wait()
			r := wait(p, &Delivery{Gen: 1, Envelope: newEnvelope("eve"), Size: 300 << 10, Reader: failing{100 << 10}})
			check(t, "unreadable", r, mailerr.Temp, "Cannot read message")
			check(t, "after it", deliver(p, newEnvelope("eve"), "end\n"), 0, "")
			want := []string{added, added, added + big, added + big, added + big, added + big, added + "end\n"}
			for range 4 {
				want = append(want, added+"tiny\n")
			}
			sort.Strings(want)
			if got := read(t, o); !slices.Equal(got, want) {
				t.Errorf("%d messages: %.2000q", len(got), got)
			}
			if method == conf.Maildir {
				expect(t, o.dir+"/eve/Maildir/tmp")
			}
		})
	}
}

func TestMbox(t *testing.T) {
	// A wrapper has nothing to wrap here.
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.MBOX), HasWrapper: true, Wrapper: "false"})
	p := o.pool(Options{})
	e := newEnvelope("eve")
	e.Sender = addr.Address{}
	check(t, "mbox", deliver(p, e, "S: x\n\nFrom x\n"), 0, "")
	check(t, "mbox", deliver(p, newEnvelope("eve"), "S: y\n\n"), 0, "")
	b, err := os.ReadFile(o.dir + "/eve.mbox")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	if len(lines) < 14 || !strings.HasPrefix(lines[0], "From MAILER-DAEMON ") || !strings.HasPrefix(lines[7], "From bob@sender.example ") {
		t.Fatalf("%q", lines)
	}
	lines[0], lines[7] = "F\n", "F\n"
	want := "F\nReturn-Path: <>\nDelivered-To: info@example.org\nS: x\n\n>From x\n\nF\n" + added + "S: y\n\n\n"
	if got := strings.Join(lines, ""); got != want {
		t.Errorf("mailbox is %q, want %q", got, want)
	}
	if err := os.Remove(o.dir + "/eve.mbox"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(o.dir+"/eve.mbox", 0o700); err != nil {
		t.Fatal(err)
	}
	check(t, "no mailbox", deliver(p, newEnvelope("eve"), "x\n"), mailerr.Temp, "temporary failure: mail.local: ")
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unlocked != 2 {
		t.Errorf("unlocked %d times", o.unlocked)
	}
}

func TestExpansions(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.Maildir)})
	p := o.pool(Options{})
	if err := os.Mkdir(o.home("eve"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(path string) *envelope.Envelope {
		e := newEnvelope("eve")
		e.MDAExec = envelope.ExecFile("/usr/libexec/smtpd", path)
		return e
	}
	box := o.home("eve") + "/my box; touch x"
	check(t, "file", deliver(p, file(box), "S: x\n\na\nFrom b\n"), 0, "")
	b, err := os.ReadFile(box)
	if _, got, ok := strings.Cut(string(b), "\n"); err != nil || !ok || got != added+"S: x\n\na\n>From b\n\n" {
		t.Errorf("%q, %v", b, err)
	}
	check(t, "null", deliver(p, file("/dev/null"), "x"), 0, "")
	check(t, "directory", deliver(p, file(o.dir), "x"), mailerr.Temp, "mail.mboxfile")
	e := newEnvelope("eve")
	e.MDAExec = "cat >got; exit 0"
	check(t, "command", deliver(p, e, "x\n"), 0, "")
	if b, err := os.ReadFile(o.home("eve") + "/got"); err != nil || string(b) != added+"x\n" {
		t.Errorf("%q, %v", b, err)
	}
	// As root, and where only the system mailbox is served.
	o = newOffice(t, msg.AgentConf{Method: uint8(conf.Maildir), NoExec: true})
	p = o.pool(Options{})
	check(t, "exec of root", deliver(p, e, "x\n"), mailerr.Perm, "permission denied: MDA not allowed to deliver to: eve")
	check(t, "file of root", deliver(p, file(box), "x\n"), mailerr.Perm, "permission denied")
	o = newOffice(t, msg.AgentConf{Method: uint8(conf.MDA), Command: "true", NoCommand: true})
	check(t, "command of root", deliver(o.pool(Options{}), newEnvelope("eve"), "x\n"), mailerr.Perm, "permission denied")
}

func TestLoop(t *testing.T) {
	for body, loop := range map[string]bool{
		"Delivered-To: eve@example.org\n\n":                              true,
		"A: b\nDELIVERED-TO:  EVE@Example.org\r\n":                       true,
		"A: b\n c\n\td\nDelivered-To: eve@example.org":                   true,
		"A: b\n\nDelivered-To: eve@example.org\n":                        false,
		"no header\nDelivered-To: eve@example.org\n":                     false,
		"Delivered-To: eve@example.organisation\n":                       false,
		"Delivered-To: info@example.org\n":                               false,
		"X-Delivered-To: eve@example.org\n":                              false,
		"Delivered-To:\n":                                                false,
		strings.Repeat("A: b\n", 200000) + "\n":                          false,
		"Delivered-To: eve@example.org\n" + strings.Repeat("x\n", 1<<20): true,
	} {
		o := newOffice(t, msg.AgentConf{Method: uint8(conf.Maildir)})
		r := deliver(o.pool(Options{}), newEnvelope("eve"), body)
		if loop {
			if r.Err == nil || r.Err.Class != mailerr.Perm || r.Stat != "Loop detected" || r.Err.Enhanced != (mailerr.Enhanced{5, 4, 6}) {
				t.Errorf("%.60q: %+v", body, r)
			}
		} else {
			check(t, body[:min(len(body), 60)], r, 0, "")
		}
	}
}

func TestCommand(t *testing.T) {
	for _, tc := range []struct {
		command, sender string
		class           mailerr.Class
		stat, text      string
	}{
		{"cat >/dev/null", "", 0, "", ""},
		{"exit 75", "", mailerr.Temp, "Error (temporary failure: exited abnormally)", "exited abnormally"},
		{"exit 71", "", mailerr.Temp, "Error (system resource problem: exited abnormally)", ""},
		{"echo a; echo no such user; exit 67", "", mailerr.Perm, `Error (user unknown: "no such user")`, `"no such user"`},
		{"exit 1", "", mailerr.Perm, "Error (exited abnormally)", ""},
		{"exit 200", "", mailerr.Perm, "Error (exited abnormally)", ""},
		{"kill -9 $$", "", mailerr.Temp, "Error (terminated; signal 9)", ""},
		{"echo %{rcpt.user[10]}", "", mailerr.Perm, "could not be expanded", ""},
		{"echo %{sender:raw} \"$SENDER\" '%{sender.user}'; exit 1", "`id`", mailerr.Perm, "Error (\"`id`@x `id`@x :id:\")", ""},
	} {
		o := newOffice(t, msg.AgentConf{Method: uint8(conf.MDA), Command: tc.command})
		e := newEnvelope("eve")
		if tc.sender != "" {
			e.Sender = addr.Address{Local: tc.sender, Domain: "x"}
		}
		r := deliver(o.pool(Options{}), e, "x\n")
		check(t, tc.command, r, tc.class, tc.stat)
		if tc.text != "" && r.Err.Text != tc.text {
			t.Errorf("%s: the report says %q", tc.command, r.Err.Text)
		}
	}
}

func TestCommandResult(t *testing.T) {
	for _, tc := range []struct {
		out   command.Outcome
		class mailerr.Class
		stat  string
	}{
		{command.Outcome{LastLine: "noise"}, 0, ""},
		{command.Outcome{TimedOut: true, Signal: syscall.SIGKILL}, mailerr.Temp, "Error (terminated; timeout)"},
		{command.Outcome{TimedOut: true, LastLine: "waiting"}, mailerr.Temp, `Error ("waiting")`},
		{command.Outcome{Cancelled: true, Signal: syscall.SIGKILL}, mailerr.Temp, "Error (terminated; shutting down)"},
		{command.Outcome{Unread: true}, mailerr.Temp, "Error (mda exited prematurely)"},
		{command.Outcome{Unread: true, Exit: 1}, mailerr.Perm, "Error (exited abnormally)"},
		{command.Outcome{Err: syscall.EAGAIN}, mailerr.Temp, "Error (system resource problem: mda could not be run: resource temporarily unavailable)"},
	} {
		check(t, fmt.Sprintf("%+v", tc.out), commandResult(tc.out), tc.class, tc.stat)
	}
}

// The environment is that of smtpd.conf(5), MDA COMMANDS.
func TestEnvironment(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.MDA), Command: "env | sort >env"})
	p := o.pool(Options{})
	if err := os.Mkdir(o.home("eve"), 0o700); err != nil {
		t.Fatal(err)
	}
	e := newEnvelope("eve")
	e.MDASubaddress = "lists"
	golden := func(name string) {
		t.Helper()
		check(t, name, deliver(p, e, "x\n"), 0, "")
		got, err := os.ReadFile(o.home("eve") + "/env")
		if err != nil {
			t.Fatal(err)
		}
		var kept []string
		for line := range strings.Lines(strings.ReplaceAll(string(got), o.dir, "DIR")) {
			if key, _, _ := strings.Cut(line, "="); key != "PWD" && key != "_" && key != "SHLVL" && key != "OLDPWD" { // the shell's own
				kept = append(kept, line)
			}
		}
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if have := strings.Join(kept, ""); have != string(want) {
			t.Errorf("%s: environment is\n%swant\n%s", name, have, want)
		}
	}
	golden("environment")
	e.MDASubaddress, e.Sender = "", addr.Address{}
	golden("environment-null-sender")
}

func TestWrapper(t *testing.T) {
	libexec := t.TempDir()
	for _, name := range []string{"mail.maildir", "mail.mboxfile"} {
		script := "#!/bin/sh\necho " + name + " \"$@\" >args\ncat >>args\n"
		if err := os.WriteFile(filepath.Join(libexec, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		conf msg.AgentConf
		exec string
		want string
	}{
		{"maildir", msg.AgentConf{Method: uint8(conf.Maildir), Path: "~/a b", Junk: true}, "", "mail.maildir -j HOME/a b\n"},
		{"maildir without path", msg.AgentConf{Method: uint8(conf.Maildir)}, "", "mail.maildir HOME/Maildir\n"},
		{"mda", msg.AgentConf{Method: uint8(conf.MDA), Command: "cat >args; echo %{sender} >>args"}, "", ""},
		{"file", msg.AgentConf{Method: uint8(conf.Maildir)}, envelope.ExecFile(libexec, "/x y"), "mail.mboxfile -f bob@sender.example /x y\n"},
		{"file of mbox", msg.AgentConf{Method: uint8(conf.MBOX)}, envelope.ExecFile(libexec, "/x y"), "mail.mboxfile -f bob@sender.example /x y\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.conf.LibExec, tc.conf.HasWrapper, tc.conf.Wrapper = libexec, true, "A=b; %{mda} && echo wrapped %{rcpt.user} >>args"
			o := newOffice(t, tc.conf)
			if err := os.Mkdir(o.home("eve"), 0o700); err != nil {
				t.Fatal(err)
			}
			e := newEnvelope("eve")
			e.MDAExec = tc.exec
			r := deliver(o.pool(Options{}), e, "x\n")
			check(t, tc.name, r, 0, "")
			b, err := os.ReadFile(o.home("eve") + "/args")
			want := strings.ReplaceAll(tc.want, "HOME", o.home("eve")) + added + "x\n"
			if tc.name == "mda" {
				want += "bob@sender.example\n"
			}
			if got := string(b); err != nil || got != want+"wrapped info\n" {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
}

// An agent that finds itself to be somebody else touches nothing.
func TestWrongUser(t *testing.T) {
	ours, theirs, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	queue, agent, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	link, err := imsg.NewConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	link.Put(imsg.Header{Type: uint16(msg.TypeAgentConf)}, &msg.AgentConf{UID: uint32(os.Getuid()) + 1}, nil)
	if err := Serve(context.Background(), theirs, agent); err == nil || !strings.Contains(err.Error(), "runs as uid") {
		t.Errorf("%v", err)
	}
}

// TestQuotedInHeader: what a local part holds does not end the brackets of
// Return-Path, and stands in Delivered-To as SMTP has it; a loop is known by it.
func TestQuotedInHeader(t *testing.T) {
	odd := addr.Address{Local: `x> "y`, Domain: "z.example"}
	d := &msg.Deliver{Sender: odd, Rcpt: odd}
	if got, want := string(head(d)), "Return-Path: <\"x> \\\"y\"@z.example>\nDelivered-To: \"x> \\\"y\"@z.example\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !loops(head(d), odd.SMTP()) {
		t.Error("its own header is no loop")
	}
}
