package table

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/mail/addr"
)

// list and fileList make the same table through two back ends.
func list(keys ...string) *Static {
	var entries []Entry
	for _, k := range keys {
		entries = append(entries, Entry{Key: k})
	}
	return NewStatic("t", conf.List, entries, "+")
}

func writeFile(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "table"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func fileTable(t *testing.T, text string) *Static {
	t.Helper()
	tbl, err := NewFile("t", "/etc/t", writeFile(t, text), "+")
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		service Service
		entries string
		yes, no string
	}{
		{String, "Abc def", "abc ABC aBc def", "ab abcd *"},
		{Alias, "a*", "a* A*", "ab"},
		{Domain, "example.org", "example.org EXAMPLE.org", "a.example.org example.orgx"},
		{Domain, "bücher.example", "bücher.example xn--bcher-kva.example XN--bcher-kva.EXAMPLE", "bucher.example"},
		{Domain, "xn--bcher-kva.example", "bücher.example xn--bcher-kva.example", "xn--bcher-kvb.example"},
		{Domain, "bücher.österreich.example xn--bcher-kva.xn--sterreich-z7a.example", "bücher.xn--sterreich-z7a.example xn--bcher-kva.österreich.example", "bucher.example"},
		{Domain, "*.bücher.example", "a.xn--bcher-kva.example", "bücher.example"},
		{MailAddr, "@bücher.example", "a@bücher.example a@xn--bcher-kva.example", "a@bucher.example"},
		{MailAddr, "ü@xn--bcher-kva.example", "ü@bücher.example", "u@bücher.example"},
		{Domain, "*.example.org", "a.example.org a.b.EXAMPLE.org", "example.org aexample.org"},
		{Domain, "*.Example", "a.b.example .example", "example"},
		{Domain, "*example.org *.net", "badexample.org x.net", "example.com net"},
		{Domain, "mail*.*.org m?x", "mail.a.org mail7.b.a.org m?x", "mail.org max"},
		{Domain, "*", "x x.y", ""},
		{Domain, "[192.0.2.1]", "[192.0.2.1]", "192.0.2.1"},
		{MailAddr, "user", "user@a user+x@b USER@c user", "user2@a xuser@a"},
		{MailAddr, "user+tag", "user+tag@a", "user@a user+other@a"},
		{MailAddr, "@dom.org", "a@dom.org b+c@DOM.org", "a@b.dom.org dom.org"},
		{MailAddr, "user@dom.org", "user@dom.org user+t@dom.org User@Dom.Org", "a@dom.org user@org"},
		{MailAddr, "user+t@dom.org", "user+t@dom.org", "user@dom.org user+u@dom.org"},
		{MailAddr, "user@*.dom.org", "user@a.dom.org user+t@b.c.dom.org", "user@dom.org x@a.dom.org"},
		{MailAddr, "@*.dom.org", "a@b.dom.org", "a@dom.org"},
		{MailAddr, "@a*b*c u@x*y", "q@abc q@a1b2c u@xy u+t@xzy", "q@ab v@xy"},
		{MailAddr, "@", "a@b @ x", ""},
		{MailAddr, "@* user", "a@b", "@"},
		{MailAddr, "*@dom.org us*", "*@dom.org us*@x", "a@dom.org user@x"},
		{NetAddr, "192.168.1.1", "192.168.1.1 [::ffff:192.168.1.1]", "192.168.1.2 local"},
		{NetAddr, "192.168.0.0/16 10/8 172.16", "192.168.9.9 10.255.0.1 172.16.3.4", "192.169.0.1 11.0.0.1 172.17.0.1"},
		{NetAddr, "192.168.1.77/24", "192.168.1.1", "192.168.2.1"},
		{NetAddr, "[2001:db8::]/32", "[2001:db8::1] [2001:db8:ffff::2]", "[2001:db9::1] 1.2.3.4"},
		{NetAddr, "[2001:db8::/32]", "[2001:db8::1]", "[2001:db9::1]"},
		{NetAddr, "2001:db8::/32 ::1 IPv6:fe80::/10 [IPv6:fd00::]/8", "[2001:db8::1] [::1] [fe80::1%eth0] [fd01::1]", "[::2] [fec0::1]"},
		{NetAddr, "[fe80::1%eth0]", "[fe80::1%eth0]", "[fe80::1%eth1] [fe80::1]"},
		{NetAddr, "0.0.0.0/0", "1.2.3.4", "[::1] local"},
		{NetAddr, "::/0", "[::1]", "1.2.3.4"},
		{NetAddr, "::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"},
		{NetAddr, "local 1.2.3.4/33 x/8 1.2.3.4/-1 1.2.3.4/+8", "local", "1.2.3.4 0.0.0.0"},
		{Regex, `^a.*z$ [.]example[.]org$`, "abz AZ mail.Example.ORG", "ab mail.example.orgx"},
		{Regex, `(?i)^X ^@$`, "xyz @", "yx a@"},
		{Regex, `^[a\.]+$ \<word\>`, `a\. word`, "b awords"},
		{Regex, `^[]x]+$ ^[^]y]q$ ^[[:digit:]]+$ a{,2}b$`, "x] aq 123 aab b", "yy ]qq"},
		{Regex, `(unclosed ok`, "ok", "(unclosed"},
	} {
		keys := strings.Fields(tc.entries)
		for name, tbl := range map[string]Table{
			"static": list(keys...),
			"file":   fileTable(t, "# @list\n"+strings.Join(keys, "\n")),
		} {
			for _, key := range strings.Fields(tc.yes) {
				if got, err := tbl.Match(context.Background(), tc.service, key); !got || err != nil {
					t.Errorf("%s, %v in {%s}: %q does not match (%v)", name, tc.service, tc.entries, key, err)
				}
			}
			no := strings.Fields(tc.no)
			if tc.service != MailAddr { // where it would be the null sender
				no = append(no, "")
			}
			for _, key := range no {
				if got, err := tbl.Match(context.Background(), tc.service, key); got || err != nil {
					t.Errorf("%s, %v in {%s}: %q matches (%v)", name, tc.service, tc.entries, key, err)
				}
			}
		}
	}
}

