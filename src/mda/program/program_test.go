package program

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"opensmtpd/src/clock"
)

func call(stdin io.Reader, env []string, args ...string) (*Call, *bytes.Buffer) {
	stderr := new(bytes.Buffer)
	return &Call{
		Args: args, Env: env, Stdin: stdin, Stderr: stderr, UID: 1000, Clock: clock.NewFake(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)),
		Exec: func(string, []string, []string) error { return syscall.ENOENT },
	}, stderr
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

func TestMaildir(t *testing.T) {
	home := t.TempDir()
	for _, tc := range []struct {
		name, body, where string
		args, env         []string
	}{
		{"default", "x\n", "Maildir/new", nil, nil},
		{"path", "x\n", "M/new", []string{home + "/M"}, nil},
		{"junk", "X-Spam: yes\n\n", "J/.Junk/new", []string{"-j", home + "/J"}, nil},
		{"no spam", "x\n", "J/new", []string{"-j", "--", home + "/J"}, nil},
		{"folder", "x\n", "Maildir/.lists/new", nil, []string{"EXTENSION=lists"}},
		{"no folder", "x\n", "N/new", []string{home + "/N"}, []string{"EXTENSION=none"}},
	} {
		if tc.name == "folder" {
			if err := os.Mkdir(home+"/Maildir/.lists", 0o700); err != nil {
				t.Fatal(err)
			}
		}
		c, stderr := call(strings.NewReader(tc.body), append(tc.env, "HOME="+home), tc.args...)
		if status := Maildir(c); status != 0 || stderr.Len() > 0 {
			t.Errorf("%s: status %d, %s", tc.name, status, stderr)
		}
		if got := only(t, home+"/"+tc.where); got != tc.body {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
}

func TestMaildirFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args   []string
		body   io.Reader
		status int
		says   string
	}{
		{[]string{"relative"}, strings.NewReader("x"), 1, "absolute"},
		{nil, strings.NewReader("x"), 1, "HOME is not set"},
		{[]string{"a", "b"}, strings.NewReader("x"), 1, "only one maildir"},
		{[]string{"-x"}, strings.NewReader("x"), 1, "unknown option"},
		{[]string{dir + "/file/M"}, strings.NewReader("x"), 75, "not a directory"},
		{[]string{dir + "/M"}, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("EIO"))), 75, "EIO"},
	} {
		c, stderr := call(tc.body, nil, tc.args...)
		if status := Maildir(c); status != tc.status || !strings.HasPrefix(stderr.String(), "mail.maildir: ") || !strings.Contains(stderr.String(), tc.says) {
			t.Errorf("%q: status %d, %s", tc.args, status, stderr)
		}
	}
	for _, sub := range []string{"new", "tmp"} {
		if entries, err := os.ReadDir(dir + "/M/" + sub); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v, %v", sub, entries, err)
		}
	}
}

func TestMboxFile(t *testing.T) {
	path := t.TempDir() + "/box"
	for i := range 2 {
		c, stderr := call(strings.NewReader("S: x\nFrom y\n"), nil, "-fbob@x", path)
		if status := MboxFile(c); status != 0 {
			t.Fatalf("%d: status %d, %s", i, status, stderr)
		}
	}
	const one = "From bob@x Wed Mar  4 05:06:07 2026\nS: x\n>From y\n\n"
	if b, err := os.ReadFile(path); err != nil || string(b) != one+one {
		t.Errorf("%q, %v", b, err)
	}
	for _, tc := range []struct {
		args   []string
		status int
	}{
		{[]string{os.DevNull}, 0}, {nil, 1}, {[]string{path, path}, 1}, {[]string{"-f"}, 1}, {[]string{"-f", "a\nFrom b", path}, 1},
		{[]string{t.TempDir()}, 75}, {[]string{path + "/x"}, 75},
	} {
		c, stderr := call(strings.NewReader("x"), nil, tc.args...)
		if status := MboxFile(c); status != tc.status || (status != 0) != strings.HasPrefix(stderr.String(), "mail.mboxfile: ") {
			t.Errorf("%q: status %d, %s", tc.args, status, stderr)
		}
	}
}

