package table_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/check"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/lookup/table"
)

// TestWords looks at the entries of files for every use that some are useless
// for: they are warned of, each with its line.
func TestWords(t *testing.T) {
	dir := t.TempDir()
	const hash = "$6$abcdefgh$" + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwx"
	for name, tc := range map[string]struct {
		text string
		use  func(*conf.Config)
		want []string
	}{
		"alias": {
			"root: joe\nann: joe ann\nbob: \"x\n\nroot: ann # again\nall: #\n", func(c *conf.Config) { c.Actions[0].Alias = "t" },
			[]string{
				`2: alias "ann": "joe ann" is no user, address, file or command`, `3: alias "bob": quote without its fellow`,
				`5: "root" is there twice: the last one counts`, `6: alias "all": no destination`,
			},
		},
		"userbase": {
			"joe 1000:1000\nann 1:1:/ # x\n", func(c *conf.Config) { c.Actions[0].UserBase = "t" },
			[]string{`1: user "joe": "1000:1000" is not uid:gid:home`},
		},
		"credentials": {
			"joe secret\nann " + hash + "\nbob *\neve !" + hash + "\nx y:z\n",
			func(c *conf.Config) { c.Listens[0].Auth, c.Listens[0].AuthTable = conf.AuthRequire, "t" },
			[]string{
				`1: user "joe" cannot authenticate: no password hash of a known scheme`,
				`5: user "x" cannot authenticate: no password hash of a known scheme`,
			},
		},
		"senders": {
			"joe a@b, c@d # x\nann a@b c@d\n",
			func(c *conf.Config) { c.Listens[0].Auth, c.Listens[0].Senders = conf.AuthRequire, "t" },
			[]string{`2: user "ann": not a list of mail addresses`},
		},
		"networks": {
			"# @list\n10/8\n10.0.0.0/255.0.0.0\n300.1.1.1\n", func(c *conf.Config) { c.Matches[0].FromKind, c.Matches[0].From.Table = conf.FromSrc, "t" },
			[]string{`3: "10.0.0.0/255.0.0.0" is not a network: "255.0.0.0" is not a number from 0 to 32`, `4: "300.1.1.1" is not an address or network`},
		},
		"domains": {
			"example.org\njoe@example.org\n", func(c *conf.Config) { c.Matches[0].ForKind, c.Matches[0].For.Table = conf.ForDomain, "t" },
			[]string{`2: "joe@example.org" is not a domain, and matches nothing`},
		},
		"regex": {
			"# @list\n^a(\n[\\]\n", func(c *conf.Config) {
				c.Matches[0].ForKind, c.Matches[0].For = conf.ForDomain, conf.Cond{Table: "t", Regex: true}
			},
			[]string{"2: regular expression \"^a(\": missing closing ): `^a(`"},
		},
		"many": {
			strings.Repeat("joe@example.org\n", 2) + "b@x\nc@x\nd@x\ne@x\nf@x\ng@x\nh@x\ni@x\nj@x\nk@x\nl@x\n",
			func(c *conf.Config) { c.Matches[0].ForKind, c.Matches[0].For.Table = conf.ForDomain, "t" },
			[]string{
				`2: "joe@example.org" is not a domain, and matches nothing`, `3: "b@x" is not a domain, and matches nothing`,
				`4: "c@x" is not a domain, and matches nothing`, `5: "d@x" is not a domain, and matches nothing`,
				`6: "e@x" is not a domain, and matches nothing`, `7: "f@x" is not a domain, and matches nothing`,
				`8: "g@x" is not a domain, and matches nothing`, `9: "h@x" is not a domain, and matches nothing`,
				`10: "i@x" is not a domain, and matches nothing`, `11: "j@x" is not a domain, and matches nothing`, `12: and so on`,
			},
		},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := using("file", path)
		tc.use(cfg)
		if got := warnings(cfg, path); !cmp.Equal(got, tc.want) {
			t.Errorf("%s: %s", name, cmp.Diff(tc.want, got))
		}
	}
}

// TestWordsOfMaps holds that a map, which has no lines, is looked at as well, and
// that what no lookup can read is an error.
func TestWordsOfMaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aliases.db")
	if err := mapdb.Write(path, mapdb.Aliases, []mapdb.Entry{{Key: []byte("root"), Value: []byte("a b")}}, mapdb.Owner{Mode: 0o600, UID: -1, GID: -1}); err != nil {
		t.Fatal(err)
	}
	cfg := using("db", path)
	cfg.Actions[0].Alias = "t"
	if got, want := warnings(cfg, path), []string{`table t: alias "root": "a b" is no user, address, file or command`}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// using returns a configuration with a table of that back end.
func using(backend, path string) *conf.Config {
	node := func(line int) conf.Node { return conf.Node{Pos: conf.Pos{File: "smtpd.conf", Line: line, Col: 1}} }
	return &conf.Config{
		Tables:  []*conf.Table{{Node: node(1), Name: "t", Backend: backend, Config: path}},
		Listens: []*conf.Listen{{Node: node(2), On: "em0"}},
		Actions: []*conf.Action{{Node: node(3), Name: "a", Method: conf.MBOX}},
		Matches: []*conf.Match{{Node: node(4), FromKind: conf.FromAny, ForKind: conf.ForLocal, Action: "a"}},
	}
}

// warnings returns what is said of the entries of a file, with the lines there.
func warnings(cfg *conf.Config, path string) []string {
	values := table.Words(check.Values{})
	values.Entries = table.Entries
	var diags diag.List
	check.Config(cfg, nil, values, &diags)
	var out []string
	for _, d := range diags.Of(diag.Warning) {
		switch {
		case d.Pos.File == path:
			out = append(out, strings.TrimPrefix(strings.TrimSuffix(diags.Format(diag.Diag{Severity: diag.Error, Pos: d.Pos, Message: d.Message}), "\n"), path+":"))
		case strings.HasPrefix(d.Message, "table"):
			out = append(out, d.Message)
		}
	}
	for i := range out {
		out[i] = strings.Replace(out[i], ":1: ", ": ", 1)
	}
	return out
}
