package table_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/lookup/program"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/mlog"
)

// kindRow is a table and what it must answer, wherever it is kept. An entry is
// "key" or "key=value"; an answer is "key", which matches, "key=value", which
// is looked up, or "!key", which is not there.
type kindRow struct {
	name    string
	service table.Service
	entries []string
	answers []string
	// compares tells that keys must be compared: a program that finds them as
	// they are cannot serve a '*' that is neither alone nor in front of a dot.
	compares bool
}

var kindRows = []kindRow{
	{name: "alias", service: table.Alias,
		entries: []string{"root=eve, bob@example.org", "Postmaster=root", "joe+lists=|/bin/true", "a*=x"},
		answers: []string{"root=eve, bob@example.org", "ROOT=eve, bob@example.org", "postmaster=root", "JOE+lists=|/bin/true",
			"!joe", "!joe+x", "!abc", "a*=x", "!", "!@"}},
	{name: "virtual", service: table.Alias,
		entries: []string{"user+tag@example.org=one", "User@Example.org=two", "user=three", "@example.org=four", "@=five"},
		answers: []string{"user+tag@example.org=one", "USER@example.ORG=two", "user=three", "@EXAMPLE.org=four", "@=five",
			"!user+x@example.org", "!x@example.org", "!@example.net"}},
	{name: "domain", service: table.Domain,
		entries: []string{"example.org", "*.Example.net", "[192.0.2.1]", "[IPv6:2001:db8::1]"},
		answers: []string{"example.org", "EXAMPLE.Org", "a.example.net", "a.b.example.net", "[192.0.2.1]", "[ipv6:2001:DB8::1]",
			"!example.net", "!a.example.org", "!example.orgx", "!192.0.2.1", "!"}},
	{name: "domain backtracking", service: table.Domain,
		entries: []string{"*.example"},
		answers: []string{"a.example", "a.b.example", "a.example.b.example", ".example", "!example", "!a.example.b"}},
	{name: "domain globs", service: table.Domain, compares: true,
		entries: []string{"mail*.*.org", "*example.com"},
		answers: []string{"mail.a.org", "mail7.b.a.org", "badexample.com", "example.com", "!mail.org", "!x.a.org"}},
	{name: "domain star", service: table.Domain, entries: []string{"*"}, answers: []string{"x", "x.y.z", "!"}},
	{name: "domain values", service: table.Domain,
		entries: []string{"*=all", "*.org=org", "*.example.org=sub", "example.org=it"},
		answers: []string{"example.org=it", "A.example.org=sub", "b.a.example.org=sub", "a.org=org", "x.y=all"}},
	{name: "credentials of a listener", service: table.Credentials,
		entries: []string{"Joe=$2b$10$AbC/dEf.", "joe@example.org=joe:$6$x$Y # z"},
		answers: []string{"joe=$2b$10$AbC/dEf.", "JOE=$2b$10$AbC/dEf.", "joe@Example.Org=joe:$6$x$Y # z", "!jo", "!joe+x", "!@example.org"}},
	{name: "credentials of a relay", service: table.Credentials,
		entries: []string{"label=user:Pass:Word"}, answers: []string{"LABEL=user:Pass:Word", "!user"}},
	{name: "netaddr v4", service: table.NetAddr,
		entries: []string{"192.0.2.1", "198.51.100.0/24", "10/8", "172.16/12", "203.0.113.77/28"},
		answers: []string{"192.0.2.1", "198.51.100.255", "10.200.0.1", "172.31.0.1", "203.0.113.65", "[::ffff:192.0.2.1]",
			"!192.0.2.2", "!198.51.101.0", "!11.0.0.0", "!172.32.0.0", "!203.0.113.80", "!local", "![2001:db8::1]", "!", "!nonsense"}},
	{name: "netaddr v6", service: table.NetAddr,
		entries: []string{"[2001:db8::1]", "[2001:db8:1::]/48", "[2001:db8:2::/48]", "[IPv6:2001:db8:3::]/48"},
		answers: []string{"[2001:db8::1]", "[2001:DB8::1]", "[2001:db8:0:0::1]", "[2001:db8:1:2::3]", "[2001:db8:2:ffff::]", "[2001:db8:3::1]",
			"![2001:db8::2]", "![2001:db8:4::1]", "!1.2.3.4", "!local"}},
	{name: "netaddr zone", service: table.NetAddr,
		entries: []string{"[fe80::1%eth0]"},
		answers: []string{"[fe80::1%eth0]", "[FE80::1%eth0]", "[fe80:0::1%ETH0]", "![fe80::1]", "![fe80::1%eth1]"}},
	{name: "netaddr zone and length", service: table.NetAddr, compares: true,
		entries: []string{"[fe80::bb00%eth1]/120", "[fe80::cc00%eth1/120]", "fe80::dd01%eth1"},
		answers: []string{"[fe80::bb01%eth1]", "[fe80::cc01%eth1]", "[fe80::dd01%eth1]", "![fe80::bb01%eth0]", "![fe80::bb01]", "![fe80::dd02%eth1]"}},
	{name: "netaddr without zone", service: table.NetAddr,
		entries: []string{"[fe80::]/10"}, answers: []string{"[fe80::1%eth0]", "[fe80::1%eth1]", "[fe80::1]", "![fec0::1%eth0]"}},
	{name: "netaddr all", service: table.NetAddr,
		entries: []string{"0.0.0.0/0", "local"}, answers: []string{"1.2.3.4", "local", "LOCAL", "![::1]"}},
	{name: "netaddr v4 in v6", service: table.NetAddr,
		entries: []string{"[::ffff:10.0.0.0]/104"}, answers: []string{"10.1.2.3", "[::ffff:10.1.2.3]", "!11.0.0.1", "![::10.0.0.1]"}},
	{name: "userinfo", service: table.UserInfo,
		entries: []string{"joe=2000:2000:/var/vmail/joe", "Jack=2000:2000:/var/vmail/Jack"},
		answers: []string{"joe=2000:2000:/var/vmail/joe", "JOE=2000:2000:/var/vmail/joe", "jack=2000:2000:/var/vmail/Jack", "!jill", "!joe+tag"}},
	{name: "mailaddr", service: table.MailAddr,
		entries: []string{"user", "@dom.example", "A@B.example", "tag+x@c.example"},
		answers: []string{"user@anywhere", "USER@x.y", "user+tag@x", "x@dom.example", "x+y@DOM.example", "a@b.example", "a+t@B.example", "tag+x@c.example",
			"!other@x", "!x@a.dom.example", "!b@b.example", "!tag@c.example", "!tag+y@c.example", "!@"}},
	{name: "mailaddr wildcards", service: table.MailAddr,
		entries: []string{"user@*.example", "@*.b.example"},
		answers: []string{"user@a.example", "user+t@a.c.example", "x@a.b.example", "x@c.a.b.example", "!user@example", "!x@b.example", "!x@a.example"}},
	{name: "mailaddr globs", service: table.MailAddr, compares: true,
		entries: []string{"@mail*.example", "u@*x"}, answers: []string{"a@mail7.example", "u@ax", "u+t@x", "!a@example", "!v@ax"}},
	{name: "mailaddr catch-all", service: table.MailAddr, entries: []string{"@"}, answers: []string{"a@b", "a+t@b.c", "@"}},
	{name: "mailaddr values", service: table.MailAddr,
		entries: []string{"@=all", "@*.org=dot org", "@example.org=domain", "user=anywhere", "user@example.org=box", "user+t@example.org=tagged", "user@*.net=net"},
		answers: []string{"user+t@example.org=tagged", "user+x@EXAMPLE.org=box", "user@a.net=net", "user@a.com=anywhere", "user+y@a.com=anywhere",
			"x@example.org=domain", "x@a.org=dot org", "x@y.z=all", "@=all"}},
	{name: "mailaddrmap", service: table.MailAddrMap,
		entries: []string{"joe=joe@example.org, @example.net", "joe@example.org=@"},
		answers: []string{"JOE=joe@example.org, @example.net", "joe@EXAMPLE.org=@", "!joe+x", "!@example.org"}},
	{name: "addrname", service: table.AddrName,
		entries: []string{"192.0.2.1=mx1.example.org", "[2001:db8::1]=mx2.example.org", "198.51.100.0/24=net.example.org", "[2001:db8:1::]/48=net6.example.org"},
		answers: []string{"192.0.2.1=mx1.example.org", "[2001:DB8::1]=mx2.example.org", "198.51.100.7=net.example.org", "[2001:db8:1::7]=net6.example.org",
			"[::ffff:192.0.2.1]=mx1.example.org", "!192.0.2.2", "![2001:db8::2]"}},
	{name: "relayhost by domain", service: table.RelayHost,
		entries: []string{"example.org=smtp://Label@mx.example.org:25", "Example.net=smtps://mx.example.net"},
		answers: []string{"EXAMPLE.org=smtp://Label@mx.example.org:25", "example.net=smtps://mx.example.net", "!a.example.org"}},
	{name: "string", service: table.String,
		entries: []string{"Tag", "other*"}, answers: []string{"tag", "TAG", "other*", "!others", "!ta", "!"}},
	{name: "regex", service: table.Regex,
		entries: []string{`^a.*z$`, `[.]example[.]org$`, `^[[:digit:]]+$`},
		answers: []string{"abz", "AZ", "mail.Example.ORG", "user@mail.example.org", "123", "!ab", "!example.org", "!12a"}},
	{name: "regex that begins with a bracket", service: table.Regex,
		entries: []string{`[0-9]+@x`, `[[:alpha:]]+x:y`}, answers: []string{"7@x", "ax:y", "!@x", "!x:z"}},
	{name: "auth", service: table.Auth,
		entries: []string{"joe:Secret Word"}, answers: []string{"joe:Secret Word", "!joe:secret word", "!joe:Secret", "!Jo:Secret Word"}},
}

