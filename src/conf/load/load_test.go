package load

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

func fake(files map[string]string) Machine {
	m := fstest.MapFS{}
	for name, text := range files {
		m[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return Machine{
		ReadFile:   func(name string) ([]byte, error) { return fs.ReadFile(m, strings.TrimPrefix(name, "/")) },
		Open:       func(name string) (fs.File, error) { return m.Open(strings.TrimPrefix(name, "/")) },
		Stat:       func(name string) (fs.FileInfo, error) { return fs.Stat(m, strings.TrimPrefix(name, "/")) },
		Owner:      func(fs.FileInfo) (uint32, bool) { return 0, true },
		Hostname:   func() (string, error) { return "host.example.org", nil },
		Canonical:  func(context.Context, string) (string, error) { return "", errors.New("none") },
		LookupIP:   func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("none") },
		LookupPort: func(context.Context, string) (int, error) { return 0, errors.New("none") },
		Interfaces: func() ([]Interface, error) {
			return []Interface{{Name: "lo", Loopback: true, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}, nil
		},
		Egress:   func() ([]string, error) { return nil, nil },
		MailName: "/mailname",
	}
}

const rule = "match for any reject\n"

func TestServerName(t *testing.T) {
	for name, tt := range map[string]struct {
		mailname  string
		host      string
		hostErr   error
		canonical string
		want      string
		fails     bool
	}{
		"mailname":             {mailname: " mx.example.net \nsecond", want: "mx.example.net"},
		"empty mailname":       {mailname: "\n", host: "a.b", want: "a.b"},
		"bad mailname":         {mailname: "a b", host: "a.b", want: "a.b"},
		"host":                 {host: "a.example.org", want: "a.example.org"},
		"short host":           {host: "a", canonical: "a.example.org", want: "a.example.org"},
		"short host alone":     {host: "a", want: "a"},
		"no host":              {hostErr: errors.New("none"), want: "localhost", fails: true},
		"empty host is no one": {host: "", want: "localhost", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/f": rule}
			if tt.mailname != "" {
				files["/mailname"] = tt.mailname
			}
			m := fake(files)
			m.Hostname = func() (string, error) { return tt.host, tt.hostErr }
			if tt.canonical != "" {
				m.Canonical = func(context.Context, string) (string, error) { return tt.canonical, nil }
			}
			l, diags := File(t.Context(), m, "/f", nil)
			if l.Server.Name != tt.want || diags.HasErrors() != tt.fails {
				t.Errorf("got %q, want %q (%v)", l.Server.Name, tt.want, diags.All())
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	l, diags := File(t.Context(), fake(map[string]string{"/f": rule + "mta limit max-conn-per-host 3\nmda limit max-session 2\n"}), "/f", nil)
	if diags.HasErrors() {
		t.Fatal(diags.All())
	}
	s := &l.Server
	if s.QueueTTL.Value != 96*time.Hour || s.MaxMessageSize.Value != 35<<20 || s.SubAddrDelim.Value != "+" ||
		!slices.Equal(s.BounceWarn.Value, []time.Duration{4 * time.Hour}) || s.MTAMaxDeferred.Value != 100 {
		t.Errorf("%+v", s)
	}
	if len(s.MDALimits) != len(conf.MDALimits()) || len(s.MTALimits) != len(conf.MTALimits()) || s.MTALimits[0].Value != 3 || s.MDALimits[0].Value != 2 {
		t.Error("limits are not completed")
	}
	if len(l.Listeners) != 1 || l.Listeners[0].Identity != SocketIdentity || !l.Listens[0].Pos.IsZero() {
		t.Errorf("no implicit socket: %+v", l.Listeners)
	}
}

func TestLocal(t *testing.T) {
	m := fake(map[string]string{"/f": rule})
	m.Interfaces = func() ([]Interface, error) {
		return []Interface{{Name: "em0", Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}}}, nil
	}
	l, _ := File(t.Context(), m, "/f", nil)
	if got := strings.Join(l.LocalNames, " "); got != "localhost host.example.org 127.0.0.1 192.0.2.1 [::1] [2001:db8::1]" {
		t.Error(got)
	}
	if len(l.LocalAddrs) != 4 {
		t.Error(l.LocalAddrs)
	}
}

// TestResolve covers what the golden files' machine cannot show.
func TestResolve(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for name, tt := range map[string]struct {
		text   string
		change func(*Machine)
		want   string // identities but the socket's
		fails  string
	}{
		"localhost without IPv6": {text: "listen on localhost\n", change: func(m *Machine) {
			m.LookupIP = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{v6, v4}, nil }
		}, want: "tcp:127.0.0.1:25"},
		"no interfaces at all": {text: "listen on localhost\n", change: func(m *Machine) {
			m.LookupIP = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{v6, v4}, nil }
			m.Interfaces = func() ([]Interface, error) { return nil, nil }
		}, want: "tcp:127.0.0.1:25 tcp:[::1]:25"},
		"interfaces unknown": {text: "listen on em0\n", change: func(m *Machine) {
			m.Interfaces = func() ([]Interface, error) { return nil, errors.New("broken") }
		}, fails: "interfaces: broken"},
		"no default route": {text: "listen on egress\n", fails: "egress: there is no default route"},
		"routes unknown":   {text: "listen on egress\n", change: func(m *Machine) { m.Egress = func() ([]string, error) { return nil, errors.New("broken") } }, fails: "egress: broken"},
		"an egress interface": {text: "listen on egress\n", change: func(m *Machine) {
			m.Interfaces = func() ([]Interface, error) { return []Interface{{Name: "egress", Addrs: []netip.Addr{v4}}}, nil }
		}, want: "tcp:127.0.0.1:25"},
		"all": {text: "listen on all\n", change: func(m *Machine) {
			m.Interfaces = func() ([]Interface, error) {
				return []Interface{{Name: "em0", Addrs: []netip.Addr{v4}}, {Name: "em1", Addrs: []netip.Addr{v6}}}, nil
			}
		}, want: "tcp:127.0.0.1:25 tcp:[::1]:25"},
		"a driver": {text: "listen on em\n", change: func(m *Machine) {
			m.DriverGroups = true
			m.Interfaces = func() ([]Interface, error) {
				return []Interface{{Name: "em0", Addrs: []netip.Addr{v4}}, {Name: "em1", Addrs: []netip.Addr{v6}}, {Name: "re0"}}, nil
			}
		}, want: "tcp:127.0.0.1:25 tcp:[::1]:25"},
		"known services":   {text: "listen on lo port submission\nlisten on lo port smtps\n", want: "tcp:127.0.0.1:587 tcp:127.0.0.1:465"},
		"the same twice":   {text: "listen on 127.0.0.1\nlisten on 127.0.0.1\n", fails: "127.0.0.1:25 is listened on twice"},
		"the exact one":    {text: "listen on lo\nlisten on 127.0.0.1\n", want: "tcp:127.0.0.1:25"},
		"a mapped address": {text: "listen on \"::ffff:192.0.2.1\"\n", want: "tcp:192.0.2.1:25"},
		"wildcards":        {text: "listen on 0.0.0.0\nlisten on \"::\"\n", want: "tcp:0.0.0.0:25 tcp:[::]:25"},
		"brackets":         {text: "listen on \"[::1]\" port 26\n", want: "tcp:[::1]:26"},
	} {
		t.Run(name, func(t *testing.T) {
			m := fake(map[string]string{"/f": tt.text + rule})
			if tt.change != nil {
				tt.change(&m)
			}
			l, diags := File(t.Context(), m, "/f", nil)
			if tt.fails != "" {
				if errs := diags.Of(diag.Error); len(errs) != 1 || errs[0].Message != tt.fails || errs[0].Pos.IsZero() {
					t.Errorf("got %v, want %s", errs, tt.fails)
				}
				return
			}
			var got []string
			for _, s := range l.Listeners {
				if !s.Socket {
					got = append(got, s.Identity)
				}
			}
			if strings.Join(got, " ") != tt.want || diags.HasErrors() {
				t.Errorf("got %v, want %s (%v)", got, tt.want, diags.All())
			}
		})
	}
}

func TestTableFiles(t *testing.T) {
	text := "table a file:/t\ntable b file:/t\ntable c db:/t\ntable d { x }\n" + rule
	l, diags := File(t.Context(), fake(map[string]string{"/f": text, "/t": "x\n"}), "/f", nil)
	if diags.HasErrors() {
		t.Fatal(diags.All())
	}
	want := []TableFile{{"file:/t", "/t", "file"}, {"db:/t", "/t", "db"}}
	if !slices.Equal(l.TableFiles, want) {
		t.Errorf("got %v, want %v", l.TableFiles, want)
	}
}

func TestFirstLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "?", "\n\n": "?", "# only\n": "?", "a\n": "list", "a b\n": "map", "a: b": "map", "a:b\n": "map",
		"# @list\na: b\n": "list", "#@list\na: b\n": "list", "# c\n\n  a\tb\n": "map", "a # c\n": "list",
		"[::1] x\n": "map", "[::1]\n": "list", "[::1\n": "list", "a:\n": "map", "smtp://host\n": "map",
	} {
		kind, known, err := firstLine(strings.NewReader(text))
		got := "?"
		if known {
			got = [...]string{"list", "map"}[kind]
		}
		if got != want || err != nil {
			t.Errorf("%q is a %s, want %s (%v)", text, got, want, err)
		}
	}
}

