package conf_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/check"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/printer"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/pki"
)

var update = flag.Bool("update", false, "write what the tests get into testdata")

// machine is a made-up machine: two interfaces beside the loopback, a default
// route by em0, and the files in files below those that every test has.
func machine(files fstest.MapFS) load.Machine {
	all := fstest.MapFS{
		"etc/mail/aliases":                     {Data: []byte("# comment\nroot: gilles\n"), Mode: 0o644},
		"etc/mail/domains":                     {Data: []byte("example.org\nexample.net\n"), Mode: 0o644},
		"etc/mail/empty":                       {Mode: 0o644},
		"etc/mail/users.db":                    {Mode: 0o644},
		"etc/mail/secrets":                     {Data: []byte("label user:password\n"), Mode: 0o640},
		"etc/mail/hosts":                       {Data: []byte("# @list\nsmtp://a.example.org\n"), Mode: 0o644},
		"etc/mail/secret":                      {Mode: 0o600, Sys: "forbidden"},
		"etc/ssl/cert.pem":                     {Mode: 0o644},
		"etc/ssl/open.key":                     {Mode: 0o644},
		"etc/ssl/private/mail.example.org.key": {Mode: 0o600},
		"etc/ssl/mail.example.org.crt":         {Mode: 0o644},
		"usr/local/libexec/smtpd/table-sqlite": {Mode: 0o755},
		"etc/mail/sqlite.conf":                 {Mode: 0o644},
		"etc/ssl/private/stranger.key":         {Mode: 0o600, Sys: "stranger"},
		"etc/ssl/dir/x":                        {},
	}
	for name, f := range files {
		all[strings.TrimPrefix(name, "/")] = f
	}
	forbidden := func(name string) error {
		if f := all[strings.TrimPrefix(name, "/")]; f != nil && f.Sys == "forbidden" {
			return &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
		}
		return nil
	}
	m := load.Machine{
		ReadFile: func(name string) ([]byte, error) {
			return fs.ReadFile(all, strings.TrimPrefix(name, "/"))
		},
		Open: func(name string) (fs.File, error) {
			if err := forbidden(name); err != nil {
				return nil, err
			}
			return all.Open(strings.TrimPrefix(name, "/"))
		},
		Stat: func(name string) (fs.FileInfo, error) { return fs.Stat(all, strings.TrimPrefix(name, "/")) },
		Owner: func(fi fs.FileInfo) (uint32, bool) {
			if fi.Sys() == "stranger" {
				return 1001, true
			}
			return 0, true
		},
		Hostname:  func() (string, error) { return "mail.example.org", nil },
		Canonical: func(context.Context, string) (string, error) { return "", errors.New("no DNS here") },
		LookupIP: func(_ context.Context, name string) ([]netip.Addr, error) {
			switch name {
			case "localhost":
				return addrs("::1", "127.0.0.1"), nil
			case "mail.example.org":
				return addrs("192.0.2.1"), nil
			}
			return nil, errors.New("no such host")
		},
		LookupPort: func(_ context.Context, s string) (int, error) {
			if s == "submission" {
				return 587, nil
			}
			return 0, errors.New("unknown port")
		},
		Interfaces: func() ([]load.Interface, error) {
			return []load.Interface{
				{Name: "lo", Loopback: true, Addrs: addrs("127.0.0.1", "::1")},
				{Name: "em0", Addrs: addrs("192.0.2.1", "2001:db8::1", "fe80::1%em0")},
				{Name: "vlan1", Addrs: addrs("10.1.0.1")},
				{Name: "down0"},
			}, nil
		},
		Egress:     func() ([]string, error) { return []string{"em0"}, nil },
		UserExists: func(name string) (bool, error) { return name == "vmail" || name == "_filter", nil },
		MailName:   "/etc/mail/mailname",
		LibExecs:   []string{"/usr/local/libexec/smtpd"},
		Values:     pki.Words(table.Words(check.Values{})),
	}
	return m
}

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

