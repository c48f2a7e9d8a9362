package ruleset

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
)

var errBroken = errors.New("backend hiccups")

type broken struct{}

func (broken) Name() string { return "broken" }
func (broken) Match(context.Context, table.Service, string) (bool, error) {
	return false, errBroken
}
func (broken) Lookup(context.Context, table.Service, string) (string, bool, error) {
	return "", false, errBroken
}
func (broken) Fetch(context.Context, table.Service) (string, bool, error) {
	return "", false, errBroken
}

// tables gives a table by the list of its entries, "a,b"; "file:a,b" makes one
// that may change, which is asked in another way.
func tables(t *testing.T) func(string) table.Table {
	made := map[string]table.Table{"broken": broken{}, "missing": nil}
	return func(name string) table.Table {
		if tbl, ok := made[name]; ok {
			return tbl
		}
		var entries []table.Entry
		text, isFile := strings.CutPrefix(name, "file:")
		for _, k := range strings.Split(text, ",") {
			entries = append(entries, table.Entry{Key: k})
		}
		var tbl table.Table = table.NewStatic(name, conf.List, entries, "+")
		if isFile {
			tbl = fileTable(t, name, strings.ReplaceAll(text, ",", "\n"))
		}
		made[name] = tbl
		return tbl
	}
}

func fileTable(t *testing.T, name, text string) table.Table {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("# @list\n" + text + "\n"); err != nil {
		t.Fatal(err)
	}
	tbl, err := table.NewFile(name, "/etc/t", f, "+")
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

// parse reads a rule in the grammar of smtpd.conf(5), tables as comma lists.
func parse(t *testing.T, line string) project.Match {
	t.Helper()
	m := project.Match{}
	m.From.Set, m.For.Set = true, true
	w := strings.Fields(line)
	next := func() string {
		if len(w) == 0 {
			return ""
		}
		s := w[0]
		w = w[1:]
		return s
	}
	arg := func(c *project.Cond, optional bool) {
		c.Set = true
		if len(w) > 0 && w[0] == "regex" {
			c.Regex = true
			next()
		}
		if optional && (len(w) == 0 || !strings.HasPrefix(w[0], "<")) {
			return
		}
		c.Table = strings.Trim(next(), "<>")
	}
	options := map[string]struct {
		c        *project.Cond
		optional bool
	}{
		"tag": {&m.Tag, false}, "helo": {&m.Helo, false}, "auth": {&m.Auth, true},
		"mail-from": {&m.MailFrom, false}, "rcpt-to": {&m.RcptTo, false},
	}
	for len(w) > 0 {
		word, not := strings.CutPrefix(next(), "!")
		switch word {
		case "from":
			kind := next()
			m.FromKind = map[string]conf.FromKind{
				"local": conf.FromLocal, "any": conf.FromAny, "socket": conf.FromSocket, "src": conf.FromSrc,
				"rdns": conf.FromRDNS, "auth": conf.FromAuth, "mail-from": conf.FromMailFrom,
			}[kind]
			if strings.Contains("src rdns auth mail-from", kind) {
				arg(&m.From, kind == "rdns" || kind == "auth")
			}
			m.From.Not = not
		case "for":
			kind := next()
			m.ForKind = map[string]conf.ForKind{
				"local": conf.ForLocal, "any": conf.ForAny, "domain": conf.ForDomain, "rcpt-to": conf.ForRcptTo,
			}[kind]
			if kind == "domain" || kind == "rcpt-to" {
				arg(&m.For, false)
			}
			m.For.Not = not
		case "tls":
			m.TLS = project.Cond{Set: true, Not: not}
		case "action":
			m.Action = next()
		case "reject":
			m.Reject = true
		default:
			o, ok := options[word]
			if !ok {
				t.Fatalf("%q in %q", word, line)
			}
			arg(o.c, o.optional)
			o.c.Not = not
		}
	}
	return m
}

var local = Local{
	Names: []string{"localhost", "mx.example.org", "192.0.2.1", "[2001:db8::1]"},
	Addrs: []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1%eth0"),
	},
}

