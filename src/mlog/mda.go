package mlog

import (
	"time"

	"opensmtpd/src/mail"
)

// Delivery is what the line about an attempt of local delivery tells.
type Delivery struct {
	Session mail.SessionID
	ID      mail.EnvelopeID
	From    string // "" for the null sender
	To      string // after expansion
	Rcpt    string // as the client gave it
	User    string // who owns the mailbox
	Delay   time.Duration
	Result  string // "Ok", "TempFail", "PermFail"
	Stat    string // "Delivered", "Error (…)", …
}

// Delivered tells how an attempt of local delivery ended, well or not.
func (l *Logger) Delivered(d Delivery) {
	rcpt := ""
	if d.Rcpt != "" {
		rcpt = "rcpt=<" + address(d.Rcpt) + "> "
	}
	l.Infof("%016x mda delivery evpid=%016x from=<%s> to=<%s> %suser=%s delay=%s result=%s stat=%s",
		uint64(d.Session), uint64(d.ID), address(d.From), address(d.To), rcpt, address(d.User), DurationText(d.Delay), d.Result, d.Stat)
}
