// Package bounce writes reports about mail: that it failed, is delayed, or was
// delivered. A report is a multipart/report (RFC 6522) whose first part is for
// people, the second a message/delivery-status (RFC 3464) for programs, the
// third the message or its headers.
//
// Everything in a report that a stranger chose (error lines of other servers and
// of delivery programs, addresses, parameters of DSN) is made printable and kept
// to one line first, so that it can add neither a header nor a part. Who is told
// at all is decided by Wanted.
package bounce

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/queue/envelope"
)

// Report is what one report tells: what happened to some recipients of one
// message.
type Report struct {
	Type envelope.BounceType
	// Relayed: the recipients were handed to a server that sends no reports;
	// only with envelope.BounceDelivered (RFC 3464 section 2.3.3).
	Relayed bool
	Delay   time.Duration // how long the message waits already; of a delay report

	ID    mail.MessageID // of the report itself
	Host  string         // the name of this server
	Date  time.Time
	Nonce uint64 // random: nobody can foresee the boundary

	// Envelopes are the recipients, at least one, all of one message and
	// sender, with ErrorLine, ESCClass and ESCCode of what happened.
	Envelopes []envelope.Envelope
}

// Wanted tells whether the sender of e wants, and may get, a report of the given
// kind (RFC 3461 sections 4.1 and 5.2, RFC 5321 section 6.1): never the null
// sender, never a report about a report.
func Wanted(e *envelope.Envelope, t envelope.BounceType) bool {
	if e.Sender.IsZero() || e.Flags&envelope.IsBounce != 0 || e.DSNNotify&envelope.NotifyNever != 0 {
		return false
	}
	switch t {
	case envelope.BounceFailed:
		return e.DSNNotify == 0 || e.DSNNotify&envelope.NotifyFailure != 0
	case envelope.BounceDelayed:
		return e.DSNNotify == 0 || e.DSNNotify&envelope.NotifyDelay != 0
	case envelope.BounceDelivered:
		return e.DSNNotify&envelope.NotifySuccess != 0
	}
	return false
}

// To is who gets the report.
func (r *Report) To() addr.Address { return r.Envelopes[0].Sender }

// action is the word of RFC 3464 section 2.3.3, which is also in the subject.
func (r *Report) action() string {
	switch {
	case r.Type == envelope.BounceDelayed:
		return "delayed"
	case r.Type == envelope.BounceDelivered && r.Relayed:
		return "relayed"
	case r.Type == envelope.BounceDelivered:
		return "delivered"
	}
	return "failed"
}

// full tells whether the whole message goes back: only when it was asked for,
// and only with a failure (RFC 3461 section 4.3); never what had to travel in TLS
// (RFC 8689 section 5).
func (r *Report) full() bool {
	e := &r.Envelopes[0]
	return r.Type == envelope.BounceFailed && e.DSNRet == envelope.ReturnFull && e.Flags&envelope.RequireTLS == 0
}

// global tells whether the report may hold what is beyond ASCII, as the message
// did (RFC 6533): then whoever gets it can take that.
func (r *Report) global() bool { return r.Envelopes[0].Flags&envelope.SMTPUTF8 != 0 }

// Text is a finished report. Lines end in LF, as those of a message in the
// queue do.
type Text struct {
	head, tail []byte
	part       *io.SectionReader // of the original; nil: none
}

// Size is that of the report in bytes.
func (t *Text) Size() int64 {
	n := int64(len(t.head) + len(t.tail))
	if t.part != nil {
		n += t.part.Size()
	}
	return n
}

// WriteTo writes the report. It fails when w does or when the original cannot
// be read; it can be called again.
func (t *Text) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(t.head)
	total := int64(n)
	if err != nil {
		return total, err
	}
	if t.part != nil {
		m, err := io.Copy(w, io.NewSectionReader(t.part, 0, t.part.Size()))
		total += m
		if err != nil {
			return total, err
		}
		if m != t.part.Size() {
			return total, io.ErrUnexpectedEOF
		}
	}
	n, err = w.Write(t.tail)
	return total + int64(n), err
}

// Compose writes a report about the message that original reads, size bytes
// long. Without one, nil, as when it is damaged, the third part is missing. The
// error is that of original.
func (r *Report) Compose(original io.ReaderAt, size int64) (*Text, error) {
	o := source{}
	if original != nil {
		var err error
		if o, err = examine(original, size, r.full()); err != nil {
			return nil, err
		}
	}
	boundary := fmt.Sprintf("%016x", r.Nonce)
	notice := r.notice(original != nil)
	var b bytes.Buffer
	r.header(&b, boundary, o, !ascii(notice) || o.eightBit || r.global())
	part(&b, boundary, "Notification", notice.contentType())
	b.Write(notice)
	r.statusPart(&b, boundary)
	t := &Text{tail: []byte("\n--" + boundary + "--\n")}
	if original != nil {
		what, kind := "Message headers", "text/rfc822-headers"
		if r.full() {
			what, kind = "Undelivered message", "message/rfc822"
		}
		if r.global() {
			kind = map[bool]string{false: "message/global-headers", true: "message/global"}[r.full()]
		}
		part(&b, boundary, what, "Content-Type: "+kind+"\n"+encoding(o.eightBit))
		t.part = io.NewSectionReader(original, 0, o.part)
	}
	t.head = b.Bytes()
	return t, nil
}

// dateFormat is that of RFC 5322 section 3.3.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

func (r *Report) header(b *bytes.Buffer, boundary string, o source, eightBit bool) {
	host, date := r.host(), r.Date.Format(dateFormat)
	to := line(r.To().SMTP(), maxAddress)
	fmt.Fprintf(b, "Received: by %s (OpenSMTPD) id %v;\n\t%s\n", host, r.ID, date)
	fmt.Fprintf(b, "Date: %s\n", date)
	fmt.Fprintf(b, "From: Mailer Daemon <MAILER-DAEMON@%s>\n", host)
	fmt.Fprintf(b, "To: %s\n", to)
	fmt.Fprintf(b, "Subject: Delivery status notification: %s\n", r.action())
	fmt.Fprintf(b, "Message-ID: <%v.%016x@%s>\n", r.ID, r.Nonce, host)
	// RFC 3834 section 5: no vacation program shall answer.
	b.WriteString("Auto-Submitted: auto-replied\n")
	if r.Envelopes[0].Flags&envelope.TLSOptional != 0 {
		b.WriteString("TLS-Required: No\n") // as the message (RFC 8689 section 5)
	}
	if o.messageID != "" {
		fmt.Fprintf(b, "In-Reply-To: %s\nReferences: %s\n", o.messageID, o.messageID)
	}
	b.WriteString("MIME-Version: 1.0\n")
	fmt.Fprintf(b, "Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"%s\"\n", boundary)
	b.WriteString(encoding(eightBit))
	b.WriteString("\nThis is a report in MIME format.\n")
}

func (r *Report) host() string {
	if h := line(r.Host, maxAddress); h != "" {
		return h
	}
	return "localhost"
}

func part(b *bytes.Buffer, boundary, description, fields string) {
	fmt.Fprintf(b, "\n--%s\nContent-Description: %s\n%s\n", boundary, description, fields)
}

// encoding is the field that RFC 2045 section 6.1 wants of 8-bit content.
func encoding(eightBit bool) string {
	if eightBit {
		return "Content-Transfer-Encoding: 8bit\n"
	}
	return ""
}