// subject reads "key=value …"; without src the client is on the local socket.
func subject(t *testing.T, text string) *Subject {
	t.Helper()
	s := &Subject{Rcpt: addr.Address{Local: "user", Domain: "localhost"}}
	for _, w := range strings.Fields(text) {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "src":
			s.Addr = netip.MustParseAddr(v)
		case "rdns":
			s.RDNS = v
		case "helo":
			s.Helo = v
		case "tag":
			s.Tag = v
		case "tls":
			s.TLS = true
		case "internal":
			s.Internal = true
		case "auth":
			s.Authenticated, s.AuthUser = true, v
		case "from":
			s.Sender = addr.Cut(v)
		case "to":
			s.Rcpt = addr.Cut(v)
		default:
			t.Fatalf("%q in %q", k, text)
		}
	}
	return s
}

func TestOneRule(t *testing.T) {
	for _, tc := range []struct {
		rule    string
		yes, no []string
	}{
		// The defaults: from local, for local.
		{"action a", []string{"", "src=127.0.0.1", "src=::1", "src=192.0.2.1", "src=::ffff:127.0.0.1", "src=fe80::1%eth0",
			"to=u@MX.example.org", "to=u@[192.0.2.1]", "to=u@192.0.2.1", "to=u@[IPv6:2001:db8::1]", "to=u@[2001:db8::1]",
			"src=10.0.0.1 internal"},
			[]string{"src=10.0.0.1", "to=u@example.org", "src=fe80::1%eth1", "to=u@[10.0.0.1]", "src=192.0.2.2"}},
		{"!from local action a", []string{"src=10.0.0.1"}, []string{"", "src=127.0.0.1", "src=10.0.0.1 internal"}},
		{"!for local action a", []string{"to=u@example.org"}, []string{"", "to=u@[192.0.2.1]"}},
		{"from any action a", []string{"", "src=10.0.0.1", "src=fe80::1%x"}, []string{"to=u@b"}},
		{"!from any action a", nil, []string{"", "src=10.0.0.1"}},
		{"from any for any action a", []string{"", "src=10.0.0.1 to=u@b"}, nil},
		{"from any !for any action a", nil, []string{"", "to=u@b"}},

		{"from socket action a", []string{""}, []string{"src=127.0.0.1", "internal", "src=10.0.0.1 internal"}},
		{"!from socket action a", []string{"src=127.0.0.1"}, []string{"", "src=10.0.0.1 internal"}},

		{"from src <10.0.0.0/8,[2001:db8::]/32> action a", []string{"src=10.1.2.3", "src=2001:db8::9"}, []string{"", "src=11.0.0.1", "src=10.0.0.1 internal"}},
		{"!from src <10.0.0.0/8> action a", []string{"", "src=11.0.0.1", "src=10.0.0.1 internal"}, []string{"src=10.1.2.3"}},
		{"from src <local> action a", []string{"", "src=10.0.0.1 internal"}, []string{"src=127.0.0.1"}},
		{"from src regex <^10[.]> action a", []string{"src=10.1.2.3"}, []string{"src=110.1.2.3", ""}},

		{"from rdns action a", []string{"src=10.0.0.1 rdns=x.y", "rdns=localhost"}, []string{"src=10.0.0.1", "src=10.0.0.1 rdns=x.y internal"}},
		{"!from rdns action a", []string{"src=10.0.0.1"}, []string{"src=10.0.0.1 rdns=x.y", "src=10.0.0.1 rdns=x.y internal"}},
		{"from rdns <*.y> action a", []string{"src=10.0.0.1 rdns=x.Y"}, []string{"src=10.0.0.1", "src=10.0.0.1 rdns=y"}},
		{"!from rdns <*.y> action a", []string{"src=10.0.0.1", "src=10.0.0.1 rdns=y"}, []string{"src=10.0.0.1 rdns=x.y"}},
		{"from rdns regex <^x> action a", []string{"src=10.0.0.1 rdns=xy"}, []string{"src=10.0.0.1 rdns=yx", "src=10.0.0.1"}},

		{"from auth action a", []string{"src=10.0.0.1 auth=u", "auth="}, []string{"", "src=127.0.0.1"}},
		{"!from auth action a", []string{"", "src=10.0.0.1"}, []string{"src=10.0.0.1 auth=u"}},
		{"from auth <u,@v> action a", []string{"src=10.0.0.1 auth=U", "auth=x@v", "auth=u@w"}, []string{"src=10.0.0.1 auth=x", "src=10.0.0.1", "auth="}},
		{"!from auth <u> action a", []string{"src=10.0.0.1", "src=10.0.0.1 auth=x"}, []string{"auth=u"}},
		{"auth action a", []string{"auth=u", "src=127.0.0.1 auth=u"}, []string{"", "src=10.0.0.1 auth=u"}},
		{"from any auth regex <^u> action a", []string{"src=10.0.0.1 auth=ux"}, []string{"src=10.0.0.1 auth=xu", ""}},

		{"from mail-from <@s> action a", []string{"src=10.0.0.1 from=a@s", "from=a@s"}, []string{"src=10.0.0.1", "from=a@t"}},
		{"!from mail-from <@s> action a", []string{"src=10.0.0.1", "from=a@t"}, []string{"from=a@s"}},
		{"from any mail-from <@> action a", []string{"", "from=a@b"}, nil},
		{"from any mail-from regex <^@$> action a", []string{""}, []string{"from=a@b"}},
		{"from any !mail-from <a@b> action a", []string{"", "from=c@b"}, []string{"from=A@B"}},

		{"for domain <a.b,*.c> action a", []string{"to=u@A.b", "to=u@x.y.c"}, []string{"to=u@x.a.b", "src=10.0.0.1 to=u@a.b", ""}},
		{"!for domain <a.b> action a", []string{"", "to=u@c"}, []string{"to=u@a.b"}},
		{"for domain regex <^a> action a", []string{"to=u@ab"}, []string{"to=u@ba"}},
		{"for rcpt-to <u@d,v> action a", []string{"to=u@d", "to=u+t@D", "to=v@x"}, []string{"to=w@d", ""}},
		{"!for rcpt-to <u@d> action a", []string{"to=w@d"}, []string{"to=u@d"}},
		{"for any rcpt-to <u@d> action a", []string{"to=u@d"}, []string{"to=w@d"}},

		{"tag <T> action a", []string{"tag=t"}, []string{"", "tag=x"}},
		{"!tag <T> action a", []string{"", "tag=x"}, []string{"tag=t"}},
		{"tag regex <^s> action a", []string{"tag=sub"}, []string{"tag=x"}},
		{"helo <*.x> action a", []string{"helo=m.X"}, []string{"", "helo=x"}},
		{"helo regex <^[[]> action a", []string{"helo=[1.2.3.4]"}, []string{"helo=x"}},
		{"tls action a", []string{"tls"}, []string{""}},
		{"!tls action a", []string{""}, []string{"tls"}},
	} {
		for _, prefix := range []string{"<", "<file:"} {
			line := strings.ReplaceAll(tc.rule, "<", prefix)
			r, err := New([]project.Match{parse(t, line)}, tables(t), local)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			for want, list := range map[bool][]string{true: tc.yes, false: tc.no} {
				for _, s := range list {
					got, err := r.Match(context.Background(), subject(t, s))
					if err != nil || (got != nil) != want {
						t.Errorf("%s: {%s} gives %v, %v; want a match: %v", line, s, got, err, want)
					}
				}
			}
		}
	}
}

