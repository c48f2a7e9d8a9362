package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/paths"
)

// program makes this test binary callable under one of its names.
func program(t *testing.T, dir, name string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no /proc")
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExitStatus holds the statuses that callers look at.
func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		line string
		want int
	}{
		{"smtpctl show queue", 1},
		{"smtpctl show", 255},
		{"smtpctl -z", 255},
		{"smtpctl trace nothing", 1},
		{"mailq", 1},
		{"sendmail root", 75},
		{"sendmail", 64},
		{"sendmail -z", 64},
		{"makemap", 1},
		{"newaliases", 1},
		{"makemap -d x y", 1},
	} {
		words := strings.Fields(tc.line)
		path := filepath.Join(dir, words[0])
		if _, err := os.Stat(path); err != nil {
			program(t, dir, words[0])
		}
		c := exec.Command(path, words[1:]...)
		c.Env = append(os.Environ(), paths.StateEnv+"="+dir)
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != tc.want {
			t.Errorf("%s: %v, want %d: %s", tc.line, err, tc.want, out)
		}
	}
}