// section begins another file in the input of a golden file: -- path [mode] --
var section = regexp.MustCompile(`(?m)^-- (\S+)(?: ([0-7]+))? --\n`)

// files splits the input of a golden file.
func files(t *testing.T, input string) fstest.MapFS {
	t.Helper()
	out := make(fstest.MapFS)
	marks := section.FindAllStringSubmatchIndex(input, -1)
	main := input
	if len(marks) > 0 {
		main = input[:marks[0][0]]
	}
	out["smtpd.conf"] = &fstest.MapFile{Data: []byte(main), Mode: 0o644}
	for i, at := range marks {
		end := len(input)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		mode := fs.FileMode(0o644)
		if at[4] >= 0 {
			if _, err := fmt.Sscanf(input[at[4]:at[5]], "%o", &mode); err != nil {
				t.Fatal(err)
			}
		}
		out[input[at[2]:at[3]]] = &fstest.MapFile{Data: []byte(input[at[1]:end]), Mode: mode}
	}
	return out
}

const separator = "----\n"

// goldenFiles runs a test for each file of a pattern, of which there are at least
// so many: the input, a separator, and what got makes of the input.
func goldenFiles(t *testing.T, pattern string, least int, got func(t *testing.T, input string) string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) < least {
		t.Fatalf("found %d golden files: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(b), separator)
			got := got(t, input)
			if *update {
				if err := os.WriteFile(name, []byte(input+separator+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestGolden loads every file in testdata: what is to come of it are findings, and
// when there is no error the canonical form, and the sockets when there are others
// than the local one.
func TestGolden(t *testing.T) { goldenFiles(t, "testdata/*.txt", 20, golden) }

func golden(t *testing.T, input string) string {
	t.Helper()
	l, diags := load.File(t.Context(), machine(files(t, input)), "smtpd.conf", map[string]string{"given": "em0"})
	var b strings.Builder
	if err := diags.Write(&b, diag.Note); err != nil {
		t.Fatal(err)
	}
	if diags.HasErrors() {
		return b.String()
	}
	if b.Len() > 0 {
		b.WriteString(separator)
	}
	text, err := printer.Print(l.Config)
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString(text)
	if len(l.Listeners) > 1 {
		b.WriteString(separator)
		for _, s := range l.Listeners {
			fmt.Fprintln(&b, s.Identity)
		}
	}
	original, _ := load.Parse(t.Context(), machine(files(t, input)), "smtpd.conf", map[string]string{"given": "em0"})
	laws(t, original, text, input)
	return b.String()
}

// laws holds what must be true of every canonical form.
func laws(t *testing.T, original *conf.Config, text, input string) {
	t.Helper()
	again, diags := parseNative(text)
	if diags.HasErrors() {
		t.Fatalf("the canonical form does not load: %v\n%s", diags.All(), text)
	}
	if d := Diff(original, again); d != "" {
		t.Errorf("the printed file is another configuration\n%s", d)
	}
	printable(t, again, printer.Print, parseNative)
	if want, got := comments(input), comments(text); got < want {
		t.Errorf("%d comments of %d are left in\n%s", got, want, text)
	}
}

// comments counts what surely are comments.
func comments(text string) int {
	return len(regexp.MustCompile(`(?m)(^|\s)#c`).FindAllString(text, -1))
}

// Diff compares configurations without regard to places.
func Diff(a, b *conf.Config) string {
	return cmp.Diff(a, b, cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(conf.Node{}, "At"),
		cmp.FilterPath(func(p cmp.Path) bool {
			s := p.String()
			return strings.HasSuffix(s, ".From.Pos") || strings.HasSuffix(s, ".For.Pos")
		}, cmp.Ignore()),
		cmp.Comparer(func(a, b conf.Pos) bool { return a.IsZero() == b.IsZero() }))
}