func TestOwner(t *testing.T) {
	m := fake(map[string]string{"/f": rule})
	m.Owner = func(fs.FileInfo) (uint32, bool) { return 7, true }
	if _, diags := File(t.Context(), m, "/f", nil); len(diags.Of(diag.Warning)) != 1 || diags.HasErrors() {
		t.Error(diags.All())
	}
	m.UID = 7
	if _, diags := File(t.Context(), m, "/f", nil); diags.Len() != 0 {
		t.Error(diags.All())
	}
}

// TestSystem loads a file on this machine, whatever it is like.
func TestSystem(t *testing.T) {
	dir := t.TempDir()
	file, table := filepath.Join(dir, "smtpd.conf"), filepath.Join(dir, "table")
	text := "table t \"" + table + "\"\nlisten on 127.0.0.1 port 2525\nmatch for domain <t> reject\n"
	for name, data := range map[string]string{file: text, table: "a\n", filepath.Join(dir, "mailname"): "mx.example.org\n"} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := System()
	m.MailName = filepath.Join(dir, "mailname")
	l, diags := File(t.Context(), m, file, nil)
	if diags.Len() > 0 {
		t.Fatal(diags.All())
	}
	if len(l.Listeners) != 2 || l.Listeners[0].Identity != "tcp:127.0.0.1:2525" || !l.Listeners[0].Local {
		t.Errorf("%+v", l.Listeners)
	}
	if ok, err := m.UserExists("no-such-user-here"); ok || err != nil {
		t.Error(ok, err)
	}
}