// Lookups prefer the exact to the general, whatever the order.
func TestLookupOrder(t *testing.T) {
	tbl := NewStatic("t", conf.Map, []Entry{
		{"*", "all"}, {"*.org", "org"}, {"*.example.org", "sub"}, {"example.org", "it"},
		{"@", "catch-all"}, {"@*.org", "@org"}, {"@example.org", "@domain"}, {"user", "anywhere"},
		{"user@example.org", "mailbox"}, {"user+tag@example.org", "tagged"}, {"user@*.net", "net"},
		{"0.0.0.0/0", "v4"}, {"10.0.0.0/8", "ten"}, {"10.1.0.0/16", "ten one"}, {"10.1.1.1", "host"}, {"[::1]", "localhost"},
	}, "+")
	for _, tc := range []struct {
		service   Service
		key, want string
	}{
		{Domain, "example.org", "it"}, {Domain, "a.example.org", "sub"}, {Domain, "a.org", "org"}, {Domain, "a.com", "all"},
		{MailAddr, "user+tag@example.org", "tagged"}, {MailAddr, "user+x@example.org", "mailbox"},
		{MailAddr, "user@a.net", "net"}, {MailAddr, "user@a.com", "anywhere"}, {MailAddr, "x@example.org", "@domain"},
		{MailAddr, "x@y.org", "@org"}, {MailAddr, "x@y", "catch-all"},
		{NetAddr, "10.1.1.1", "host"}, {NetAddr, "10.1.2.1", "ten one"}, {NetAddr, "10.2.2.1", "ten"}, {NetAddr, "1.1.1.1", "v4"},
		{AddrName, "[::1]", "localhost"}, {AddrName, "::1", "localhost"}, {AddrName, "[0:0::1]", "localhost"},
	} {
		got, found, err := tbl.Lookup(context.Background(), tc.service, tc.key)
		if got != tc.want || !found || err != nil {
			t.Errorf("%v %s = %q, %v, %v; want %q", tc.service, tc.key, got, found, err, tc.want)
		}
	}
}

