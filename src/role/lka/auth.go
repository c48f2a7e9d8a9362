package lka

import (
	"context"
	"errors"
	"fmt"

	"opensmtpd/src/lookup/auth"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// authenticate answers whether a password is a user's. Hashes stay here, and
// those of the system with parent.
func (r *Role) authenticate(ctx context.Context, q proc.Request) {
	var m msg.Authenticate
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	ok, err := r.passwordIs(ctx, &m)
	if err != nil {
		q.Reply(&msg.Authenticated{Err: mailerr.Local(err)})
		return
	}
	q.Reply(&msg.Authenticated{OK: ok})
}

func (r *Role) passwordIs(ctx context.Context, m *msg.Authenticate) (bool, error) {
	if m.Table == "" {
		return r.systemPassword(ctx, m)
	}
	t := r.at(m.Gen).tables[m.Table]
	if t == nil {
		return false, fmt.Errorf("table %s: %w", m.Table, errNoTable)
	}
	ok, err := r.checker.Table(ctx, t, m.User, m.Password)
	if err != nil {
		return false, fmt.Errorf("table %s: %w", m.Table, err)
	}
	return ok, nil
}

// scram answers a message of a client that proves that it knows a password.
func (r *Role) scram(ctx context.Context, q proc.Request) {
	var m msg.Scram
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	reply, err := r.scrammed(ctx, &m)
	switch {
	case errors.Is(err, auth.ErrSyntax):
		reply = msg.Scrammed{Malformed: true}
	case err != nil:
		reply = msg.Scrammed{Err: mailerr.Local(fmt.Errorf("table %s: %w", m.Table, err))}
	}
	q.Reply(&reply)
}

func (r *Role) scrammed(ctx context.Context, m *msg.Scram) (reply msg.Scrammed, err error) {
	t := r.at(m.Gen).tables[m.Table]
	switch {
	case t == nil:
		return reply, errNoTable
	case m.First == "":
		reply.OK = r.checker.Scram(t)
	case m.Final == "":
		reply.User, reply.Text, err = r.checker.ScramFirst(ctx, t, m.First)
	default:
		reply.User, reply.Text, reply.OK, err = r.checker.ScramFinal(ctx, t, m.First, m.Challenge, m.Final)
	}
	return reply, err
}

// systemPassword asks parent, in a place of the checker: parent hashes too.
func (r *Role) systemPassword(ctx context.Context, m *msg.Authenticate) (bool, error) {
	leave, err := r.checker.Enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	var reply msg.Authenticated
	if err := r.parent.Call(ctx, &msg.SystemAuth{User: m.User, Password: m.Password}, &reply); err != nil {
		return false, fmt.Errorf("asking parent: %w", err)
	}
	if reply.Err != nil {
		return false, reply.Err
	}
	return reply.OK, nil
}
