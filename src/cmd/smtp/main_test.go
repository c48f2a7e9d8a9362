package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/mta/send"
)

func TestOrder(t *testing.T) {
	auth := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(auth, []byte("joe\npass word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, help, err := order([]string{"-Cv", "-F", "<a@b>", "-H", "me", "-a", auth, "-s", "smtp+tls://mx.example:587", "c@d", "e@f"})
	if err != nil || help {
		t.Fatal(help, err)
	}
	if o.From != "a@b" || o.Helo != "me" || o.User != "joe" || o.Password != "pass word" || len(o.Rcpts) != 2 || o.Note == nil ||
		o.Server != (send.Server{Scheme: "smtp+tls", Host: "mx.example", Port: 587}) || !o.TLS.InsecureSkipVerify || o.Try {
		t.Errorf("%+v", o)
	}
	if o, _, err := order([]string{"-n", "-F", "", "-H", "me"}); err != nil || !o.Try || o.From != "" || o.Server.Host != "localhost" || o.Server.Port != 25 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{
		{}, {"-z"}, {"-s"}, {"-s", "ftp://x", "a@b"}, {"-T", "what", "a@b"}, {"-a", auth + "x", "a@b"}, {"-F", "a\rb", "a@b"},
		{"a@b\nDATA"}, {"-H", "me\n", "a@b"},
	} {
		if o, _, err := order(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, o)
		}
	}
}

func TestRun(t *testing.T) {
	for _, tc := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"-h"}, 0, "usage: smtp", ""},
		{[]string{"-z"}, 1, "", "smtp: unknown option -- z\nusage: smtp"},
		{[]string{"-F", "a@b", "-H", "me", "-s", "smtp://127.0.0.1:1", "c@d"}, 1, "", "refused"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), tc.args, strings.NewReader("x\n"), &stdout, &stderr)
		if status != tc.status || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%q: %d, %q, %q", tc.args, status, stdout.String(), stderr.String())
		}
	}
}