// keepers make a table of entries in each back end.
var keepers = []struct {
	name string
	as   func(kindRow) bool // whether it can serve the row
	make func(*testing.T, kindRow, []table.Entry) table.Table
}{
	{"static", notAuth, func(_ *testing.T, r kindRow, list []table.Entry) table.Table {
		return table.NewStatic("t", kindOf(r), list, "+")
	}},
	{"file", notAuth, keepFile},
	{"db", notAuth, keepDB},
	{"program of rows", func(r kindRow) bool { return !r.compares }, keepRows},
	{"program that compares", notAuth, keepComparing},
}

// notAuth leaves out what no table of ours serves: a password to be checked.
func notAuth(r kindRow) bool { return r.service != table.Auth }

func kindOf(r kindRow) conf.Kind {
	if r.service != table.Regex && strings.Contains(r.entries[0], "=") {
		return conf.Map
	}
	return conf.List
}

// TestKinds asks every kind of table in every back end for keys of every form:
// the answers must be the same.
func TestKinds(t *testing.T) {
	for _, r := range kindRows {
		var list []table.Entry
		for _, e := range r.entries {
			k, v := e, ""
			if kindOf(r) == conf.Map {
				k, v, _ = strings.Cut(e, "=")
			}
			list = append(list, table.Entry{Key: k, Value: v})
		}
		for _, keep := range keepers {
			if !keep.as(r) {
				continue
			}
			t.Run(r.name+"/"+keep.name, func(t *testing.T) {
				tbl := keep.make(t, r, list)
				for _, a := range r.answers {
					kindAnswer(t, tbl, r.service, a, kindOf(r) == conf.Map)
				}
			})
		}
	}
}

