package sqltable

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"opensmtpd/src/lookup/tableprog"
)

// sources is what fetch_source found, which is used for some time and some
// number of fetches.
type sources struct {
	stmt    *sql.Stmt
	expire  time.Duration
	refresh int

	mu    sync.Mutex
	list  []string
	next  int
	calls int
	since time.Time
}

// Fetch implements tableprog.Fetcher.
func (t *Table) Fetch(ctx context.Context, s tableprog.Service) (string, bool, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	src := t.cur.sources
	if s != tableprog.Source || src == nil {
		return "", false, errors.New("there is no " + fetchSource + " in " + t.path)
	}
	return src.fetch(ctx, t.now())
}

func (s *sources) fetch(ctx context.Context, now time.Time) (string, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || s.calls >= s.refresh || now.Sub(s.since) >= s.expire {
		rows, err := rowsOf(ctx, s.stmt)
		if err != nil {
			return "", false, err
		}
		s.list = s.list[:0]
		for _, row := range rows {
			s.list = append(s.list, row[0])
		}
		s.calls, s.since = 0, now
	}
	if len(s.list) == 0 {
		return "", false, nil
	}
	s.calls++
	s.next++
	return s.list[(s.next-1)%len(s.list)], true, nil
}