func TestMDA(t *testing.T) {
	type exec struct {
		path string
		argv []string
	}
	for _, tc := range []struct {
		line   []string
		err    error // of Exec, below /two
		tried  []exec
		status int
	}{
		{[]string{"prog -f '`id`@x'"}, nil, []exec{{"/one/prog", []string{"prog", "-f", "`id`@x"}}, {"/two/prog", []string{"prog", "-f", "`id`@x"}}}, 75},
		{[]string{"prog $(id) `id`"}, syscall.ENOENT, []exec{{"/one/prog", []string{"prog", "$(id)", "`id`"}}, {"/two/prog", []string{"prog", "$(id)", "`id`"}}}, 127},
		{[]string{"/bin/prog ${SMTPD_1}"}, syscall.EACCES, []exec{{"/bin/prog", []string{"/bin/prog", "a b"}}}, 127},
		{[]string{"/bin/prog"}, syscall.ENOMEM, []exec{{"/bin/prog", []string{"/bin/prog"}}}, 75},
		{[]string{"prog | other"}, nil, nil, 75},
		{[]string{"prog 'x"}, nil, nil, 1},
		{[]string{""}, nil, nil, 1},
		{nil, nil, nil, 1},
		{[]string{"a", "b"}, nil, nil, 1},
	} {
		c, stderr := call(nil, []string{"PATH=/one:/two", "SMTPD_1=a b"}, tc.line...)
		var tried []exec
		c.Exec = func(path string, argv, _ []string) error {
			tried = append(tried, exec{path, argv})
			if strings.HasPrefix(path, "/one") {
				return syscall.ENOENT
			}
			if tc.err == nil {
				return syscall.E2BIG
			}
			return tc.err
		}
		status := MDA(c)
		if status != tc.status || !strings.HasPrefix(stderr.String(), "mail.mda: ") {
			t.Errorf("%q: status %d, %s", tc.line, status, stderr)
		}
		if !slices.EqualFunc(tried, tc.tried, func(a, b exec) bool { return a.path == b.path && slices.Equal(a.argv, b.argv) }) {
			t.Errorf("%q: tried %q", tc.line, tried)
		}
	}
}

func TestRoot(t *testing.T) {
	for name, run := range map[string]func(*Call) int{"mail.maildir": Maildir, "mail.mboxfile": MboxFile, "mail.mda": MDA} {
		c, stderr := call(strings.NewReader("x"), nil, t.TempDir()+"/x")
		c.UID = 0
		if status := run(c); status != 1 || stderr.String() != name+": may not be executed as root\n" {
			t.Errorf("%s: status %d, %s", name, status, stderr)
		}
	}
}

// lmtpd is a server that takes mail for good@example.org, has no room for full,
// and knows nobody else. What it heard comes at the end.
func lmtpd(t *testing.T) (address string, heard <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	all := make(chan string, 1)
	go func() {
		var b strings.Builder
		defer func() { all <- b.String() }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var rcpts []string
		r := bufio.NewReader(c)
		for reply := "220 hi"; ; {
			if _, err := io.WriteString(c, reply+"\r\n"); err != nil {
				return
			}
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			b.WriteString(strings.TrimSpace(line) + "|")
			switch reply = "250 ok"; strings.TrimSpace(line) {
			case "RCPT TO:<full>":
				rcpts = append(rcpts, "452 4.2.2 full")
			case "RCPT TO:<good@example.org>", `RCPT TO:<"g g"@example.org>`, `RCPT TO:<"root@other> NOTIFY=NEVER <"@y>`:
				rcpts = append(rcpts, "250 saved")
			case "RCPT TO:<none>":
				reply = "550 5.1.1 unknown"
			case "DATA":
				reply = "354 go on"
			case ".":
				reply = strings.Join(rcpts, "\r\n")
			}
			if reply == "354 go on" {
				io.WriteString(c, reply+"\r\n")
				for line != ".\r\n" && err == nil {
					line, err = r.ReadString('\n')
					b.WriteString(strings.TrimSpace(line) + "|")
				}
				reply = strings.Join(rcpts, "\r\n")
			}
		}
	}()
	return l.Addr().String(), all
}