func kindAnswer(t *testing.T, tbl table.Table, s table.Service, answer string, isMap bool) {
	t.Helper()
	key, no := strings.CutPrefix(answer, "!")
	want := ""
	if isMap && !no {
		key, want, _ = strings.Cut(key, "=")
	}
	yes, err := tbl.Match(t.Context(), s, key)
	if err != nil || yes == no {
		t.Errorf("%v %q matches: %v, %v", s, key, yes, err)
	}
	if !isMap {
		return
	}
	value, found, err := tbl.Lookup(t.Context(), s, key)
	if err != nil || found == no || value != want {
		t.Errorf("%v %q is %q, %v, %v; want %q", s, key, value, found, err, want)
	}
}

// TestKindsFetch takes every element of a list from every back end.
func TestKindsFetch(t *testing.T) {
	for _, s := range []table.Service{table.Source, table.RelayHost} {
		row := kindRow{service: s, entries: []string{"192.0.2.1", "[2001:db8::1]", "smtp+tls://mx.example.org"}}
		var list []table.Entry
		for _, k := range row.entries {
			list = append(list, table.Entry{Key: k})
		}
		for _, keep := range keepers {
			tbl := keep.make(t, row, list)
			var got []string
			for range 2 * len(list) {
				v, found, err := tbl.Fetch(t.Context(), s)
				if err != nil || !found {
					t.Fatal(keep.name, found, err)
				}
				got = append(got, v)
			}
			if !slices.Equal(got[:3], got[3:]) {
				t.Errorf("%s: a second round is another: %q", keep.name, got)
			}
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, row.entries) {
				t.Errorf("%s: %q", keep.name, got)
			}
			if _, found, err := keep.make(t, row, nil).Fetch(t.Context(), s); found || err != nil {
				t.Errorf("%s: an empty table gives %v, %v", keep.name, found, err)
			}
		}
	}
}

// TestKindsOfUsers holds that the users of the system look as a userinfo table.
func TestKindsOfUsers(t *testing.T) {
	tbl := table.NewSystem("<getpwnam>", func(_ context.Context, name string) (table.User, bool, error) {
		return table.User{Name: "joe", UID: 1000, GID: 100, Home: "/home/joe"}, name == "joe", nil
	})
	for _, a := range []string{"joe=1000:100:/home/joe", "!jill"} {
		kindAnswer(t, tbl, table.UserInfo, a, true)
	}
}

