// Package sqltable serves tables from a database that speaks SQL: what is common
// to table-sqlite(5) and table-postgres(5). The configuration has a query for
// each service, with the key as its parameter, as the programs of OpenSMTPD of
// these names have.
package sqltable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/lookup/tableprog"
)

// query is how a service is asked for.
type query struct {
	service tableprog.Service
	columns int
	all     bool // rows are a list, joined with commas
}

// queries are those of query_SERVICE. Never written.
var queries = []query{
	{tableprog.Alias, 1, true},
	{tableprog.Domain, 1, false},
	{tableprog.Credentials, 2, false},
	{tableprog.NetAddr, 1, false},
	{tableprog.UserInfo, 3, false},
	{tableprog.Source, 1, false},
	{tableprog.MailAddr, 1, false},
	{tableprog.AddrName, 1, false},
	{tableprog.MailAddrMap, 1, true},
	{tableprog.RelayHost, 1, false},
	{tableprog.String, 1, false},
}

const (
	fetchSource  = "fetch_source"
	fetchExpire  = "fetch_source_expire"
	fetchRefresh = "fetch_source_refresh"
)

// Services lists what a database can be asked for.
func Services() []tableprog.Service {
	var list []tableprog.Service
	for _, q := range queries {
		list = append(list, q.service)
	}
	return list
}

// Connect opens the database that a configuration names.
type Connect func(*tableprog.Settings) (*sql.DB, error)

// Table is a table in a database. It is a tableprog.Table.
type Table struct {
	path    string
	keys    []string // of the configuration that are the program's own
	connect Connect
	now     func() time.Time

	mu  sync.RWMutex
	cur *database
}

// database is the state after one reading of the configuration.
type database struct {
	db      *sql.DB
	stmts   map[tableprog.Service]*sql.Stmt
	sources *sources // nil without fetch_source
}

// Open reads the configuration file and connects. own are the keys of the
// configuration that connect needs.
func Open(ctx context.Context, path string, connect Connect, own ...string) (*Table, error) {
	t := &Table{path: path, keys: own, connect: connect, now: time.Now}
	if err := t.Update(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Update implements tableprog.Updater: when something is wrong, what was there
// stays.
func (t *Table) Update(ctx context.Context) error {
	known := append([]string{fetchSource, fetchExpire, fetchRefresh}, t.keys...)
	for _, q := range queries {
		known = append(known, "query_"+string(q.service))
	}
	s, err := tableprog.ReadSettings(t.path, known...)
	if err != nil {
		return err
	}
	d, err := t.open(ctx, s)
	if err != nil {
		return err
	}
	t.mu.Lock()
	old := t.cur
	t.cur = d
	t.mu.Unlock()
	if old != nil {
		return old.db.Close()
	}
	return nil
}

// Close lets the database go.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cur.db.Close()
}

func (t *Table) open(ctx context.Context, s *tableprog.Settings) (*database, error) {
	db, err := t.connect(s)
	if err != nil {
		return nil, err
	}
	d := &database{db: db, stmts: make(map[tableprog.Service]*sql.Stmt)}
	if err := d.prepare(ctx, s); err != nil {
		db.Close()
		return nil, err
	}
	return d, nil
}

// prepare has the database look at every query, so that a mistake is found at
// the start.
func (d *database) prepare(ctx context.Context, s *tableprog.Settings) (err error) {
	if err := d.db.PingContext(ctx); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	for _, q := range queries {
		key := "query_" + string(q.service)
		if text := s.Get(key); text != "" {
			if d.stmts[q.service], err = d.db.PrepareContext(ctx, text); err != nil {
				return s.Errorf(key, "%w", err)
			}
		}
	}
	text := s.Get(fetchSource)
	if text == "" {
		return nil
	}
	src := &sources{}
	if src.stmt, err = d.db.PrepareContext(ctx, text); err != nil {
		return s.Errorf(fetchSource, "%w", err)
	}
	expire, err := s.Number(fetchExpire, 60)
	if err != nil {
		return err
	}
	src.expire = time.Duration(expire) * time.Second
	src.refresh, err = s.Number(fetchRefresh, 1000)
	d.sources = src
	return err
}

// Lookup implements tableprog.Table.
func (t *Table) Lookup(ctx context.Context, s tableprog.Service, key string) (string, bool, error) {
	for _, q := range queries {
		if q.service == s {
			return t.ask(ctx, q, key)
		}
	}
	return "", false, fmt.Errorf("%s is not served by a database", s)
}

func (t *Table) ask(ctx context.Context, q query, key string) (string, bool, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	stmt := t.cur.stmts[q.service]
	if stmt == nil {
		return "", false, fmt.Errorf("query_%s is not in %s", q.service, t.path)
	}
	for _, k := range tableprog.Keys(q.service, key) {
		rows, err := rowsOf(ctx, stmt, k)
		if err != nil {
			return "", false, fmt.Errorf("query_%s: %w", q.service, err)
		}
		if len(rows) > 0 {
			value, err := q.value(rows)
			return value, err == nil, err
		}
	}
	return "", false, nil
}

// value makes the answer of what a query found.
func (q query) value(rows [][]string) (string, error) {
	var list []string
	for _, row := range rows {
		if len(row) < q.columns {
			return "", fmt.Errorf("query_%s: %d columns, %d are needed", q.service, len(row), q.columns)
		}
		list = append(list, strings.Join(row[:q.columns], ":"))
	}
	if q.all {
		return strings.Join(list, ", "), nil
	}
	return list[0], nil
}

// rowsOf returns what a query finds; NULL is "".
func rowsOf(ctx context.Context, stmt *sql.Stmt, args ...any) (list [][]string, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		cells := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]string, len(columns))
		for i, c := range cells {
			row[i] = c.String
		}
		list = append(list, row)
	}
	return list, rows.Err()
}
