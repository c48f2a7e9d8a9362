package smtpctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/lookup/mapdb"
)

// TestExplainFile goes through rules, aliases, virtual users and a map, with no
// daemon.
func TestExplainFile(t *testing.T) {
	dir := t.TempDir()
	users := `table users { alice = "1000:1000:` + dir + `", bob = "1001:1001:` + dir + `" }`
	conf := filepath.Join(dir, "smtpd.conf")
	text := users + `
table aliases { list = "alice, bob, x@example.net, nobody@example.org", loop = loop }
table nets db:` + dir + `/nets.db
listen on 127.0.0.1 port 2525
action "local" mbox alias <aliases> userbase <users>
action "out" relay
action "smart" relay host smtp://relay.example.org
match tag T from any for any action "smart"
match from src <nets> for any action "smart"
match from any for domain example.org action "local"
match from local for domain example.net action "out"
match from any for domain example.com reject
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	entries := []mapdb.Entry{{Key: []byte("10.0.0.0/8")}}
	if err := mapdb.Write(filepath.Join(dir, "nets.db"), mapdb.Set, entries, mapdb.Owner{Mode: 0o600, UID: -1, GID: -1}); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, words := range []string{
		"src 10.1.2.3 rcpt-to a@b.example", "src 11.1.2.3 rcpt-to list@example.org", "rcpt-to alice@example.org",
		"rcpt-to x@example.com", "rcpt-to x@nowhere.example tag T", "rcpt-to loop@example.org",
		"src 2001:db8::1 tls auth joe helo h rdns r mail-from a@b rcpt-to x@nowhere.example",
		"rcpt-to x", "rcpt-to", "bogus", "src x rcpt-to a@b", "src 1.2.3.4 socket rcpt-to a@b", "tls tls",
	} {
		got.WriteString("$ " + words + "\n" + run(t.Context(), dir, "", "smtpctl", append([]string{"explain", "-f", conf}, strings.Fields(words)...)...))
	}
	got.WriteString("$ -j\n" + run(t.Context(), dir, "", "smtpctl", "-j", "explain", "-f", conf, "rcpt-to", "alice@example.org"))
	got.WriteString("$ none\n" + run(t.Context(), dir, "", "smtpctl", "explain", "-f", dir+"/none", "rcpt-to", "alice@example.org"))
	text = strings.ReplaceAll(got.String(), dir, "DIR")
	if *update {
		if err := os.WriteFile("testdata/explain.golden", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/explain.golden")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Error(d)
	}
}
