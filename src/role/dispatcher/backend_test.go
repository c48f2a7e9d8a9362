package dispatcher

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// silent is a lookup that never answers in time.
type silent struct{}

func (silent) Send(context.Context, msg.Message) error               { return nil }
func (silent) SendFile(context.Context, msg.Message, *os.File) error { return nil }
func (silent) Call(context.Context, msg.Message, msg.Parser) error   { return errors.New("deadline") }
func (silent) CallFile(context.Context, msg.Message, msg.Parser) (*os.File, error) {
	return nil, errors.New("deadline")
}

// discards notes what queue is told to discard.
type discards struct {
	silent
	ids []mail.MessageID
}

func (d *discards) Send(_ context.Context, m msg.Message) error {
	if m, ok := m.(*msg.Discard); ok {
		d.ids = append(d.ids, m.Message)
	}
	return nil
}

// TestLateLookupTaintsMessage: envelopes of a recipient that lookup did not answer
// for may come to queue later. They must not meet another transaction.
func TestLateLookupTaintsMessage(t *testing.T) {
	clk := clock.NewFake(time.Unix(1e9, 0))
	q := &discards{}
	b := &backend{lka: silent{}, queue: q, clock: clk}
	s := &server.Session{Listener: &server.Listener{}}
	_, err := b.Rcpt(t.Context(), s, &server.Transaction{ID: 7, Mail: smtp.Mail{}}, &smtp.Rcpt{})
	if err == nil || err.Class != mailerr.Drop || err.Code != 421 {
		t.Fatalf("the session goes on: %v", err)
	}
	b.Discard(7)
	b.Discard(8)
	if len(q.ids) != 1 || q.ids[0] != 8 {
		t.Fatalf("discarded %v, want 8 alone", q.ids)
	}
	clk.Advance(taintedTime)
	b.Discard(9)
	if len(q.ids) != 3 {
		t.Errorf("discarded %v, want 7 back with 9", q.ids)
	}
}
