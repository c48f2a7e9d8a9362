package mlog

import (
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/mail"
)

// DurationText writes a duration as OpenSMTPD does in its lines: "0s", "1h2m",
// "3d4s", whole seconds.
func DurationText(d time.Duration) string {
	s := int64(d / time.Second)
	if s == 0 {
		return "0s"
	}
	var b []byte
	if s < 0 {
		b, s = append(b, '-'), -s
	}
	for _, u := range []struct {
		size int64
		name byte
	}{{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}} {
		if n := s / u.size; n > 0 {
			b = append(strconv.AppendInt(b, n, 10), u.name)
			s %= u.size
		}
	}
	return string(b)
}

// address makes one word of an address as it goes between brackets: only a quoted
// local part can hold a blank, and OpenSMTPD knows none. So no address looks like
// the fields that follow it.
func address(s string) string { return strings.ReplaceAll(s, " ", `\040`) }

// Entry is what a line about an envelope in the queue tells of it. Addresses are
// as in SMTP, without brackets.
type Entry struct {
	ID    mail.EnvelopeID
	MDA   bool // for a mailbox of this machine
	From  string
	To    string // after expansion
	Rcpt  string // as the client gave it; "" or To: the same
	Delay time.Duration
}

func (l *Logger) entry(e Entry, prefix, status string) {
	kind, rcpt := "relay", e.Rcpt
	if e.MDA {
		kind = "delivery"
	}
	if rcpt == "" || rcpt == e.To {
		rcpt = "-"
	}
	l.Infof("%s: %s for %v: from=<%s>, to=<%s>, rcpt=<%s>, delay=%s, stat=%s",
		kind, prefix, e.ID, address(e.From), address(e.To), address(rcpt), DurationText(e.Delay), status)
}

// Expired tells that an envelope was given up because of its age.
func (l *Logger) Expired(e Entry) { l.entry(e, "Expire", "Envelope expired") }

// Removed tells that the administrator removed an envelope.
func (l *Logger) Removed(e Entry) { l.entry(e, "Remove", "Removed by administrator") }

// TempFail tells that an envelope that never reached an agent or a relay will be
// tried again, and why not now.
func (l *Logger) TempFail(e Entry, why string) { l.entry(e, "TempFail", why) }

// ReportFailed tells that a report to the sender of a message could not be made;
// permanent: that it never will.
func (l *Logger) ReportFailed(permanent bool, id mail.MessageID, to string, envelopes int, why string) {
	f, s := "TempFail", ""
	if permanent {
		f = "PermFail"
	}
	if envelopes > 1 {
		s = "s"
	}
	l.Warnf("warn: %s injecting failure report on message %v to <%s> for %d envelope%s: %s", f, id, address(to), envelopes, s, why)
}

// Reported tells that a report about envelopes of one message became a message
// itself.
func (l *Logger) Reported(about, report mail.MessageID, to string, envelopes int) {
	l.Debugf("debug: queue: reported msg:%v as msg:%v to <%s> for %d envelope(s)", about, report, address(to), envelopes)
}

// EnvelopeLost tells that an envelope, or its message, cannot be read. What was
// damaged is kept aside by the store, which says where.
func (l *Logger) EnvelopeLost(id mail.EnvelopeID, err error) {
	l.Warnf("warn: queue: cannot load envelope %v: %v", id, err)
}

// IntakeClosed and IntakeOpen tell that new mail is refused, and why, and that
// it is accepted again.
func (l *Logger) IntakeClosed(why error) { l.Warnf("warn: queue: no new mail is accepted: %v", why) }
func (l *Logger) IntakeOpen()            { l.Infof("info: queue: new mail is accepted again") }

// Transaction tells why a message that was being received was given up.
func (l *Logger) Transaction(id mail.MessageID, why string) {
	l.Warnf("warn: queue: message %v: %s", id, why)
}

// SpoolUnread tells that the spool could not be compared with the index.
func (l *Logger) SpoolUnread(err error) { l.Warnf("warn: queue: reading the spool: %v", err) }

// SpoolRead tells that it was, which goes on in the background after the start.
func (l *Logger) SpoolRead() { l.Debugf("debug: queue: the spool agrees with the index") }

// UpdateRefused tells of a fault of ours: the store did not take the new state
// of an envelope.
func (l *Logger) UpdateRefused(id mail.EnvelopeID, err error) {
	l.Warnf("warn: could not update envelope %016x: %v", uint64(id), err)
}

// NotTold tells that dispatcher could not be told whether mail is taken.
func (l *Logger) NotTold(err error) { l.Warnf("warn: queue: telling dispatcher: %v", err) }

// QueueLoaded tells what was found at the start.
func (l *Logger) QueueLoaded(envelopes, messages int) {
	l.Debugf("debug: queue: loaded %d envelopes of %d messages", envelopes, messages)
}
