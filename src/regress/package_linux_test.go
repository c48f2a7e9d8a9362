package regress

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// machine is a system of its own to install into: this one as its disk has it,
// and a layer above for what changes. The network is the test's.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	top, err := os.MkdirTemp("/var/tmp", "smtpd-package-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: filepath.Join(top, "root")}
	mount := func(source, target, kind string, flags uintptr, options string) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, options); err != nil {
			t.Fatalf("mounting %s: %v", target, err)
		}
	}
	mount("tmpfs", top, "tmpfs", 0, "mode=755")
	t.Cleanup(func() {
		if err := unix.Unmount(top, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(top)
	})
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("overlay", m.root, "overlay", 0, "lowerdir=/,upperdir="+top+"/upper,workdir="+top+"/work")
	mount("/dev", m.root+"/dev", "", unix.MS_BIND|unix.MS_REC, "")
	mount("proc", m.root+"/proc", "proc", 0, "")
	mount("tmpfs", m.root+"/run", "tmpfs", 0, "mode=755")
	mount("tmpfs", m.root+"/tmp", "tmpfs", 0, "mode=1777")
	mount("tmpfs", m.root+"/home", "tmpfs", 0, "mode=755")
	mount("tmpfs", m.root+"/var/spool", "tmpfs", 0, "mode=755")
	return m
}

// command is a command on the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	c := exec.CommandContext(m.t.Context(), args[0], args[1:]...)
	if !strings.HasPrefix(args[0], "/") {
		c = exec.CommandContext(m.t.Context(), "/bin/sh", append([]string{"-c", `exec "$0" "$@"`}, args...)...)
	}
	c.Err = nil // looked for here, not there
	c.Dir = "/"
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root, Pdeathsig: syscall.SIGKILL}
	return c
}

