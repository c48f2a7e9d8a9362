package regress

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// debian unpacks packages, and those libraries of theirs that are not installed,
// below dir. The test is skipped where they cannot be had.
func debian(t *testing.T, dir string, packages ...string) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The network is outside of our namespaces, where the process that made them
	// is.
	const script = `set -e
command -v apt-get >/dev/null
cd "$0"
libs() { apt-cache depends "$@" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' | sort -u; }
for lib in $(libs "$@" $(libs "$@" $(libs "$@"))); do
	dpkg -s "$lib" >/dev/null 2>&1 || set -- "$@" "$lib"
done
apt-get -qq -o APT::Sandbox::User=root download "$@"
for deb in *.deb; do dpkg -x "$deb" root; done
`
	outside := fmt.Sprint(os.Getppid())
	args := append([]string{"-t", outside, "-n", "-m", "timeout", "120", "sh", "-c", script, dir}, packages...)
	if out, err := exec.CommandContext(t.Context(), "nsenter", args...).CombinedOutput(); err != nil {
		t.Skipf("cannot fetch %v: %v: %s", packages, err, out)
	}
	return filepath.Join(dir, "root")
}

// foreign runs a server of another make until the test ends: a shell line, which
// sees what debian unpacked below root in its own place, since paths are built
// into such servers, and may write below /etc. All that it starts ends with it, for it is the first process
// of a namespace. What the server said in logs is shown when the test fails.
func foreign(t *testing.T, d *daemon.Daemon, root, line string, logs ...string) {
	t.Helper()
	const script = `set -e
mount -t proc proc /proc
mount -t overlay overlay -o "lowerdir=$0/usr:/usr" /usr
mkdir -p "$0/etc" "$0.etc" && mount -t tmpfs tmpfs "$0.etc" && mkdir "$0.etc/new" "$0.etc/work"
cp /etc/passwd /etc/group "$0.etc"
mount -t overlay overlay -o "lowerdir=$0/etc:/etc,upperdir=$0.etc/new,workdir=$0.etc/work" /etc
cp "$0.etc/passwd" "$0.etc/group" /etc
eval "$1"`
	c := exec.Command("sh", "-c", script, root, line)
	c.SysProcAttr = apart()
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	t.Cleanup(func() {
		c.Process.Kill()
		<-ended
		if !t.Failed() {
			return
		}
		t.Logf("%q says:\n%s", line, said.String())
		for _, name := range logs {
			text, _ := os.ReadFile(name)
			t.Logf("%s has:\n%s", name, text)
		}
	})
}
