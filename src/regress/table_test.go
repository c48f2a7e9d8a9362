package regress

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// put writes a file below the daemon's directory, as an editor does.
func put(t *testing.T, d *daemon.Daemon, name, text string) string {
	t.Helper()
	path := d.Path(name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// refuses holds that a recipient is refused with a code.
func refuses(t *testing.T, d *daemon.Daemon, rcpt string, code int) {
	t.Helper()
	err := d.Dial().Send("a@example.org", []string{rcpt}, "Subject: no\r\n\r\n", false)
	var no *load.Refused
	if !errors.As(err, &no) || no.Code != code {
		t.Errorf("%s: %v, not %d", rcpt, err, code)
	}
}

// TestUpdateTable has smtpctl have files read again, good ones and bad.
func TestUpdateTable(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	users := put(t, d, "users", "joe@v.test "+me(t)+"\n")
	doms := put(t, d, "doms", "[192.0.2.1]\nv.test\n")
	maps := put(t, d, "maps", "one@m.test "+me(t)+"\n")
	makemap := func() {
		t.Helper()
		if _, errs, status := d.Run("", "makemap", maps); status != 0 {
			t.Fatal(errs)
		}
	}
	makemap()
	d.Configure("table users file:" + users + "\ntable doms file:" + doms + "\ntable maps db:" + maps + `.db
listen on 127.0.0.1 port $port
listen on socket
action "v" maildir $box virtual <users>
action "m" maildir $box virtual <maps>
match from any for domain <doms> action "v"
match from any for domain "m.test" action "m"
`)
	d.Start()
	send(t, d, "first", "joe@v.test")
	refuses(t, d, "jill@v.test", 524)
	refuses(t, d, "joe@w.test", 550)

	put(t, d, "users", "joe@v.test "+me(t)+"\njill@v.test "+me(t)+" # new \\\n too\n")
	put(t, d, "doms", "v.test   # ours\n*.w.test\n")
	refuses(t, d, "jill@v.test", 524) // nobody said that it changed
	d.Ctl("update", "table", "users")
	d.Ctl("update", "table", "doms")
	send(t, d, "second", "jill@v.test")
	refuses(t, d, "joe@w.test", 550)
	refuses(t, d, "joe@a.w.test", 524)

	put(t, d, "users", "joe@v.test "+me(t)+"\n\nbroken\n")
	out, errs, status := d.Run("", "smtpctl", "update", "table", "users")
	if want := users + ":3: invalid map entry"; status == 0 || !strings.Contains(out+errs, "the old content stays") || !strings.Contains(out+errs, want) {
		t.Errorf("a broken file: %d, %s%s", status, out, errs)
	}
	d.AwaitLog(`warn: Failed to update table "users": .*users:3: invalid map entry`)
	send(t, d, "third", "jill@v.test")
	if err := os.Remove(users); err != nil {
		t.Fatal(err)
	}
	want := "the old content stays: open " + users + ": no such file"
	if out, errs, status := d.Run("", "smtpctl", "update", "table", "users"); status == 0 || !strings.Contains(out+errs, want) {
		t.Errorf("a file that is gone: %s%s", out, errs)
	}
	send(t, d, "fourth", "jill@v.test")
	if out, errs, status := d.Run("", "smtpctl", "update", "table", "none"); status == 0 || !strings.Contains(out+errs, "there is no table none") {
		t.Errorf("no such table: %d, %s%s", status, out, errs)
	}

	// A map is in use once makemap has replaced it.
	refuses(t, d, "two@m.test", 524)
	put(t, d, "maps", "two@m.test "+me(t)+"\n")
	makemap()
	d.Await("the new map", func() bool {
		return d.Dial().Send("a@example.org", []string{"two@m.test"}, "Subject: fifth\r\n\r\n", false) == nil
	})
	put(t, d, "maps.db", "rubbish")
	d.AwaitMail(5)
	d.Await("the bad map to be noticed", func() bool {
		if err := d.Dial().Send("a@example.org", []string{"two@m.test"}, "Subject: more\r\n\r\n", false); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(d.Log(), `warn: Failed to update table "maps": `)
	})
}

// TestListOfTenThousand sends one message to an alias of 10,000 addresses.
func TestListOfTenThousand(t *testing.T) {
	t.Parallel()
	const members = 10_000
	d := daemon.New(t, "")
	var list strings.Builder
	for i := range members {
		fmt.Fprintf(&list, "member%d@list.test, ", i)
	}
	aliases := put(t, d, "aliases", "everybody: "+strings.TrimSuffix(list.String(), ", ")+"\n")
	d.Configure("table aliases file:" + aliases + `
listen on 127.0.0.1 port $port
listen on socket
action "local" maildir $box alias <aliases>
action "members" maildir $box virtual { "@list.test" = ` + me(t) + ` }
match for local action "local"
match for domain "list.test" action "members"
`)
	d.Start()
	send(t, d, "to all", "everybody@localhost")
	d.Await("10,000 deliveries", func() bool {
		names, err := os.ReadDir(d.Path("Maildir", "new"))
		return err == nil && len(names) == members
	})
	d.Await("a log line for each", func() bool { return strings.Count(d.Log(), "stat=Delivered") == members })
	refuses(t, d, "nobody@localhost", 550)
}

// TestCatchAll is a domain whose mail all goes to one, but for some.
func TestCatchAll(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	users := put(t, d, "users", strings.ReplaceAll(`@v.test          ME
no-reply@v.test  error:550 Nobody reads this
sales@v.test     first@v.test, second@v.test
abuse            one@w.test
one@w.test       ME
`, "ME", me(t)))
	d.Configure("table users file:" + users + `
listen on 127.0.0.1 port $port
listen on socket
action "v" maildir "` + d.Dir + `/Maildir/%{dest}" virtual <users>
match from any for domain { v.test, w.test } action "v"
`)
	d.Start()
	send(t, d, "any", "Anybody+tag@V.test")
	send(t, d, "two", "sales@v.test")
	send(t, d, "abuse", "abuse@v.test")
	refuses(t, d, "no-reply@v.test", 550)
	refuses(t, d, "no-reply+x@v.test", 550)
	refuses(t, d, "any@w.test", 524)
	d.Await("four deliveries", func() bool {
		found, _ := filepath.Glob(d.Path("Maildir", "*", "new", "*"))
		return len(found) == 4
	})
}

// TestSharedUID delivers to two virtual users who have one uid and homes of
// their own.
func TestSharedUID(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var base strings.Builder
	for _, name := range []string{"joe", "jack"} {
		home := d.Path(name)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&base, "%s %s:%s:%s # %s\n", name, u.Uid, u.Gid, home, name)
	}
	d.Configure("table people file:" + put(t, d, "people", base.String()) + `
listen on 127.0.0.1 port $port
listen on socket
action "virtual" maildir "%{user.directory}/Mail" userbase <people> virtual { "joe@v.test" = joe, "jack@v.test" = jack, "both@v.test" = "joe, jack" }
match from any for domain "v.test" action "virtual"
`)
	d.Start()
	send(t, d, "joe's", "joe@v.test")
	send(t, d, "of both", "both@v.test")
	for name, want := range map[string]int{"joe": 2, "jack": 1} {
		d.Await("mail of "+name, func() bool { return len(d.Mail(d.Path(name, "Mail"))) == want })
	}
	for _, text := range d.Mail(d.Path("jack", "Mail")) {
		if !strings.Contains(text, "Subject: of both") {
			t.Errorf("jack got %s", text)
		}
	}
	refuses(t, d, "jill@v.test", 524)
}

// TestUnreadableTable: a table file that is there but that smtpd may not read is
// told with its place, at the start, at an update and at a reload, and what was
// read before stays in use.
func TestUnreadableTable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may read every file")
	}
	d := daemon.New(t, "")
	users := put(t, d, "users", "joe@v.test "+me(t)+"\n")
	mode := func(m os.FileMode) {
		t.Helper()
		if err := os.Chmod(users, m); err != nil {
			t.Fatal(err)
		}
	}
	d.Configure("table users file:" + users + `
listen on 127.0.0.1 port $port
listen on socket
action "v" maildir $box virtual <users>
match from any for domain "v.test" action "v"
`)
	want := "table users: " + users + ": permission denied"
	placed := "smtpd.conf:1:13: " + want
	mode(0)
	if out, errs, status := d.Run("", "smtpd", d.Args("-d")...); status != 1 || !strings.Contains("\n"+out+errs, "\n"+d.Path(placed)) {
		t.Errorf("start: status %d, not 1, or no %q in\n%s%s", status, placed, out, errs)
	}
	mode(0o600)
	d.Start()
	mode(0)
	out, errs, status := d.Run("", "smtpctl", "update", "table", "users")
	if status == 0 || !strings.Contains(out+errs, "the old content stays: ") || !strings.Contains(out+errs, "permission denied") {
		t.Errorf("update: status %d: %s%s", status, out, errs)
	}
	d.AwaitLog(`warn: Failed to update table "users": .*permission denied`)
	send(t, d, "after the update", "joe@v.test")
	if out, errs, status := d.Run("", "smtpctl", "reload"); status == 0 || !strings.Contains(out+errs, want) {
		t.Errorf("reload: status %d: %s%s", status, out, errs)
	}
	send(t, d, "after the reload", "joe@v.test")
	mode(0o600)
	d.Ctl("update", "table", "users")
	d.AwaitMail(2)
}