func keepFile(t *testing.T, r kindRow, list []table.Entry) table.Table {
	var b strings.Builder
	if kindOf(r) == conf.List {
		b.WriteString("# @list\n")
	}
	for _, e := range list {
		b.WriteString("  " + e.Key)
		if e.Value != "" {
			b.WriteString(" \t " + e.Value)
		}
		b.WriteString(" \n# comment\n\n")
	}
	path := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	tbl, err := table.NewFile("t", path, open(t, path), "+")
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

func keepDB(t *testing.T, r kindRow, list []table.Entry) table.Table {
	kind := mapdb.Plain
	if kindOf(r) == conf.List {
		kind = mapdb.Set
	}
	var entries []mapdb.Entry
	for i, e := range list {
		entries = append(entries, mapdb.Entry{Key: []byte(e.Key), Value: []byte(e.Value), Line: i + 1})
	}
	path := filepath.Join(t.TempDir(), "table.db")
	if err := mapdb.Write(path, kind, entries, mapdb.Owner{Mode: 0o600, UID: -1, GID: -1}); err != nil {
		t.Fatal(err)
	}
	tbl, err := table.NewDB("t", path, open(t, path), "+")
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

func open(t *testing.T, path string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// keep has a program serve a table, by the protocol.
func keep(t *testing.T, p tableprog.Table) table.Table {
	ours, theirs := net.Pipe()
	c := program.New(program.Options{Name: "t", Clock: clock.NewSystem(), Log: mlog.New(nil, false)})
	c.Use(ours)
	done := make(chan error)
	var services []tableprog.Service
	for s := table.Alias; s <= table.Auth; s++ {
		services = append(services, tableprog.Service(s.String()))
	}
	go func() { done <- tableprog.Serve(context.Background(), theirs, theirs, p, services...) }()
	t.Cleanup(func() {
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		theirs.Close()
	})
	return c.Table("+")
}

// rows is a program as those are that ask a database: a key is there, or is not.
type rows struct {
	of      map[string]string
	order   []string
	regex   bool
	fetched int
}

func keepRows(t *testing.T, r kindRow, list []table.Entry) table.Table {
	p := &rows{of: make(map[string]string), regex: r.service == table.Regex}
	for _, e := range list {
		key := e.Key
		switch r.service {
		case table.Auth:
		case table.NetAddr, table.AddrName:
			key = canonical(key)
		default:
			key = strings.ToLower(key)
		}
		if e.Value == "" {
			e.Value = e.Key
		}
		p.of[key] = e.Value
		p.order = append(p.order, e.Key)
	}
	return keep(t, p)
}

// canonical is how Networks writes what its author may have written otherwise.
func canonical(key string) string {
	p, zone, err := conf.ParseNet(key)
	if err != nil || zone != "" {
		return strings.ToLower(key)
	}
	switch {
	case p.Addr().Is4() && !p.IsSingleIP():
		return p.String()
	case p.IsSingleIP():
		return table.AddrKey(p.Addr())
	}
	return "[" + p.String() + "]"
}

func (p *rows) Lookup(_ context.Context, s tableprog.Service, key string) (string, bool, error) {
	for _, k := range tableprog.Keys(s, key) {
		if v, ok := p.of[k]; ok {
			return v, true, nil
		}
	}
	for k, v := range p.of {
		if p.regex && regexp.MustCompile(k).MatchString(key) {
			return v, true, nil
		}
	}
	return "", false, nil
}

func (p *rows) Check(ctx context.Context, s tableprog.Service, key string) (bool, error) {
	_, found, err := p.Lookup(ctx, s, key)
	return found, err
}

func (p *rows) Fetch(context.Context, tableprog.Service) (string, bool, error) {
	if len(p.order) == 0 {
		return "", false, nil
	}
	v := p.order[p.fetched%len(p.order)]
	p.fetched++
	return v, true, nil
}

// comparing is a program that knows all that smtpd does.
type comparing struct{ table.Table }

func keepComparing(t *testing.T, r kindRow, list []table.Entry) table.Table {
	return keep(t, comparing{table.NewStatic("t", kindOf(r), list, "+")})
}

func (p comparing) service(s tableprog.Service) table.Service {
	for n := table.Alias; n < table.Auth; n++ {
		if n.String() == string(s) {
			return n
		}
	}
	return table.Auth
}

func (p comparing) Lookup(ctx context.Context, s tableprog.Service, key string) (string, bool, error) {
	return p.Table.Lookup(ctx, p.service(s), key)
}

func (p comparing) Check(ctx context.Context, s tableprog.Service, key string) (bool, error) {
	return p.Match(ctx, p.service(s), key)
}

func (p comparing) Fetch(ctx context.Context, s tableprog.Service) (string, bool, error) {
	return p.Table.Fetch(ctx, p.service(s))
}