// run runs a command, which must succeed.
func (m *machine) run(stdin string, args ...string) string {
	m.t.Helper()
	c := m.command(args...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

// TestPackage installs the .deb as it comes, with the configuration as it comes,
// and uses it as the users of the machine would.
func TestPackage(t *testing.T) {
	privileged(t)
	debs, err := filepath.Glob(filepath.Join(daemon.Bin(t), "opensmtpd-go_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Skip("no .deb beside the programs: `make deb DEBDIR=bin` makes it where dpkg-deb is installed")
	}
	m := newMachine(t)
	text, err := os.ReadFile(debs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.root+"/tmp/new.deb", text, 0o644); err != nil {
		t.Fatal(err)
	}
	m.run("", "/bin/sh", "-ec", `dpkg-deb -R /tmp/new.deb /tmp/old
		sed -i 's/^Version: .*/Version: 0~before/' /tmp/old/DEBIAN/control
		dpkg-deb -Znone -b /tmp/old /tmp/old.deb`)
	install := func(which string) {
		t.Helper()
		// Whatever mailer this machine has stays out of the way.
		m.run("", "dpkg", "--force-conflicts", "--force-overwrite", "-i", "/tmp/"+which+".deb")
	}
	const conf, link = "/etc/mail/smtpd.conf", "/etc/systemd/system/multi-user.target.wants/opensmtpd.service"
	enabled := func(when string, want bool) {
		t.Helper()
		got, err := os.Readlink(m.root + link)
		if is := got == "/lib/systemd/system/opensmtpd.service" || got == "/usr/lib/systemd/system/opensmtpd.service"; is != want {
			t.Errorf("%s: the unit's link is %q: %v", when, got, err)
		}
	}
	install("old")
	m.run("", "useradd", "-m", "walter")
	installed(t, m)
	m.run("", "/usr/sbin/smtpd", "-n")
	m.run("", "/bin/sh", "-c", `! command -v systemd-analyze >/dev/null || systemd-analyze --man=no verify opensmtpd.service`)
	enabled("at first", true)
	// Who has disabled the unit finds it so after an upgrade, and his configuration.
	if err := os.Remove(m.root + link); err != nil {
		t.Fatal(err)
	}
	m.run("# ours\n", "tee", "-a", conf)
	install("new")
	installed(t, m)
	enabled("after an upgrade", false)
	m.run("", "grep", "-qx", "# ours", conf)

	c := m.command("/usr/sbin/smtpd", "-d")
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	d := &looker{t: t, ended: ended}
	defer func() {
		if !d.over {
			c.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("log of smtpd:\n%s", said.String())
		}
	}()
	var client *load.Conn
	d.await("a greeting on port 25", func() bool {
		client, err = load.Dial(t.Context(), "127.0.0.1:25", daemon.Wait)
		return err == nil
	})
	defer client.Close()
	if err := client.Hello("client.localhost"); err != nil {
		t.Fatal(err)
	}
	if err := client.Send("walter@localhost", []string{"walter@localhost"}, "Subject: by SMTP\r\n\r\nx\r\n", false); err != nil {
		t.Fatal(err)
	}
	m.run("To: walter\nSubject: by sendmail\n\nx\n", "setpriv", "--reuid=walter", "--regid=walter", "--clear-groups", "/usr/sbin/sendmail", "-t")
	d.await("two messages", func() bool {
		text, _ := os.ReadFile(m.root + "/var/mail/walter")
		all := string(text)
		return strings.Contains(all, "Subject: by SMTP\n") && strings.Contains(all, "Subject: by sendmail\n")
	})
	if out := m.run("", "mailq"); strings.TrimSpace(out) != "" {
		t.Errorf("mailq: %s", out)
	}
	c.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("smtpd ended with %v", err)
	}
	d.over = true

	for _, tc := range []struct {
		how   string
		stays map[string]bool
	}{
		{"-r", map[string]bool{"/usr/sbin/smtpd": false, "/usr/sbin/sendmail": false, "/usr/libexec/opensmtpd": false, conf: true, "/var/spool/smtpd": true}},
		{"-P", map[string]bool{conf: false, "/etc/mail/aliases": false, "/var/spool/smtpd": true}},
	} {
		m.run("", "dpkg", tc.how, "opensmtpd-go")
		for path, stays := range tc.stays {
			if _, err := os.Lstat(m.root + path); (err == nil) != stays {
				t.Errorf("after dpkg %s: %s: %v", tc.how, path, err)
			}
		}
	}
	// After a purge it is as if nothing had ever been here.
	install("new")
	installed(t, m)
	enabled("after a purge", true)
	m.run("", "/usr/sbin/smtpd", "-n")
}

// installed looks at what the package has put into place.
func installed(t *testing.T, m *machine) {
	t.Helper()
	groups, err := os.ReadFile(m.root + "/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	group := regexp.MustCompile(`(?m)^_smtpq:[^:]*:(\d+):`).FindSubmatch(groups)
	if group == nil {
		t.Fatal("no group _smtpq")
	}
	if got := m.run("", "stat", "-c", "%a %u %g", "/usr/sbin/smtpctl"); got != "2555 0 "+string(group[1])+"\n" {
		t.Errorf("smtpctl is %s", got)
	}
	for name, want := range map[string]string{
		"/usr/sbin/sendmail": "smtpctl", "/usr/sbin/send-mail": "smtpctl", "/usr/sbin/makemap": "smtpctl",
		"/usr/bin/mailq": "../sbin/smtpctl", "/usr/bin/newaliases": "../sbin/smtpctl", "/usr/lib/sendmail": "../sbin/smtpctl",
	} {
		if got, err := os.Readlink(m.root + name); got != want {
			t.Errorf("%s is a link to %q: %v", name, got, err)
		}
	}
	for _, name := range []string{
		"/usr/libexec/opensmtpd/mail.maildir", "/usr/libexec/opensmtpd/mail.mboxfile", "/usr/libexec/opensmtpd/mail.lmtp", "/usr/libexec/opensmtpd/mail.mda",
		"/usr/libexec/opensmtpd/table-sqlite", "/usr/libexec/opensmtpd/table-postgres", "/usr/libexec/opensmtpd/table-ldap",
		"/usr/lib/systemd/system/opensmtpd.service", "/etc/mail/smtpd.conf", "/etc/mail/aliases", "/var/empty",
		"/usr/share/man/man8/smtpd.8.gz", "/usr/share/man/man8/mailq.8.gz", "/usr/share/doc/opensmtpd-go/changelog.gz",
	} {
		if _, err := os.Stat(m.root + name); err != nil {
			t.Error(err)
		}
	}
	if out := m.run("", "getent", "passwd", "_smtpd", "_smtpq"); strings.Count(out, "/var/empty:") != 2 {
		t.Errorf("accounts: %s", out)
	}
}

// looker waits for what the daemon does, as long as it lives.
type looker struct {
	t     *testing.T
	ended chan error
	over  bool
}

func (l *looker) await(what string, ok func() bool) {
	l.t.Helper()
	if !daemon.Poll(l.t, func() bool {
		select {
		case err := <-l.ended:
			l.over = true
			l.t.Fatalf("smtpd ended while waiting for %s: %v", what, err)
		default:
		}
		return ok()
	}) {
		l.t.Fatalf("waited %v in vain for %s", daemon.Wait, what)
	}
}
