package regress

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// files returns what is below a directory, but for directories.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestInstallUninstall: what make install puts somewhere, make uninstall takes
// away, but for the configuration.
func TestInstallUninstall(t *testing.T) {
	t.Parallel()
	bin := daemon.Bin(t)
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	dest := t.TempDir()
	run := func(target string) {
		t.Helper()
		// The programs are built already; others use them just now.
		c := exec.CommandContext(t.Context(), "make", "-o", "build", target, "DESTDIR="+dest)
		c.Dir = filepath.Dir(bin)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v: %s", target, err, out)
		}
	}
	run("install")
	for _, want := range []string{
		"/usr/local/sbin/smtpd", "/usr/local/sbin/smtpctl", "/usr/local/bin/smtp", "/usr/local/libexec/opensmtpd/mail.maildir",
		"/usr/local/libexec/opensmtpd/mail.mboxfile", "/usr/local/libexec/opensmtpd/mail.lmtp", "/usr/local/libexec/opensmtpd/mail.mda",
		"/usr/local/libexec/opensmtpd/table-sqlite", "/usr/local/share/man/man7/smtpd-tables.7",
		"/usr/local/share/man/man5/smtpd.conf.5", "/usr/local/share/man/man8/mail.lmtp.8", "/usr/local/share/man/man8/mailq.8", "/usr/local/share/man/man8/send-mail.8", "/etc/mail/smtpd.conf", "/etc/mail/aliases",
		"/usr/local/sbin/sendmail", "/usr/local/sbin/send-mail", "/usr/local/sbin/makemap", "/usr/local/bin/mailq", "/usr/local/bin/newaliases",
	} {
		st, err := os.Stat(dest + want) // through links
		if err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", want, err)
		}
	}
	own := dest + "/etc/mail/aliases"
	if err := os.WriteFile(own, []byte("root: eve\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run("install")
	if text, err := os.ReadFile(own); err != nil || string(text) != "root: eve\n" {
		t.Errorf("another install left %q in the aliases, %v", text, err)
	}
	run("uninstall")
	if left := strings.Join(files(t, dest), " "); left != "/etc/mail/aliases /etc/mail/smtpd.conf" {
		t.Errorf("uninstall leaves %s", left)
	}
	if _, err := os.Stat(dest + "/usr/local/libexec/opensmtpd"); err == nil {
		t.Error("uninstall leaves a directory of ours")
	}
	run("uninstall") // once more does no harm
}

// TestPortPackingList holds the packing list of the OpenBSD port against what
// the port's flags of make install put into place.
func TestPortPackingList(t *testing.T) {
	t.Parallel()
	top := filepath.Dir(daemon.Bin(t))
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	dest := t.TempDir()
	c := exec.CommandContext(t.Context(), "make", "-o", "build", "install", "DESTDIR="+dest, "PREFIX=", "MANDIR=/man", "SYSCONFDIR=/share/examples/opensmtpd-go")
	c.Dir = top
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v: %s", err, out)
	}
	want := map[string]bool{"/share/examples/opensmtpd-go/smtpd.rc": true} // by the port itself
	for _, f := range files(t, dest) {
		want[f] = true
	}
	list, err := os.ReadFile(filepath.Join(top, "ports/mail/opensmtpd-go/pkg/PLIST"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasSuffix(words[len(words)-1], "/") {
			continue
		}
		switch words[0] {
		case "@mode", "@group":
			continue
		}
		name := "/" + words[len(words)-1]
		if !want[name] {
			t.Errorf("%s is not installed", name)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not in the list", name)
	}
}