func TestLMTP(t *testing.T) {
	for _, tc := range []struct {
		name       string
		args, env  []string
		status     int
		says, hear string
	}{
		{"by name", []string{"-f", "bob@example.org", "good@example.org"}, nil, 0, "", "LHLO localhost|MAIL FROM:<bob@example.org>|RCPT TO:<good@example.org>|DATA|x|.|"},
		{"recipient", []string{"-r", "-l", "mx.example.org"}, []string{"SENDER=", "RECIPIENT=good@example.org"}, 0, "", "LHLO mx.example.org|MAIL FROM:<>|RCPT TO:<good@example.org>|"},
		{"user", []string{"-u"}, []string{"SENDER=a@b", "USER=none"}, 69, "mail.lmtp: LMTP server error: 550 5.1.1 unknown\n", "RCPT TO:<none>|QUIT|"},
		{"full", []string{"full"}, []string{"SENDER=a@b"}, 75, "mail.lmtp: LMTP server error: 452 4.2.2 full\n", "RCPT TO:<full>|DATA|"},
		{"quoted", []string{"-f", `"b b"@x`, `"g g"@example.org`}, nil, 0, "", `MAIL FROM:<"b b"@x>|RCPT TO:<"g g"@example.org>|DATA|`},
		{"parameter injection", []string{"-r"}, []string{"SENDER=b> SIZE=1 <@x", "RECIPIENT=root@other> NOTIFY=NEVER <@y"}, 0, "", `MAIL FROM:<"b> SIZE=1 <"@x>|RCPT TO:<"root@other> NOTIFY=NEVER <"@y>|`},
		{"several", []string{"good@example.org", "full", "none"}, []string{"SENDER=a@b"}, 75, "mail.lmtp: <none>: LMTP server error: 550 5.1.1 unknown\nmail.lmtp: LMTP server error: 452 4.2.2 full\n", "DATA|"},
	} {
		address, heard := lmtpd(t)
		c, stderr := call(strings.NewReader("x\n"), tc.env, append([]string{"-d", address}, tc.args...)...)
		if status := LMTP(c); status != tc.status || !strings.HasSuffix(stderr.String(), tc.says) || tc.says == "" && stderr.Len() > 0 {
			t.Errorf("%s: status %d, %s", tc.name, status, stderr)
		}
		if h := <-heard; !strings.Contains(h, tc.hear) {
			t.Errorf("%s: server heard %s", tc.name, h)
		}
	}
}

func TestLMTPFails(t *testing.T) {
	sender := []string{"SENDER=a@b"}
	for _, tc := range []struct {
		args, env []string
		uid       int
		says      string
	}{
		{[]string{"eve"}, nil, 1000, "sender must be specified"},
		{nil, sender, 1000, "no recipient was specified"},
		{[]string{"-u"}, sender, 1000, "no recipient was specified"},
		{[]string{"-x"}, sender, 1000, "unknown option"},
		{[]string{"eve"}, sender, 0, "root"},
		{[]string{"a\r\nDATA"}, sender, 1000, "more than a line"},
		{[]string{"-d", t.TempDir() + "/none", "eve"}, sender, 1000, "cannot connect to the LMTP server: dial unix"},
	} {
		c, stderr := call(strings.NewReader("x\n"), tc.env, tc.args...)
		c.UID = tc.uid
		if status := LMTP(c); status != 75 || !strings.Contains(stderr.String(), tc.says) {
			t.Errorf("%q: status %d, %s", tc.args, status, stderr)
		}
	}
}
