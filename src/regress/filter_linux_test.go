package regress

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/regress/daemon"
)

// TestFilterIdentity: programs run as whom the configuration says, by default as
// the daemon's user, in groups of his alone, and where it says.
func TestFilterIdentity(t *testing.T) {
	privileged(t)
	clearSpool(t)
	root := t.TempDir()
	for _, dir := range []string{"bin", "lib", "lib64", "usr"} {
		if _, err := os.Stat("/" + dir); err != nil {
			continue
		}
		at := filepath.Join(root, dir)
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("/"+dir, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
	}
	d := daemon.NewRoot(t, fmt.Sprintf(`filter a proc-exec "/bin/sleep 98761"
filter b proc-exec "/bin/sleep 98762" user anna
filter c proc-exec "/bin/sleep 98763" user anna group cleo chroot "%s"
`, root)+system).Start()
	defer d.Stop()
	for arg, want := range map[string]struct {
		uid, gid int
		root     string
	}{"98761": {7001, 7001, "/"}, "98762": {7101, 7101, "/"}, "98763": {7101, 7103, root}} {
		proc := ""
		d.Await("sleep "+arg, func() bool {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, f := range files {
				if text, _ := os.ReadFile(f); strings.HasSuffix(string(text), "sleep\x00"+arg+"\x00") {
					proc = filepath.Dir(f)
				}
			}
			return proc != ""
		})
		status, err := os.ReadFile(filepath.Join(proc, "status"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{
			fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", want.uid, want.uid, want.uid, want.uid),
			fmt.Sprintf("Gid:\t%d\t%d\t%d\t%d\n", want.gid, want.gid, want.gid, want.gid),
			fmt.Sprintf("Groups:\t%d", want.gid), "NoNewPrivs:\t0\n",
		} {
			if !strings.Contains(string(status), line) {
				t.Errorf("sleep %s: no %q in\n%s", arg, line, status)
			}
		}
		if at, err := os.Readlink(filepath.Join(proc, "root")); err != nil || at != want.root {
			t.Errorf("sleep %s: its root is %q, %v", arg, at, err)
		}
	}
}
