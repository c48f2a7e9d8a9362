package regress

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/crypt"
	"opensmtpd/src/regress/daemon"
)

// TestRootPAM builds auth-pam, and has PAM's pam_unix verify passwords of users
// whom a shadow file of the test's holds.
func TestRootPAM(t *testing.T) {
	privileged(t)
	clearSpool(t)
	for _, need := range []string{"/usr/include/security/pam_appl.h", "/etc/pam.d"} {
		if _, err := os.Stat(need); err != nil {
			t.Skipf("PAM and its headers are not installed: %v", err)
		}
	}
	dir, err := os.MkdirTemp("/var/tmp", "auth-pam")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "auth-pam")
	build := exec.Command("go", "build", "-tags", "pam", "-o", program, "../cmd/auth-pam")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("cgo does not work here: %v\n%s", err, out)
	}
	hash, err := crypt.Make("sha512", "secret")
	if err != nil {
		t.Fatal(err)
	}
	shadow := "anna:" + hash + ":20000:0:99999:7:::\nbert:!" + hash + ":20000:0:99999:7:::\n"
	rules := "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
	for name, text := range map[string]string{"/etc/shadow": shadow, "/etc/pam.d/other": rules} {
		own := filepath.Join("/run", filepath.Base(name)+"-pam")
		if err := os.WriteFile(own, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		// Group 42 stands for shadow: the program has the same.
		if err := os.Chown(own, 0, 42); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(own, name, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("%s: %v", name, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	for _, step := range []error{os.Chmod(dir, 0o755), os.Chown(program, 0, 42), os.Chmod(program, 0o755|os.ModeSetgid)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	d := daemon.NewRoot(t, "table users proc:"+program+"\n"+strings.Replace(system, "port $port\n", "port $port auth <users>\n", 1)).Start()
	for _, tc := range []struct{ user, password, err string }{
		{"anna", "secret", ""}, {"anna", "Secret", "535"}, {"bert", "secret", "535"}, {"nobodyhere", "secret", "535"},
	} {
		err := submitTo(d, tc.user, tc.password, tc.user+"@example.org", "anna@localhost")
		if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	d.Await("the mail", func() bool { return len(d.Mail("/home/anna/Maildir")) == 1 })
}
