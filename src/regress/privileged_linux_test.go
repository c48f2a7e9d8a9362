package regress

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/regress/daemon"
)

// TestDiskFull runs the spool on a tiny file system.
func TestDiskFull(t *testing.T) {
	privileged(t)
	clearSpool(t)
	if err := os.MkdirAll("/var/spool/smtpd", 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/var/spool/smtpd", "tmpfs", 0, "size=40m,mode=711"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount("/var/spool/smtpd", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	d := daemon.NewRoot(t, system).Start()
	defer d.Stop() // before the file system goes
	send(t, d, "while there is room", "anna@localhost")
	filler, err := os.Create("/var/spool/smtpd/filler")
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = filler.Write(block)
	}
	c := d.Dial()
	d.Await("452 at MAIL", func() bool {
		err := c.Send("a@example.org", []string{"anna@localhost"}, "Subject: none\r\n\r\n", false)
		if err == nil {
			return false
		}
		if got := err.Error(); !strings.Contains(got, "452 4.3.1") && !strings.Contains(got, "451 4.3.0") {
			t.Fatalf("a full disk was answered %q", got)
		}
		full := strings.Contains(err.Error(), "MAIL: 452")
		if err := c.Reset(); err != nil {
			c = d.Dial()
		}
		return full
	})
	if err := os.Remove("/var/spool/smtpd/filler"); err != nil {
		t.Fatal(err)
	}
	filler.Close()
	d.Await("mail to be taken again", func() bool {
		err := c.Send("a@example.org", []string{"bert@localhost"}, "Subject: again\r\n\r\n", false)
		if err != nil {
			if err := c.Reset(); err != nil {
				c = d.Dial()
			}
		}
		return err == nil
	})
	d.Await("mail of bert", func() bool { return len(d.Mail("/home/bert/Maildir")) == 1 })
}

// TestRootForwardRestricted: what root's .forward may not hold is refused.
func TestRootForwardRestricted(t *testing.T) {
	privileged(t)
	clearSpool(t)
	home := "/root"
	if err := unix.Mount("tmpfs", home, "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(home, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	d := daemon.NewRoot(t, system).Start()
	for _, value := range []string{"|touch /run/owned", "/run/owned", ":include:/run/owned"} {
		if err := os.WriteFile(home+"/.forward", []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := d.Dial()
		if err := c.Send("a@example.org", []string{"root@localhost"}, "Subject: x\r\n\r\n", false); err == nil {
			d.Await("an empty queue", func() bool { return d.Ctl("show", "queue") == "" })
		}
		if _, err := os.Stat("/run/owned"); err == nil {
			t.Fatalf("%q was obeyed", value)
		}
	}
}

// TestGarbageOnControlSocketAsUser: any local user may connect; nobody may hurt.
func TestGarbageOnControlSocketAsUser(t *testing.T) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, system).Start()
	asAnna := func(program string, args ...string) (string, int) {
		t.Helper()
		return d.RunAs(&syscall.Credential{Uid: 7101, Gid: 7101}, program, args...)
	}
	for _, args := range [][]string{{"show", "queue"}, {"pause", "mda"}, {"remove", "all"}, {"reload"}, {"log", "verbose"}, {"show", "stats"}} {
		if out, st := asAnna("smtpctl", args...); st == 0 && args[0] != "show" {
			t.Errorf("anna may smtpctl %s: %s", strings.Join(args, " "), out)
		}
	}
	for range 50 {
		d.GarbageAs(&syscall.Credential{Uid: 7101, Gid: 7101}, "/var/run/smtpd.sock")
	}
	send(t, d, "unhurt", "anna@localhost")
	d.Await("mail of anna", func() bool { return len(d.Mail("/home/anna/Maildir")) == 1 })
}