func TestFile(t *testing.T) {
	type pair struct{ k, v string }
	for _, tc := range []struct {
		name, text string
		kind       conf.Kind
		want       []pair
	}{
		{"empty", "", conf.Map, nil},
		{"blank", "\n \t\n#c\n", conf.Map, nil},
		{"list", "a\n  b \r\n\nc", conf.List, []pair{{"a", ""}, {"b", ""}, {"c", ""}}},
		{"list keeps the line", "a\nb c: d\n", conf.List, []pair{{"a", ""}, {"b c: d", ""}}},
		{"list comments", "a # one\n#two\nb#c\n c\t# d", conf.List, []pair{{"a", ""}, {"b#c", ""}, {"c", ""}}},
		{"forced list", "#  @list\nsmtp://host:25\n", conf.List, []pair{{"smtp://host:25", ""}}},
		{"urls are a map", "smtp://host\n", conf.Map, []pair{{"smtp", "//host"}}},
		{"too late to force", "a b\n# @list\nc d", conf.Map, []pair{{"a", "b"}, {"c", "d"}}},
		{"map", "a: b\nc\td e \nf :g\nh : i\nj:k", conf.Map, []pair{{"a", "b"}, {"c", "d e"}, {"f", ":g"}, {"h", "i"}, {"j", "k"}}},
		{"include", "l :include:/x\nm:include:/y\n", conf.Map, []pair{{"l", ":include:/x"}, {"m", "include:/y"}}},
		{"brackets", "[::1] localhost\n[2001:db8::/32]: x\n", conf.Map, []pair{{"[::1]", "localhost"}, {"[2001:db8::/32]", "x"}}},
		{"bracket list", "[::1]\n[2001:db8::]/32\n", conf.List, []pair{{"[::1]", ""}, {"[2001:db8::]/32", ""}}},
		{"bracket list, length first", "[2001:db8::]/32\n[::1]\n", conf.List, []pair{{"[2001:db8::]/32", ""}, {"[::1]", ""}}},
		{"bracket map, length behind", "[2001:db8::]/32 x\n[::]/0: y\n", conf.Map, []pair{{"[2001:db8::]/32", "x"}, {"[::]/0", "y"}}},
		{"second column is for the aliases parser", "a: b # c\n", conf.Map, []pair{{"a", "b # c"}}},
		{"continued", "a: b, \\\n   c, \\\n  d\ne f\n", conf.Map, []pair{{"a", "b, c, d"}, {"e", "f"}}},
		{"continued at the end", "a: b\\", conf.Map, []pair{{"a", "b\\"}}},
		{"comment is not continued", "# a \\\nb c\n", conf.Map, []pair{{"b", "c"}}},
		{"last of two counts", "a b\nc d\nA e\n", conf.Map, []pair{{"A", "e"}, {"c", "d"}}},
	} {
		tbl := fileTable(t, tc.text)
		var got []pair
		for _, k := range tbl.Keys() {
			v, _, _ := tbl.Lookup(context.Background(), Alias, k)
			got = append(got, pair{k, v})
		}
		if !slices.Equal(got, tc.want) || tbl.Kind() != tc.kind {
			t.Errorf("%s: %q of kind %v, want %q of %v", tc.name, got, tbl.Kind(), tc.want, tc.kind)
		}
	}
}

