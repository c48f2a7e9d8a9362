package paths

import (
	"os"
	"path/filepath"
	"testing"
)

func TestResolve(t *testing.T) {
	env := func(string) string { return "/from/env" }
	none := func(string) string { return "" }
	for _, tc := range []struct {
		name  string
		dir   string
		env   func(string) string
		setID bool
		want  string
	}{
		{"nothing said", "", none, false, "/var/run/smtpd.sock"},
		{"environment", "", env, false, "/from/env/smtpd.sock"},
		{"-S wins", "/s", env, false, "/s/smtpd.sock"},
		{"set-id ignores the environment", "", env, true, "/var/run/smtpd.sock"},
		{"set-id ignores -S", "/s", env, true, "/var/run/smtpd.sock"},
	} {
		s, err := Resolve(tc.dir, tc.env, tc.setID)
		if err != nil || s.Socket != tc.want {
			t.Errorf("%s: socket %q, %v; want %q", tc.name, s.Socket, err, tc.want)
		}
	}
}

func TestInIsAbsolute(t *testing.T) {
	s, err := In("run")
	if err != nil {
		t.Fatal(err)
	}
	wd, _ := os.Getwd()
	if s.Spool != filepath.Join(wd, "run/spool") || s.Chroot != "" {
		t.Errorf("In(run) = %+v", s)
	}
}

func TestLibExec(t *testing.T) {
	dir := t.TempDir()
	exe := filepath.Join(dir, "sbin/smtpd")
	if got, want := LibExec(exe), filepath.Join(dir, "libexec/opensmtpd"); got != want {
		t.Errorf("installed: %q, want %q", got, want)
	}
	if err := os.Mkdir(filepath.Join(dir, "sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sbin/mail.maildir"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, want := LibExec(exe), filepath.Join(dir, "sbin"); got != want {
		t.Errorf("built tree: %q, want %q", got, want)
	}
}
