package regress

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/regress/daemon"
)

// fetchWait bounds the download of a package: without network the test is
// skipped.
const fetchWait = 60 * time.Second

// unpacked returns a directory with what is in Debian's packages of these names,
// as they are, and skips the test when they cannot be had.
func unpacked(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), fetchWait)
	defer cancel()
	const script = `cd "$0" && apt-get -qq -o APT::Sandbox::User=root download "$@"`
	args := append([]string{"sh", "-c", script, dir}, names...)
	if inside { // the network is outside, where the process is that made the namespaces
		args = append([]string{"nsenter", "-t", fmt.Sprint(os.Getppid()), "-n", "-m"}, args...)
	}
	fetch := exec.CommandContext(ctx, args[0], args[1:]...)
	fetch.WaitDelay = time.Second // for what the shell has started
	if out, err := fetch.CombinedOutput(); err != nil {
		t.Skipf("Debian's packages %v cannot be had: %v\n%s", names, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != len(names) {
		t.Skipf("Debian's packages %v cannot be had: %v", names, debs)
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg", "-x", deb, dir).CombinedOutput(); err != nil {
			t.Skipf("%s cannot be unpacked: %v\n%s", deb, err, out)
		}
	}
	return dir
}

// opensmtpd returns the path of OpenSMTPD's own smtpd, of Debian's package, and
// skips the test when that cannot be had or run here.
func opensmtpd(t *testing.T) string {
	t.Helper()
	dir := unpacked(t, "opensmtpd")
	ctx, cancel := context.WithTimeout(t.Context(), fetchWait)
	defer cancel()
	smtpd := filepath.Join(dir, "usr/sbin/smtpd")
	conf := filepath.Join(dir, "smtpd.conf")
	if err := os.WriteFile(conf, []byte("match for any reject\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, smtpd, "-n", "-f", conf).CombinedOutput(); err != nil {
		t.Skipf("the package's smtpd does not run here: %v\n%s", err, out)
	}
	return smtpd
}

// TestVerdicts asks OpenSMTPD and us what each configuration in
// testdata/verdicts.txt is worth. A block whose first line is "# differs: WHY"
// is one that we refuse and it does not, with "# takes: WHY" it is the other way.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	ours := filepath.Join(daemon.Bin(t), "smtpd")
	theirs := opensmtpd(t)
	text, err := os.ReadFile("testdata/verdicts.txt")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "smtpd.conf")
	says := func(smtpd string) (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), daemon.Wait)
		defer cancel()
		out, err := exec.CommandContext(ctx, smtpd, "-n", "-f", conf).CombinedOutput()
		return err == nil, string(out)
	}
	for block := range bytes.SplitSeq(text, []byte("--\n")) {
		if err := os.WriteFile(conf, block, 0o600); err != nil {
			t.Fatal(err)
		}
		it, its := says(theirs)
		we, our := says(ours)
		differs := strings.HasPrefix(string(block), "# differs: ")
		takes := strings.HasPrefix(string(block), "# takes: ")
		if (differs || takes) != (it != we) || differs && we || takes && !we {
			t.Errorf("OpenSMTPD: %v, we: %v\n%s\nOpenSMTPD says:\n%s\nwe say:\n%s", it, we, block, its, our)
		}
	}
}
