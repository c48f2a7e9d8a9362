package conf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/printer"
)

// gateway is the machine of the article: rl0, rl1 and vlan1, the addresses that
// its files name, certificates by name, maps.
func gateway(files fstest.MapFS) load.Machine {
	all := fstest.MapFS{"etc/mail/aliases.db": {}, "etc/mail/secrets.db": {Mode: 0o640}}
	for _, name := range []string{"rl0", "172.20.0.12", "home.defcon.no"} {
		all["etc/mail/certs/"+name+".crt"] = &fstest.MapFile{Mode: 0o644}
		all["etc/mail/certs/"+name+".key"] = &fstest.MapFile{Mode: 0o600}
	}
	for name, f := range files {
		all[strings.TrimPrefix(name, "/")] = f
	}
	m := machine(all)
	m.Interfaces = func() ([]load.Interface, error) {
		return []load.Interface{
			{Name: "lo", Loopback: true, Addrs: addrs("127.0.0.1", "::1")},
			{Name: "rl0", Addrs: addrs("172.20.0.12")},
			{Name: "rl1", Addrs: addrs("10.0.3.1")},
			{Name: "vlan1", Addrs: addrs("10.0.0.1")},
		}, nil
	}
	return m
}

// TestSeed loads the article's files on its machine: the whole text that they
// become is golden.
func TestSeed(t *testing.T) {
	names, err := filepath.Glob("testdata/seed/*.conf")
	if err != nil || len(names) != 8 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m := gateway(fstest.MapFS{"smtpd.conf": {Data: text, Mode: 0o644}})
			l, diags := load.File(t.Context(), m, "smtpd.conf", nil)
			var b strings.Builder
			if err := diags.Write(&b, diag.Warning); err != nil || diags.HasErrors() {
				t.Fatal(b.String(), err)
			}
			b.WriteString(separator)
			printed, err := printer.Print(l.Config)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString(printed + separator)
			original, _ := load.Parse(t.Context(), m, "smtpd.conf", nil)
			laws(t, original, printed, string(text))
			if want, got := strings.Count("\n"+string(text), "\n#"), strings.Count("\n"+printed, "\n#"); got != want {
				t.Errorf("%d comments of %d are left", got, want)
			}
			for _, s := range l.Listeners {
				b.WriteString(s.Identity + "\n")
			}
			same(t, strings.TrimSuffix(name, ".conf")+".golden", b.String())
		})
	}
}

// same compares what came with a golden file.
func same(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != got {
		t.Errorf("%s: %v\n%s", name, err, got)
	}
}