// A comment behind a value in a file is none of it, unless it may be meant.
func TestCommentBehindValue(t *testing.T) {
	tbl := fileTable(t, "joe 1:1:/joe # Joe\nx y#z\n")
	for service, want := range map[Service]string{
		UserInfo: "1:1:/joe", MailAddrMap: "1:1:/joe", Credentials: "1:1:/joe # Joe", Alias: "1:1:/joe # Joe",
	} {
		if got, _, _ := tbl.Lookup(context.Background(), service, "joe"); got != want {
			t.Errorf("%v: %q, want %q", service, got, want)
		}
	}
	if got, _, _ := tbl.Lookup(context.Background(), RelayHost, "x"); got != "y#z" {
		t.Errorf("a '#' without a blank: %q", got)
	}
}

func TestBadFile(t *testing.T) {
	for text, want := range map[string]string{
		"a b\nc\n":         "/etc/t:2: invalid map entry",
		"\n#x\na:\n":       "/etc/t:3: invalid map entry",
		"a b\n\n[::1 c\n":  "/etc/t:3: '[' without ']'",
		"a b\nc\x00d e\n":  "/etc/t:2: NUL byte",
		"a b\\\nc\nd\ne\n": "/etc/t:3: invalid map entry",
	} {
		if _, err := NewFile("t", "/etc/t", writeFile(t, text), "+"); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := NewFile("t", "/etc/t", dir, "+"); err == nil {
		t.Error("a directory is a table")
	}
}

func TestUpdateKeepsOldContent(t *testing.T) {
	tbl := fileTable(t, "a 1\nb 2\n")
	var line *LineError
	if err := tbl.Update(writeFile(t, "a 3\nb\n")); !errors.As(err, &line) || line.Line != 2 {
		t.Errorf("Update with a bad file: %v", err)
	}
	if v, _, _ := tbl.Lookup(context.Background(), Alias, "a"); v != "1" {
		t.Errorf("a = %q after a failed update", v)
	}
	f := writeFile(t, "a 4\n")
	for range 2 { // the same descriptor may be read again
		if err := tbl.Update(f); err != nil {
			t.Fatal(err)
		}
	}
	if v, _, _ := tbl.Lookup(context.Background(), Alias, "a"); v != "4" || tbl.Len() != 1 {
		t.Errorf("a = %q, %d entries after the update", v, tbl.Len())
	}
}

func TestCheck(t *testing.T) {
	nets := fileTable(t, "# @list\n1.2.3.4\nnonsense\nlocal\n[fe80::1%lo]\n1.2.3.4/40\n")
	bad := nets.Check(NetAddr)
	if len(bad) != 2 || bad[0].Error() != `3: "nonsense": not an address or network` || bad[1].Line != 6 {
		t.Errorf("Check(NetAddr) = %v", bad)
	}
	if bad := list("ok", "(").Check(Regex); len(bad) != 1 || bad[0].Line != 0 || !strings.HasPrefix(bad[0].Error(), `"(": error parsing regexp`) {
		t.Errorf("Check(Regex) = %v", bad)
	}
	users := NewStatic("t", conf.Map, []Entry{{"a", "1:2:/a"}, {"b", "1:2"}, {"c", "1:2:c"}, {"d", "-1:2:/d"}, {"e", "1:x:/"}}, "+")
	if bad := users.Check(UserInfo); len(bad) != 4 {
		t.Errorf("Check(UserInfo) = %v", bad)
	}
	if bad := users.Check(Alias); bad != nil {
		t.Errorf("Check(Alias) = %v", bad)
	}
}

func TestFetch(t *testing.T) {
	tbl := list("10.0.0.2", "10.0.0.1")
	var got []string
	for range 5 {
		v, found, err := tbl.Fetch(context.Background(), Source)
		if !found || err != nil {
			t.Fatal(found, err)
		}
		got = append(got, v)
	}
	if strings.Join(got, " ") != "10.0.0.2 10.0.0.1 10.0.0.2 10.0.0.1 10.0.0.2" {
		t.Errorf("fetched %v", got)
	}
	if _, found, err := list().Fetch(context.Background(), Source); found || err != nil {
		t.Errorf("an empty table gives %v, %v", found, err)
	}
}

func TestSystem(t *testing.T) {
	trouble := errors.New("getent died")
	tbl := NewSystem("<getpwnam>", func(_ context.Context, name string) (User, bool, error) {
		switch name {
		case "eve":
			return User{"eve", 1000, 100, "/home/eve"}, true, nil
		case "broken":
			return User{}, false, trouble
		}
		return User{}, false, nil
	})
	v, found, err := tbl.Lookup(context.Background(), UserInfo, "eve")
	if err != nil || !found || v != "1000:100:/home/eve" {
		t.Errorf("eve = %q, %v, %v", v, found, err)
	}
	if u, err := ParseUser("eve", v); err != nil || u != (User{"eve", 1000, 100, "/home/eve"}) {
		t.Errorf("ParseUser = %v, %v", u, err)
	}
	if yes, err := tbl.Match(context.Background(), UserInfo, "nobody"); yes || err != nil {
		t.Errorf("nobody: %v, %v", yes, err)
	}
	if _, err := tbl.Match(context.Background(), UserInfo, "broken"); !errors.Is(err, trouble) {
		t.Errorf("broken: %v", err)
	}
	if _, _, err := tbl.Lookup(context.Background(), Alias, "eve"); !errors.Is(err, ErrService) {
		t.Errorf("alias: %v", err)
	}
	if _, _, err := tbl.Fetch(context.Background(), UserInfo); !errors.Is(err, ErrService) {
		t.Errorf("fetch: %v", err)
	}
}

func TestSecret(t *testing.T) {
	for _, tc := range []struct {
		key, value string
		want       Secret
		ok         bool
	}{
		{"label", "user:pa:ss", Secret{"user", "pa:ss"}, true},
		{"user", "$2b$10$x", Secret{"user", "$2b$10$x"}, true},
		{"l", ":pass", Secret{}, false}, {"l", "user:", Secret{}, false}, {"l", "", Secret{}, false}, {"l", "xx", Secret{}, false},
	} {
		if got, err := ParseSecret(tc.key, tc.value); got != tc.want || (err == nil) != tc.ok {
			t.Errorf("ParseSecret(%q, %q) = %v, %v", tc.key, tc.value, got, err)
		}
	}
}

func TestMatchAddrs(t *testing.T) {
	for _, tc := range []struct {
		value string
		a     addr.Address
		want  bool
	}{
		{"a@b, c@d", addr.Address{Local: "C", Domain: "d"}, true},
		{"a@b,@d", addr.Address{Local: "x", Domain: "d"}, true},
		{"a@b", addr.Address{Local: "x", Domain: "b"}, false},
		{"a@b", addr.Address{}, false},
		{"a@b,,@", addr.Address{}, true},
		{"a@*.b", addr.Address{Local: "a+t", Domain: "c.b"}, true},
		{"", addr.Address{Local: "a", Domain: "b"}, false},
	} {
		if got, err := MatchAddrs(tc.value, tc.a, "+"); got != tc.want || err != nil {
			t.Errorf("MatchAddrs(%q, %v) = %v, %v", tc.value, tc.a, got, err)
		}
	}
	if _, err := MatchAddrs("a b", addr.Address{}, "+"); err == nil {
		t.Error("a blank inside an address passes")
	}
}

func TestAddrKey(t *testing.T) {
	for in, want := range map[string]string{
		"1.2.3.4": "1.2.3.4", "::ffff:1.2.3.4": "1.2.3.4", "::1": "[::1]", "fe80::1%eth0": "[fe80::1%eth0]",
	} {
		if got := AddrKey(netip.MustParseAddr(in)); got != want {
			t.Errorf("AddrKey(%s) = %s, want %s", in, got, want)
		}
	}
	if got := AddrKey(netip.Addr{}); got != "local" {
		t.Errorf("AddrKey of none = %s", got)
	}
}
