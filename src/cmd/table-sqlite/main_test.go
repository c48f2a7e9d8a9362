package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/lookup/tableprog/sqltable"
)

const schema = `
CREATE TABLE virtuals (email TEXT, destination TEXT);
INSERT INTO virtuals VALUES ('list@example.org', 'joe@example.org'), ('list@example.org', 'jack'), ('joe@example.org', 'vmail'), ('null@example.org', NULL);
CREATE TABLE users (email TEXT, password TEXT, uid INTEGER, gid INTEGER, home TEXT);
INSERT INTO users VALUES ('joe@example.org', '$2b$10$AbC', 2000, 2001, '/var/vmail/joe');
CREATE TABLE nets (net TEXT, name TEXT);
INSERT INTO nets VALUES ('192.0.2.1', 'mx.example.org'), ('10.0.0.0/8', 'ten'), ('[2001:db8::/32]', 'doc');
`

const config = `# as that of OpenSMTPD's table-sqlite
dbpath	DB
query_alias		SELECT destination FROM virtuals WHERE email=?;
query_credentials: SELECT email, password FROM users WHERE email=?;
query_userinfo : SELECT uid, gid, home FROM users WHERE email=?
query_domain SELECT 'example.org' WHERE ? = 'example.org';
query_netaddr SELECT net FROM nets WHERE net = ?;
query_addrname SELECT name FROM nets WHERE net = ?;
query_mailaddr SELECT net FROM no_such WHERE net = ?;
fetch_source SELECT net FROM nets WHERE name = 'mx.example.org' OR name = 'ten' ORDER BY net;
`

// files makes a database and a configuration.
func files(t *testing.T, config string) (db, conf string) {
	t.Helper()
	dir := t.TempDir()
	db, conf = filepath.Join(dir, "a b?.sqlite"), filepath.Join(dir, "sqlite.conf")
	if err := os.WriteFile(db, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, conf, strings.Replace(config, "DB", db, 1))
	s, err := tableprog.ReadSettings(conf, "dbpath")
	if err != nil {
		write(t, conf+".db", "dbpath "+db+"\n")
		if s, err = tableprog.ReadSettings(conf+".db", "dbpath"); err != nil {
			t.Fatal(err)
		}
	}
	h, err := connect(s)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	exec(t, h, schema)
	return db, conf
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, h *sql.DB, text string) {
	t.Helper()
	if _, err := h.Exec(text); err != nil {
		t.Fatal(err)
	}
}

func TestLookups(t *testing.T) {
	_, conf := files(t, strings.Replace(config, "query_mailaddr SELECT net FROM no_such WHERE net = ?;\n", "", 1))
	tbl, _, err := open(t.Context(), "t", conf)
	if err != nil {
		t.Fatal(err)
	}
	defer tbl.(*sqltable.Table).Close()
	for _, tc := range []struct {
		service    tableprog.Service
		key, value string
		err        string
	}{
		{tableprog.Alias, "list@example.org", "joe@example.org, jack", ""},
		{tableprog.Alias, "nobody@example.org", "", ""},
		{tableprog.Alias, "x' OR '1'='1", "", ""},
		{tableprog.Credentials, "joe@example.org", "joe@example.org:$2b$10$AbC", ""},
		{tableprog.UserInfo, "joe@example.org", "2000:2001:/var/vmail/joe", ""},
		{tableprog.Domain, "example.org", "example.org", ""},
		{tableprog.Domain, "example.net", "", ""},
		{tableprog.NetAddr, "10.1.2.3", "10.0.0.0/8", ""},
		{tableprog.NetAddr, "[2001:db8::1]", "[2001:db8::/32]", ""},
		{tableprog.NetAddr, "11.1.2.3", "", ""},
		{tableprog.AddrName, "192.0.2.1", "mx.example.org", ""},
		{tableprog.MailAddr, "x", "", "query_mailaddr is not in " + conf},
		{tableprog.Regex, "x", "", "regex is not served by a database"},
	} {
		value, found, err := tbl.Lookup(t.Context(), tc.service, tc.key)
		if value != tc.value || found != (tc.value != "") || (tc.err == "") != (err == nil) || err != nil && err.Error() != tc.err {
			t.Errorf("%s %s: %q, %v, %v", tc.service, tc.key, value, found, err)
		}
	}
	f := tbl.(tableprog.Fetcher)
	var got []string
	for range 3 {
		v, _, err := f.Fetch(t.Context(), tableprog.Source)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if fmt.Sprint(got) != "[10.0.0.0/8 192.0.2.1 10.0.0.0/8]" {
		t.Errorf("fetched %q", got)
	}
}

func TestBadConfiguration(t *testing.T) {
	db, conf := files(t, config)
	for text, want := range map[string]string{
		"":                           "dbpath is missing",
		"dbpath":                     ":1: dbpath has no value",
		"dbpath a\ndbpath b":         ":2: dbpath is there already, in line 1",
		"dbpath " + db + "\nquery x": `:2: "query" is not known; there are`,
		"dbpath " + db + ".none":     "connecting: ",
		"dbpath " + db + "\n\nquery_alias SELEC ?":                           `:3: query_alias: `,
		"dbpath " + db + "\nfetch_source SELECT 1\nfetch_source_expire soon": `:3: fetch_source_expire: "soon" is not a number`,
		strings.Replace(config, "DB", db, 1):                                 "no_such",
	} {
		write(t, conf, text)
		if _, _, err := open(t.Context(), "t", conf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestUpdate holds that a bad new configuration changes nothing, and that a good
// one is in use at once.
func TestUpdate(t *testing.T) {
	db, conf := files(t, "dbpath DB\nquery_alias SELECT destination FROM virtuals WHERE email=?\n")
	var out, errs bytes.Buffer
	in := "config|ready\ntable|0.1|1|t|lookup|alias|1|joe@example.org\n"
	if st := tableprog.Main(context.Background(), []string{"t", conf}, strings.NewReader(in), &out, &errs, open); st != 0 ||
		!strings.HasSuffix(out.String(), "register|ready\nlookup-result|1|found|vmail\n") && !strings.Contains(out.String(), "context canceled") {
		t.Errorf("%d, %q, %q", st, out.String(), errs.String())
	}
	tbl, _, err := open(t.Context(), "t", conf)
	if err != nil {
		t.Fatal(err)
	}
	defer tbl.(*sqltable.Table).Close()
	look := func(want string) {
		t.Helper()
		if v, _, err := tbl.Lookup(t.Context(), tableprog.Alias, "joe@example.org"); v != want || err != nil {
			t.Errorf("%q, %v; want %q", v, err, want)
		}
	}
	write(t, conf, "nonsense")
	if tbl.(tableprog.Updater).Update(t.Context()) == nil {
		t.Error("nonsense is taken")
	}
	look("vmail")
	write(t, conf, "dbpath "+db+"\nquery_alias SELECT 'new' WHERE ? <> ''\n")
	if err := tbl.(tableprog.Updater).Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("new")
	if st := tableprog.Main(context.Background(), []string{"t"}, nil, &out, &errs, open); st != 1 {
		t.Error("no configuration is no error")
	}
}
