package ldaptable

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"opensmtpd/src/lookup/tableprog"
)

func configuration(t *testing.T, text string) (*directory, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ldap.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return configure(path)
}

func TestConfigure(t *testing.T) {
	d, err := configuration(t, `# a comment
url: ldap+tls://ldap.example.org
username: cn=smtpd,dc=example,dc=org
password : a: b
basedn	dc=example,dc=org
credentials_filter: (&(objectclass=posixaccount)(uid=%s))
credentials_attributes: uid, authPassword
`)
	if err != nil {
		t.Fatal(err)
	}
	if d.url != "ldap://ldap.example.org" || !d.startTLS || d.tls.ServerName != "ldap.example.org" || d.password != "a: b" || d.base != "dc=example,dc=org" {
		t.Errorf("%+v", d)
	}
	if q := d.queries[tableprog.Credentials]; !slices.Equal(q.attrs, []string{"uid", "authPassword"}) {
		t.Errorf("%+v", q)
	}
	if s := (&Table{cur: d}).Services(); slices.Contains(s, tableprog.Auth) || !slices.Contains(s, tableprog.Alias) {
		t.Errorf("services %q", s)
	}
	for text, want := range map[string]string{
		"alias_filter: (a=%u)":                "url is missing",
		"url: http://x\nalias_filter: (a=%u)": `:1: url: "http" is none of`,
		"url: x":                              "there is no filter",
		"url: x\nalias_filter: (a=%u":         ":2: alias_filter: ",
		"url: x\nuserinfo_filter: (a=%u)\nuserinfo_attributes: a":     ":3: userinfo_attributes: 1 attributes, 3 are needed",
		"url: ldaps://x\nca_file: /nonexistent\nalias_filter: (a=%u)": ":2: ca_file: ",
		"url: x\nfilter: (a=%u)":                                      `:2: "filter" is not known`,
	} {
		if _, err := configuration(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzFilter holds that no key changes what a filter asks.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"joe", "*", "a)(uid=*", `\2a`, "%u", "%h", "\x00", "é", "a)("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		packet, err := ldap.CompileFilter(expand("(&(objectClass=x)(uid=%u))", key, "t"))
		if err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		if len(packet.Children) != 2 || len(packet.Children[1].Children) != 2 {
			t.Fatalf("%q changes the filter", key)
		}
		if got := packet.Children[1].Children[1].Data.String(); got != key {
			t.Fatalf("%q is asked as %q", key, got)
		}
	})
}
