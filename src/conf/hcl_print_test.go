package conf_test

import (
	"strings"
	"testing"

	"opensmtpd/src/conf/hcl"
	"opensmtpd/src/conf/native"
)

// TestHCLNames holds that a name that is not UTF-8, which HCL cannot have, is
// refused and not changed; values can be any bytes.
func TestHCLNames(t *testing.T) {
	parse := func(text string) (string, error) {
		cfg, diags := native.Parse(func(string) ([]byte, error) { return []byte(text), nil }, "f", nil)
		if diags.HasErrors() {
			t.Fatal(diags.All())
		}
		return hcl.Print(cfg)
	}
	if text, err := parse("table \"caf\xe9\" { a }\nmatch for any reject\n"); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("got %v\n%s", err, text)
	}
	if text, err := parse("table t { \"caf\xe9\" }\nmatch for any reject #c \xe9\n"); err != nil || !strings.Contains(text, `bytes("636166e9")`) || !strings.Contains(text, "#c ?") {
		t.Errorf("got %v\n%s", err, text)
	}
}

func TestHCLPath(t *testing.T) {
	for name, want := range map[string]struct {
		path string
		is   bool
	}{
		"/etc/mail/smtpd.conf": {"/etc/mail/smtpd.conf", false},
		"/etc/mail/smtpd.hcl":  {"/etc/mail/smtpd.hcl", true},
		"hcl:/dev/stdin":       {"/dev/stdin", true},
		"hcl:x.conf":           {"x.conf", true},
	} {
		if path, is := hcl.Path(name); path != want.path || is != want.is {
			t.Errorf("%s: %s %v", name, path, is)
		}
	}
}
