package regress

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// smallDisk is a file system of memory with the spool of a daemon on it.
type smallDisk struct {
	t    *testing.T
	path string
}

func newSmallDisk(t *testing.T, d *daemon.Daemon, mib int) *smallDisk {
	t.Helper()
	s := &smallDisk{t, d.Path("spool")}
	if err := os.Mkdir(s.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.path, "tmpfs", 0, fmt.Sprintf("mode=700,size=%dm", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(s.path, unix.MNT_DETACH) })
	return s
}

// free returns how much of it is, in percent.
func (s *smallDisk) free() float64 {
	s.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(s.path, &st); err != nil {
		s.t.Fatal(err)
	}
	return 100 * float64(st.Bavail) / float64(st.Blocks)
}

// fill leaves so many percent, and returns what empties it again.
func (s *smallDisk) fill(percent float64) (empty func()) {
	s.t.Helper()
	f, err := os.CreateTemp(s.path, "ballast")
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	piece := make([]byte, 256<<10)
	for s.free() > percent {
		if _, err := f.Write(piece); err != nil {
			break // it is full
		}
	}
	return func() { os.Remove(f.Name()) }
}

// TestDiskFilled_CVE_2015_7687: strangers who send messages and do not finish them
// cannot fill the disk, and when something else does, the daemon takes no mail for
// the time being, delivers what it has acknowledged, and takes mail again when
// there is room.
func TestDiskFilled_CVE_2015_7687(t *testing.T) {
	privileged(t)
	d := daemon.New(t, daemon.Basic)
	disk := newSmallDisk(t, d, 320)
	d.Start()
	user := me(t) + "@localhost"

	// 60 strangers, 8 MiB each, in turns.
	var strangers []*load.Conn
	for range 60 {
		c := d.Dial()
		wants(t, c, "MAIL FROM:<a@example.org>\r\n", "250")
		wants(t, c, "RCPT TO:<"+user+">\r\n", "250")
		wants(t, c, "DATA\r\n", "354")
		strangers = append(strangers, c)
	}
	least := disk.free()
	piece := bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 1<<20/72)
	for range 8 {
		for _, c := range strangers {
			if _, err := c.Write(piece); err != nil {
				t.Fatal(err)
			}
			least = min(least, disk.free())
		}
	}
	if least < 2 {
		t.Errorf("%.1f %% were left", least)
	}
	for _, c := range strangers {
		c.Close()
	}
	d.Await("room again", func() bool { return disk.free() > 20 })
	d.Await("mail to be taken again", func() bool { return takes(d) })

	// What was acknowledged before something else fills the disk is delivered.
	d.Ctl("pause", "mda")
	acked := 0
	for ; acked < 20; acked++ {
		send(t, d, "before", user)
	}
	late := d.Dial()
	wants(t, late, "MAIL FROM:<a@example.org>\r\n", "250")
	wants(t, late, "RCPT TO:<"+user+">\r\n", "250")
	empty := disk.fill(0)
	c := d.Dial()
	d.Await("mail to be refused", func() bool {
		got := say(t, c, "MAIL FROM:<a@example.org>\r\n")
		say(t, c, "RSET\r\n")
		return strings.HasPrefix(got, "452 4.3.1 ")
	})
	wants(t, c, "NOOP\r\n", "250")
	wants(t, c, "EHLO again.example.org\r\n", "250")
	d.AwaitLog(`warn: .*0\.0 % of the spool's bytes`)
	wants(t, late, "DATA\r\n", "354")
	// Its envelope is there; whether its text is taken depends on the last bytes.
	got := say(t, late, "Subject: late\r\n\r\n"+string(piece)+"\r\n.\r\n")
	switch {
	case strings.HasPrefix(got, "250 "):
		acked++
	case !strings.HasPrefix(got, "4"):
		t.Errorf("the late one was answered %q", got)
	}
	d.Ctl("resume", "mda")
	d.AwaitMail(acked)

	empty()
	d.Await("mail to be taken", func() bool { return takes(d) })
	alive(t, d)
	acked++
	if n := len(d.AwaitMail(acked)); n != acked {
		t.Errorf("%d messages, %d acknowledged", n, acked)
	}
	d.Await("no litter", func() bool {
		list, err := os.ReadDir(d.Path("spool", "incoming"))
		return err != nil && os.IsNotExist(err) || len(list) == 0
	})
	if d.Stop() != 0 {
		t.Error("it did not stop well")
	}
}

// takes tells whether mail is taken now.
func takes(d *daemon.Daemon) bool {
	c := d.Dial()
	defer c.Close()
	_, err := c.Write([]byte("MAIL FROM:<a@example.org>\r\n"))
	b := make([]byte, 512)
	n, _ := c.Read(b)
	return err == nil && strings.HasPrefix(string(b[:n]), "250 ")
}
