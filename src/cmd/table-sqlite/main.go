// Command table-sqlite is a table program of smtpd(8) that looks things up in an
// SQLite database, see table-sqlite(5).
package main

import (
	"context"
	"database/sql"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the driver registers itself by its name

	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/lookup/tableprog/sqltable"
)

func main() {
	os.Exit(tableprog.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, open))
}

func open(ctx context.Context, _, path string) (tableprog.Table, []tableprog.Service, error) {
	t, err := sqltable.Open(ctx, path, connect, "dbpath")
	return t, sqltable.Services(), err
}

// connect opens a database that exists. Somebody who writes is waited for.
func connect(s *tableprog.Settings) (*sql.DB, error) {
	path, err := s.Need("dbpath")
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "mode=rw&_pragma=busy_timeout(5000)"}
	return sql.Open("sqlite", u.String())
}
