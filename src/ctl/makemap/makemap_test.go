package makemap

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/paths"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run calls a program with its state in dir and returns its status and what it
// wrote, with dir taken out of it.
func run(t *testing.T, dir, stdin, line string) string {
	t.Helper()
	words := strings.Fields(strings.ReplaceAll(line, "$", dir+"/"))
	var out, errs bytes.Buffer
	call := &invoke.Call{
		Name: words[0], Args: words[1:], Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
		Getenv: func(name string) string {
			if name == paths.StateEnv {
				return dir
			}
			return ""
		},
	}
	main := Run
	if words[0] != "makemap" {
		main = Newaliases
	}
	status := main(t.Context(), call)
	return strings.ReplaceAll(fmt.Sprintf("%d|%s|%s", status, &out, &errs), dir+"/", "$")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestMakemap(t *testing.T) {
	for _, tc := range []struct{ name, line, text, want, dump string }{
		{"secrets", "makemap $src", "smtp.example.com  user:password\n", "0||", "smtp.example.com\tuser:password\n"},
		{"colons and blanks", "makemap $src", "a: 1\nB 2\nc:\t3\n[::1/8] 4\n", "0||", "[::1/8]\t4\na\t1\nb\t2\nc\t3\n"},
		{"comments and continuation", "makemap $src", "# x\n\n  # y\na 1, \\\n   2\n", "0||", "a\t1, 2\n"},
		{"no last newline", "makemap $src", "a 1", "0||", "a\t1\n"},
		{"CRLF", "makemap $src", "a 1\r\nb 2\r\n", "0||", "a\t1\nb\t2\n"},
		{"set", "makemap -t set $src", "Example.ORG\nexample.com # ours\n", "0||", "example.com\t\nexample.org\t\n"},
		{"aliases", "makemap -t aliases $src", "root: joe, \"|/bin/x y\", /dev/null, a@b\nl: :include:/x, error:550 no\n", "0||",
			"l\t:include:/x, error:550 no\nroot\tjoe, \"|/bin/x y\", /dev/null, a@b\n"},
		{"formats", "makemap -d btree -C conf $src", "a 1\n", "0||", "a\t1\n"},
		{"dbm", "makemap -d dbm -o $src.db $src", "a 1\n", "0||", "a\t1\n"},
		{"AliasFile", "makemap -O AliasFile=$src", "a b\n", "0||", "a\tb\n"},
		{"empty", "makemap $src", "# nothing\n", "0||makemap: warning: empty map created: $src.db\n", ""},
		{"no value", "makemap $src", "a 1\n\nb\n", "1||makemap: $src:3: invalid map entry\n", "old\tmap\n"},
		{"duplicate", "makemap $src", "a 1\nb 2\nA 3\n", "1||makemap: $src:3: duplicate entry for a, first on line 1\n", "old\tmap\n"},
		{"no key", "makemap $src", ": x\n", "1||makemap: $src:1: invalid entry\n", "old\tmap\n"},
		{"bad alias", "makemap -t aliases $src", "a: b\nc: \"x\n", "1||makemap: $src:2: invalid entry: quote without its fellow\n", "old\tmap\n"},
		{"bracket", "makemap $src", "[::1 x\n", "1||makemap: $src:1: '[' without ']'\n", "old\tmap\n"},
		{"unknown format", "makemap -d sdbm $src", "a 1\n", "1||makemap: unsupported DB type 'sdbm'\n", "old\tmap\n"},
		{"unknown type", "makemap -t list $src", "a 1\n", "1||makemap: unsupported type 'list'\n", "old\tmap\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			db := filepath.Join(dir, "src.db")
			old := []mapdb.Entry{{Key: []byte("old"), Value: []byte("map"), Line: 1}}
			if err := mapdb.Write(db, mapdb.Plain, old, mapdb.Owner{Mode: 0o600, UID: -1, GID: -1}); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "src"), tc.text)
			if got := run(t, dir, "", tc.line); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if got, want := run(t, dir, "", "makemap -U $src.db"), "0|"+tc.dump+"|"; got != want {
				t.Errorf("the map holds %q, want %q", got, want)
			}
			files, err := os.ReadDir(dir)
			if err != nil || len(files) != 2 {
				t.Errorf("litter: %v, %v", files, err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	const usage = "usage: makemap [-U] [-C conf] [-d dbtype] [-O AliasFile=file] [-o dbfile] [-t type] file\n"
	dir := t.TempDir()
	write(t, filepath.Join(dir, "text"), strings.Repeat("root: joe\n", 10))
	for line, want := range map[string]string{
		"makemap":                "1||" + usage,
		"makemap -h":             "1||" + usage,
		"makemap a b c":          "1||" + usage,
		"makemap -z a":           "1||makemap: unknown option -- z\n" + usage,
		"makemap $none":          "1||makemap: open $none: no such file or directory\n",
		"makemap $":              "1||makemap: $: not a regular file\n",
		"makemap -":              "1||makemap: a map made from standard input needs -o\n",
		"makemap quick $x":       "1||makemap: unsupported DB type 'quick'\n",
		"makemap -U $text":       "1||makemap: $text: is not a map made by makemap(8)\n",
		"newaliases x":           "1||usage: newaliases [-f file]\n",
		"newaliases -f $missing": "1||newaliases: stat $missing: no such file or directory\n",
	} {
		if got := run(t, dir, "", line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

func TestStdin(t *testing.T) {
	dir := t.TempDir()
	if got := run(t, dir, "a 1\n", "makemap hash $x"); got != "0||" {
		t.Errorf("got %q", got)
	}
	if got := run(t, dir, "a 2\n", "makemap -o $y.db -"); got != "0||" {
		t.Errorf("got %q", got)
	}
	if got := run(t, dir, "", "makemap -U $x.db") + run(t, dir, "", "makemap -U $y.db"); got != "0|a\t1\n|0|a\t2\n|" {
		t.Errorf("got %q", got)
	}
	st, err := os.Stat(filepath.Join(dir, "x.db"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("a map from standard input has mode %v, %v", st.Mode(), err)
	}
}

// TestOwner holds that a map belongs to whom its source does.
func TestOwner(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	write(t, src, "a 1\n")
	if err := os.Chmod(src, 0o640); err != nil { // whatever the umask
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 54321, 54322
		if err := os.Chown(src, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if got := run(t, dir, "", "makemap $src"); got != "0||" {
		t.Fatal(got)
	}
	st, err := os.Stat(src + ".db")
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	if st.Mode().Perm() != 0o640 || int(sys.Uid) != uid || int(sys.Gid) != gid {
		t.Errorf("mode %v, owner %d:%d", st.Mode(), sys.Uid, sys.Gid)
	}
}

// TestReadOnly makes a map of a file that its owner may not write to.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	write(t, src, "a 1\n")
	if err := os.Chmod(src, 0o440); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := run(t, dir, "", "makemap $src"); got != "0||" {
			t.Fatal(got)
		}
	}
	if st, err := os.Stat(src + ".db"); err != nil || st.Mode().Perm() != 0o440 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	write(t, src, "a 1\n")
	f, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if got := run(t, dir, "", "makemap $src"); got != "1||makemap: $src is locked\n" {
		t.Errorf("got %q", got)
	}
}

// daemon listens on the control socket in dir, and tells what it was asked.
func daemon(t *testing.T, dir string) <-chan string {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "smtpd.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 8)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			s := ctl.NewServerConn(c, time.Now, time.Minute)
			if s.Hello("x") == nil {
				if q, err := s.Request(); err == nil {
					asked <- fmt.Sprint(q.Verb, q.Args)
					// Whether the client waits for this is his business.
					_ = s.Fail(&ctl.Refused{Text: "static tables are not read again"})
				}
			}
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return asked
}

func TestNewaliases(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "na")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	conf := filepath.Join(dir, "smtpd.conf")
	write(t, filepath.Join(dir, "aliases"), "root: joe\nabuse: root\n")

	write(t, conf, "table aliases db:"+dir+"/aliases.db\n")
	if got, want := run(t, dir, "", "newaliases"), "0|$aliases: 2 aliases\n|"; got != want {
		t.Errorf("db: got %q, want %q", got, want)
	}
	if got := run(t, dir, "", "makemap -U $aliases.db"); got != "0|abuse\troot\nroot\tjoe\n|" {
		t.Errorf("the map holds %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "aliases.db")); err != nil {
		t.Fatal(err)
	}

	asked := daemon(t, dir)
	write(t, conf, "table aliases file:"+dir+"/aliases\n")
	for _, line := range []string{"newaliases", "newaliases -f $smtpd.conf", "sendmail -bi", "sendmail -bi -C $smtpd.conf"} {
		if got, want := run(t, dir, "", line), "0|$aliases: 2 aliases\n|"; got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
		if got := <-asked; got != "update table[aliases]" {
			t.Errorf("%s asks %s", line, got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "aliases.db")); !os.IsNotExist(err) {
		t.Errorf("a map is made that nobody reads: %v", err)
	}
	if got, want := run(t, dir, "", "sendmail -bi -OAliasFile=$aliases"), "0|$aliases: 2 aliases\n|"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	<-asked

	write(t, filepath.Join(dir, "aliases"), "root: joe\nabuse: \"\n")
	if got, want := run(t, dir, "", "newaliases"), "1||newaliases: $aliases:2: invalid entry: quote without its fellow\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	write(t, conf, "table aliases { a = b }\n")
	if got := run(t, dir, "", "newaliases"); !strings.HasPrefix(got, "1||newaliases: table aliases is of type static") {
		t.Errorf("got %q", got)
	}
	write(t, conf, "tabel aliases\n")
	if got := run(t, dir, "", "newaliases"); !strings.Contains(got, "$smtpd.conf:1:1:") || !strings.HasSuffix(got, "newaliases: $smtpd.conf has errors\n") {
		t.Errorf("got %q", got)
	}
}

// TestNewaliasesReads holds in which configurations the tables are found: those
// of every release, HCL, and those whose table has another name.
func TestNewaliasesReads(t *testing.T) {
	const one = "0|$aliases: 2 aliases\n|"
	for _, tc := range []struct{ name, file, text, want string }{
		{"4.6", "smtpd.conf", "map \"aliases\" { source db \"$aliases.db\" }\naccept for local deliver to mbox\n", one},
		{"5.2", "smtpd.conf", "map aliases source db \"$aliases.db\"\naccept for local alias aliases deliver to mbox\n", one},
		{"5.3", "smtpd.conf", "table aliases db:$aliases.db\naccept for local alias <aliases> deliver to mbox\n", one},
		{"today", "smtpd.conf", "table aliases \"$aliases\"\naction a mbox alias <aliases>\nmatch for local action a\n", one},
		{"HCL", "smtpd.hcl", "table \"aliases\" {\n  source = \"db:$aliases.db\"\n}\n", one},
		{"errors elsewhere", "smtpd.conf", "table aliases db:$aliases.db\naction\n", one},
		{"other names", "smtpd.conf", "table names db:$aliases.db\ntable others file:$others\ntable in { a = b }\n" +
			"action a mbox alias <names>\naction b mbox alias <others>\naction c mbox alias <names>\naction d mbox alias <in>\naction e mbox\n",
			"0|$aliases: 2 aliases\n$others: 1 aliases\n|"},
		{"one is broken", "smtpd.conf", "table names db:$aliases.db\ntable others file:$broken\naction a mbox alias <names>\naction b mbox alias <others>\n",
			"1|$aliases: 2 aliases\n|newaliases: $broken:2: invalid map entry\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "aliases"), "root: joe\nabuse: root\n")
			write(t, filepath.Join(dir, "others"), "list: joe\n")
			write(t, filepath.Join(dir, "broken"), "list: joe\nlist\n")
			write(t, filepath.Join(dir, tc.file), strings.ReplaceAll(tc.text, "$", dir+"/"))
			if got := run(t, dir, "", "newaliases -f $"+tc.file); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			_, err := os.Stat(filepath.Join(dir, "aliases.db"))
			if made := err == nil; made != strings.Contains(tc.text, "aliases.db") {
				t.Errorf("the map is made: %v", made)
			}
		})
	}
}
