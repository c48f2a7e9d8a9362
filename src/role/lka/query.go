package lka

import (
	"context"
	"errors"
	"fmt"

	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

var (
	errNoTable = errors.New("no such table")
	errSecret  = errors.New("passwords are not told")
)

// query answers dispatcher about a table: conditions of filters, names of
// listeners, addresses that a user may send as.
func (r *Role) query(ctx context.Context, q proc.Request) {
	var m msg.Query
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	reply, err := r.tableAnswer(ctx, &m)
	if err != nil {
		q.Reply(&msg.Answer{Err: mailerr.Local(fmt.Errorf("table %s: %w", m.Table, err))})
		return
	}
	q.Reply(reply)
}

func (r *Role) tableAnswer(ctx context.Context, m *msg.Query) (*msg.Answer, error) {
	g := r.at(m.Gen)
	t := g.tables[m.Table]
	service := table.Service(m.Service)
	switch {
	case t == nil:
		return nil, errNoTable
	case service == table.Credentials, service == table.Auth, g.secret[m.Table] && !m.Match:
		return nil, errSecret
	}
	var reply msg.Answer
	var err error
	if m.Match {
		reply.Found, err = t.Match(ctx, service, m.Key)
		if service == table.String && errors.Is(err, table.ErrService) {
			// A table program may know users by their passwords alone.
			reply.Found, err = t.Match(ctx, table.Credentials, m.Key)
		}
	} else {
		reply.Value, reply.Found, err = t.Lookup(ctx, service, m.Key)
	}
	return &reply, err
}
