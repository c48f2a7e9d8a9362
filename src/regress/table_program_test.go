package regress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/regress/daemon"
)

// programWord as the first argument makes a table program of this test's binary:
// it serves a file of lines "service key value", until it is asked for a key that
// begins with keyDies.
const (
	programWord = "table-program"
	keyDies     = "dies"
)

// tableProgram is the main of a table program.
func tableProgram(path string) int {
	p := &lines{path: path}
	if err := p.Update(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err := tableprog.Serve(context.Background(), os.Stdin, os.Stdout, p,
		tableprog.Alias, tableprog.Domain, tableprog.UserInfo, tableprog.MailAddr, tableprog.NetAddr, tableprog.Credentials)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// lines is the table of such a program.
type lines struct {
	path string
	mu   sync.RWMutex
	of   map[string]string // by "service key"
}

// Update implements tableprog.Updater.
func (p *lines) Update(context.Context) error {
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	of := make(map[string]string)
	for in := bufio.NewScanner(f); in.Scan(); {
		w := strings.SplitN(in.Text(), " ", 3)
		if len(w) != 3 {
			return fmt.Errorf("%q is not a line", in.Text())
		}
		of[w[0]+" "+w[1]] = w[2]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of = of
	return nil
}

// Lookup implements tableprog.Table.
func (p *lines) Lookup(_ context.Context, s tableprog.Service, key string) (string, bool, error) {
	if strings.HasPrefix(key, keyDies) {
		p.mu.Lock() // nobody is answered any more
		return "", false, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	value, found := p.of[string(s)+" "+key]
	return value, found, nil
}

// withProgram returns a daemon one of whose tables is a program, and the path of
// what that serves.
func withProgram(t *testing.T, conf, content string) (*daemon.Daemon, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := daemon.New(t, "")
	path := d.Path("content")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Configure(fmt.Sprintf("table prog \"proc:%s %s %s\"\n", exe, programWord, path) + conf)
	return d, path
}

const programConf = `listen on 127.0.0.1 port $port
listen on socket
action "v" maildir $box virtual <prog>
match from any for domain <prog> action "v"
match from any for rcpt-to <prog> action "v"
`

func programContent(t *testing.T) string {
	return "domain *.v.test x\nalias joe@a.v.test " + me(t) + "\nalias @b.v.test " + me(t) + "\nmailaddr @w.test x\nalias one@w.test " + me(t) + "\n"
}

// TestTableProgram has a program say what our domains are, and who gets their
// mail.
func TestTableProgram(t *testing.T) {
	t.Parallel()
	d, path := withProgram(t, programConf, programContent(t))
	d.Start()
	send(t, d, "first", "JOE+tag@a.V.test")
	send(t, d, "second", "anybody@b.v.test")
	send(t, d, "third", "one@w.test")
	d.AwaitMail(3)
	refused := func(rcpt, class string) {
		t.Helper()
		err := d.Dial().Send("a@example.org", []string{rcpt}, "Subject: no\r\n\r\n", false)
		var no *load.Refused
		if !errors.As(err, &no) || !strings.HasPrefix(strconv.Itoa(no.Code), class) {
			t.Errorf("%s: %v", rcpt, err)
		}
	}
	refused("jill@a.v.test", "524")
	refused("joe@v.test", "550")
	refused("joe@c.test", "550")

	// An update is the program's business, and so is what is wrong with it.
	if err := os.WriteFile(path, []byte(programContent(t)+"alias jill@a.v.test "+me(t)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Ctl("update", "table", "prog")
	send(t, d, "fourth", "jill@a.v.test")
	d.AwaitMail(4)
	if err := os.WriteFile(path, []byte("broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := d.Run("", "smtpctl", "update", "table", "prog"); status == 0 || !strings.Contains(out+errs, `"broken" is not a line`) {
		t.Errorf("a broken update: %d, %s%s", status, out, errs)
	}
	send(t, d, "fifth", "jill@a.v.test")
	d.AwaitMail(5)
}

// TestTableProgramDies holds that a program that dies makes recipients wait and
// nothing else, and that it is back soon.
func TestTableProgramDies(t *testing.T) {
	t.Parallel()
	d, _ := withProgram(t, programConf, programContent(t))
	d.Start()
	err := d.Dial().Send("a@example.org", []string{keyDies + "@a.v.test"}, "Subject: no\r\n\r\n", false)
	var no *load.Refused
	if !errors.As(err, &no) || no.Code/100 != 4 {
		t.Errorf("while the program dies: %v", err)
	}
	d.AwaitLog(`warn: table-proc: prog: it ended; its lookups fail until it is started again`)
	d.Await("the program to serve again", func() bool {
		err := d.Dial().Send("a@example.org", []string{"joe@a.v.test"}, "Subject: yes\r\n\r\n", false)
		if err != nil && (!errors.As(err, &no) || no.Code/100 != 4) {
			t.Fatal(err)
		}
		return err == nil
	})
	d.AwaitMail(1)
}

// TestTableProgramKilledUnderLoad kills the program again and again while mail
// comes in: every message that was taken is delivered once, and no recipient is
// refused for good.
func TestTableProgramKilledUnderLoad(t *testing.T) {
	t.Parallel()
	d, _ := withProgram(t, programConf, programContent(t))
	d.Start()
	var taken, deferred atomic.Int64
	const clients, each = 4, 150
	var work sync.WaitGroup
	for n := range clients {
		work.Go(func() {
			for i := range each {
				if err := insist(d, fmt.Sprintf("load %d-%d", n, i), &deferred); err != nil {
					t.Error(err)
					return
				}
				taken.Add(1)
			}
		})
	}
	for kills := range int64(2) {
		d.Await("some mail", func() bool { return taken.Load() >= (kills+1)*50 })
		signalProgram(t, d, syscall.SIGKILL)
	}
	work.Wait()
	d.AwaitMail(clients * each)
	if deferred.Load() == 0 {
		t.Error("nobody noticed that the program was killed")
	}
}

// insist sends a message until it is taken.
func insist(d *daemon.Daemon, subject string, deferred *atomic.Int64) error {
	c, err := load.Dial(context.Background(), d.Addr, daemon.Wait)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello("client.localhost"); err != nil {
		return err
	}
	for {
		err := c.Send("a@example.org", []string{"joe@a.v.test"}, "Subject: "+subject+"\r\n\r\nx\r\n", false)
		var no *load.Refused
		switch {
		case err == nil:
			return c.Quit()
		case !errors.As(err, &no) || no.Code/100 != 4:
			return fmt.Errorf("%s: %w", subject, err)
		}
		deferred.Add(1)
		if err := c.Reset(); err != nil {
			return err
		}
	}
}

// TestTableProgramHangs stops the program: who asks gets a temporary failure, and
// another program takes its place.
func TestTableProgramHangs(t *testing.T) {
	t.Parallel()
	d, _ := withProgram(t, programConf, programContent(t))
	d.Start()
	send(t, d, "before", "joe@a.v.test")
	signalProgram(t, d, syscall.SIGSTOP)
	refuses(t, d, "joe@a.v.test", 451)
	d.AwaitLog(`warn: table-proc: prog: no answer; its lookups fail until it is started again`)
	d.Await("the program to serve again", func() bool {
		return d.Dial().Send("a@example.org", []string{"joe@a.v.test"}, "Subject: after\r\n\r\n", false) == nil
	})
	d.AwaitMail(2)
}

// signalProgram sends a signal to the program of the table, once it runs.
func signalProgram(t *testing.T, d *daemon.Daemon, sig syscall.Signal) {
	t.Helper()
	d.Await("the program", func() bool {
		for _, pid := range d.Processes(programWord) {
			return syscall.Kill(pid, sig) == nil
		}
		return false
	})
}
