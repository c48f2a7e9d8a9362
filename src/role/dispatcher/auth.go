package dispatcher

import (
	"context"

	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/smtp/server"
)

// maxVerifying is how many passwords lookup is asked about at a time. It hashes
// fewer; but those that wait there take the places of other questions, and those
// that wait here nobody's.
const maxVerifying = 16

// Authenticate implements server.Backend.
func (b *backend) Authenticate(ctx context.Context, s *server.Session, user, password string) (bool, *mailerr.Error) {
	select {
	case b.verifying <- struct{}{}:
		defer func() { <-b.verifying }()
	case <-ctx.Done():
		return false, mailerr.Local(ctx.Err())
	}
	m := msg.Authenticate{Gen: s.Listener.Gen, Session: s.ID, Table: s.Listener.AuthTable, User: user, Password: password}
	var got msg.Authenticated
	if err := b.lka.Call(ctx, &m, &got); err != nil {
		return false, mailerr.Local(err)
	}
	return got.OK && got.Err == nil, got.Err
}

// OffersScram implements server.ScramBackend. A table that cannot tell offers
// less.
func (b *backend) OffersScram(ctx context.Context, s *server.Session) bool {
	var got msg.Scrammed
	err := b.lka.Call(ctx, &msg.Scram{Gen: s.Listener.Gen, Table: s.Listener.AuthTable}, &got)
	return err == nil && got.OK
}

// Scram implements server.ScramBackend.
func (b *backend) Scram(ctx context.Context, s *server.Session, first, challenge, final string) (server.Proof, *mailerr.Error) {
	m := msg.Scram{Gen: s.Listener.Gen, Table: s.Listener.AuthTable, First: first, Challenge: challenge, Final: final}
	var got msg.Scrammed
	if err := b.lka.Call(ctx, &m, &got); err != nil {
		return server.Proof{}, mailerr.Local(err)
	}
	return server.Proof{Malformed: got.Malformed, OK: got.OK, User: got.User, Text: got.Text}, got.Err
}

// MaySend implements server.Backend: the addresses of a user are what the table
// maps him to.
func (b *backend) MaySend(ctx context.Context, s *server.Session, from addr.Address) (bool, *mailerr.Error) {
	m := msg.Query{Gen: s.Listener.Gen, Service: uint8(table.MailAddrMap), Table: s.Listener.Senders, Key: s.User}
	var got msg.Answer
	if err := b.lka.Call(ctx, &m, &got); err != nil {
		return false, mailerr.Local(err)
	}
	if got.Err != nil || !got.Found {
		return false, got.Err
	}
	ok, err := table.MatchAddrs(got.Value, from, s.Listener.SubAddrDelim)
	if err != nil {
		b.log.Warnf("warn: smtp: table %s: %s: %v", s.Listener.Senders, s.User, err)
		return false, mailerr.Local(err)
	}
	return ok, nil
}
