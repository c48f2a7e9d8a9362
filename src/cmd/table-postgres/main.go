// Command table-postgres is a table program of smtpd(8) that looks things up in
// a PostgreSQL database, see table-postgres(5).
package main

import (
	"context"
	"database/sql"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/lookup/tableprog/sqltable"
)

func main() {
	os.Exit(tableprog.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, open))
}

func open(ctx context.Context, _, path string) (tableprog.Table, []tableprog.Service, error) {
	t, err := sqltable.Open(ctx, path, connect, "conninfo")
	return t, sqltable.Services(), err
}

// connections is how many a program has at most; PostgreSQL has a hundred.
const connections = 8

func connect(s *tableprog.Settings) (*sql.DB, error) {
	info, err := s.Need("conninfo")
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(info)
	if err != nil {
		return nil, s.Errorf("conninfo", "%w", err)
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}
