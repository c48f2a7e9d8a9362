package sqltable

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver registers itself by its name

	"opensmtpd/src/lookup/tableprog"
)

// open makes a table of a new database, which schema fills, and a configuration.
func open(t *testing.T, schema, conf string) (*Table, *sql.DB) {
	t.Helper()
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	exec(t, db, schema)
	path := filepath.Join(dir, "conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	connect := func(*tableprog.Settings) (*sql.DB, error) { return sql.Open("sqlite", filepath.Join(dir, "db")) }
	tbl, err := Open(t.Context(), path, connect)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tbl.Close() })
	return tbl, db
}

func exec(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
}

// TestSources holds that sources are asked for again after some time or some
// number of fetches, and that those there are take turns.
func TestSources(t *testing.T) {
	tbl, db := open(t, "CREATE TABLE s (a TEXT); INSERT INTO s VALUES ('192.0.2.1'), ('192.0.2.2')", `
fetch_source SELECT a FROM s ORDER BY a
fetch_source_expire 60
fetch_source_refresh 3
`)
	now := time.Unix(1_700_000_000, 0)
	tbl.now = func() time.Time { return now }
	fetch := func(want string) {
		t.Helper()
		got, found, err := tbl.Fetch(t.Context(), tableprog.Source)
		if got != want || found != (want != "") || err != nil {
			t.Errorf("%q, %v, %v, want %q", got, found, err, want)
		}
	}
	fetch("192.0.2.1")
	exec(t, db, "DELETE FROM s; INSERT INTO s VALUES ('192.0.2.9')")
	fetch("192.0.2.2")
	fetch("192.0.2.1")
	fetch("192.0.2.9") // the fourth
	exec(t, db, "DELETE FROM s")
	now = now.Add(59 * time.Second)
	fetch("192.0.2.9")
	now = now.Add(time.Second)
	fetch("")
	if _, _, err := tbl.Fetch(t.Context(), tableprog.Domain); err == nil {
		t.Error("domains are fetched")
	}
}

// TestValue holds what becomes of rows: the columns that a service needs, all
// rows only where a list is wanted, and NULL, which is nothing.
func TestValue(t *testing.T) {
	tbl, _ := open(t, "CREATE TABLE u (k TEXT, a TEXT, b TEXT, c TEXT); INSERT INTO u VALUES ('joe', '1', '2', '/h'), ('joe', '3', NULL, '/i')", `
query_alias SELECT a FROM u WHERE k = ?
query_userinfo SELECT a, b, c, k FROM u WHERE k = ?
query_credentials SELECT a FROM u WHERE k = ?
query_string SELECT b FROM u WHERE k = ? AND b IS NULL
`)
	for _, tc := range []struct {
		service    tableprog.Service
		key, value string
		found      bool
		err        string
	}{
		{tableprog.Alias, "joe", "1, 3", true, ""},
		{tableprog.Alias, "jack", "", false, ""},
		{tableprog.UserInfo, "joe", "1:2:/h", true, ""},
		{tableprog.Credentials, "joe", "", false, "query_credentials: 1 columns, 2 are needed"},
		{tableprog.String, "joe", "", true, ""},
		{tableprog.Domain, "joe", "", false, "query_domain is not in "},
		{tableprog.Auth, "joe", "", false, "auth is not served by a database"},
	} {
		value, found, err := tbl.Lookup(t.Context(), tc.service, tc.key)
		if value != tc.value || found != tc.found || (tc.err == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%s %s: %q, %v, %v", tc.service, tc.key, value, found, err)
		}
	}
}
