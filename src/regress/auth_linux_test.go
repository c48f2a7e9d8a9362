package regress

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"opensmtpd/src/crypt"
	"opensmtpd/src/regress/daemon"
)

// TestRootSystemAccounts has users of the machine say their passwords, in each
// scheme that crypt(3) of a distribution writes by itself.
func TestRootSystemAccounts(t *testing.T) {
	privileged(t)
	clearSpool(t)
	var shadow strings.Builder
	for i, scheme := range []string{"yescrypt", "sha512"} {
		hash, err := crypt.Make(scheme, "secret")
		if err != nil {
			t.Fatal(err)
		}
		name := []string{"anna", "bert"}[i]
		fmt.Fprintf(&shadow, "%s:%s:20000:0:99999:7:::\nlocked%s:!%s:20000:0:99999:7:::\nexpired%s:%s:20000:0:99999:7::20001:\n", name, hash, name, hash, name, hash)
	}
	own := filepath.Join("/run", "shadow")
	if err := os.WriteFile(own, []byte(shadow.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(own, "/etc/shadow", "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("/etc/shadow: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/etc/shadow", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d := daemon.NewRoot(t, strings.Replace(system, "port $port\n", "port $port auth\n", 1)).Start()
	for _, tc := range []struct{ user, password, err string }{
		{"anna", "secret", ""}, {"bert", "secret", ""},
		{"anna", "wrong", "535"}, {"lockedanna", "secret", "535"}, {"lockedanna", "!", "535"}, {"expiredbert", "secret", "535"},
		{"nobodyhere", "secret", "535"}, {"root", "", "501"},
	} {
		err := submitTo(d, tc.user, tc.password, tc.user+"@example.org", "anna@localhost")
		if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	d.Await("mail of both", func() bool { return len(d.Mail("/home/anna/Maildir")) == 2 })
}