func rules(t *testing.T, text string) []project.Match {
	var list []project.Match
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, parse(t, line))
		}
	}
	return list
}

func TestFirstMatchWins(t *testing.T) {
	r, err := New(rules(t, `
		from any for domain <spam.example> reject
		from auth for any action relay
		from any for domain <example.org,*.example.org> mail-from <@bad.example> reject
		from any for domain <*.example.org> action sub
		from any for domain <example.org> action main
		from any tag <t> for domain <broken.example> action x
		action local
	`), tables(t), local)
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"src=10.0.0.1 to=a@spam.example":                       "1 match from any for domain <spam.example> reject",
		"src=10.0.0.1 auth=u to=a@b":                           "2 match from auth for any action relay",
		"src=10.0.0.1 to=a@example.org from=x@bad.example":     "3 match from any for domain <example.org,*.example.org> mail-from <@bad.example> reject",
		"src=10.0.0.1 to=a@x.example.org from=x@good.example":  "4 match from any for domain <*.example.org> action sub",
		"src=10.0.0.1 to=a@example.org":                        "5 match from any for domain <example.org> action main",
		"src=10.0.0.1 to=a@broken.example":                     "none",
		"src=10.0.0.1 to=a@localhost":                          "none",
		"to=a@localhost":                                       "7 match from local for local action local",
		"src=10.0.0.1 to=a@elsewhere.example from=a@localhost": "none",
	} {
		got := "none"
		rule, err := r.Match(context.Background(), subject(t, in))
		if err != nil {
			t.Fatal(err)
		}
		if rule != nil {
			got = fmt.Sprint(rule.Number, " ", rule)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	r, err := New(rules(t, `
		from any !for domain <a> reject
		from socket for any action x
		!from any for any reject
		from any for domain regex <^b> action y
		from any for any !mail-from <@s> action z
		from any for any action last
	`), tables(t), local)
	if err != nil {
		t.Fatal(err)
	}
	steps, rule, err := r.Explain(context.Background(), subject(t, "src=10.0.0.1 to=u@a from=v@s"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range steps {
		got = append(got, s.Failed)
	}
	want := []string{"!for domain <a>", "from socket", "!any", "for domain regex <^b>", "!mail-from <@s>", ""}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) || rule == nil || rule.Number != 6 {
		t.Errorf("Explain = %q, %v; want %q", got, rule, want)
	}
}

func TestTrouble(t *testing.T) {
	r, err := New(rules(t, `
		from src <10.0.0.1> for domain <broken> action x
		from any for any action y
	`), tables(t), local)
	if err != nil {
		t.Fatal(err)
	}
	if rule, err := r.Match(context.Background(), subject(t, "src=10.0.0.1 to=u@a")); !errors.Is(err, errBroken) || rule != nil {
		t.Errorf("a table that fails: %v, %v", rule, err)
	}
	if _, _, err := r.Explain(context.Background(), subject(t, "src=10.0.0.1 to=u@a")); !errors.Is(err, errBroken) {
		t.Errorf("a table that fails, explained: %v", err)
	}
	// The rule does not apply, so its table must not matter.
	if rule, err := r.Match(context.Background(), subject(t, "src=10.0.0.2 to=u@a")); err != nil || rule == nil || rule.Number != 2 {
		t.Errorf("a table that need not be asked: %v, %v", rule, err)
	}
	for _, m := range []project.Match{
		{FromKind: 99},
		{ForKind: 99},
		{FromKind: conf.FromSrc},
		{ForKind: conf.ForDomain},
		{Tag: project.Cond{Set: true}},
		{Helo: project.Cond{Set: true, Table: "missing"}},
	} {
		if _, err := New([]project.Match{m}, tables(t), local); err == nil {
			t.Errorf("%v: no error", m)
		}
	}
}

func manyRules(b *testing.B, form string) *Ruleset {
	var list []project.Match
	tbl := make(map[string]table.Table)
	for i := range 10_000 {
		name := fmt.Sprintf("t%d", i)
		tbl[name] = table.NewStatic(name, conf.List, []table.Entry{{Key: fmt.Sprintf(form, i)}}, "+")
		m := project.Match{FromKind: conf.FromAny, ForKind: conf.ForAny, Action: "a"}
		c := project.Cond{Set: true, Table: name}
		switch {
		case strings.Contains(form, "@"):
			m.MailFrom = c
		case strings.Contains(form, "/"):
			m.FromKind, m.From = conf.FromSrc, c
		default:
			m.ForKind, m.For = conf.ForDomain, c
		}
		list = append(list, m)
	}
	r, err := New(list, func(n string) table.Table { return tbl[n] }, local)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkMatch is for the figure in the design: 10,000 rules, the last of them
// within 100 µs.
func BenchmarkMatch(b *testing.B) {
	for _, form := range []string{"d%d.example", "*.d%d.example", "u%d@example.org", "10.%d/32"} {
		if form == "10.%d/32" {
			form = "[2001:db8:%x::]/48"
		}
		r := manyRules(b, form)
		s := &Subject{
			Addr: netip.MustParseAddr("2001:db8:270f::1"), Rcpt: addr.Address{Local: "u", Domain: "x.d9999.example"},
			Sender: addr.Address{Local: "u9999", Domain: "example.org"},
		}
		if form == "d%d.example" {
			s.Rcpt.Domain = "d9999.example"
		}
		b.Run(form, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if rule, err := r.Match(context.Background(), s); err != nil || rule == nil || rule.Number != 10_000 {
					b.Fatal(rule, err)
				}
			}
		})
	}
}
