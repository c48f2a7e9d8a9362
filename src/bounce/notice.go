package bounce

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"opensmtpd/src/queue/envelope"
)

// notice is the part for people.
type notice []byte

func (n notice) contentType() string {
	if ascii(n) {
		return "Content-Type: text/plain; charset=us-ascii\n"
	}
	return "Content-Type: text/plain; charset=utf-8\n" + encoding(true)
}

func (r *Report) notice(original bool) notice {
	var b bytes.Buffer
	fmt.Fprintf(&b, "    This is the mail server %s. Nobody reads answers to\n"+
		"    this report.\n\n", r.host())
	r.introduce(&b)
	b.WriteByte('\n')
	for i := range r.Envelopes {
		r.recipient(&b, &r.Envelopes[i])
	}
	if r.Type == envelope.BounceDelayed {
		e := &r.Envelopes[0]
		fmt.Fprintf(&b, "\n    There is nothing you need to do. We will go on trying until the\n"+
			"    message is %s old, and tell you if that does not help.\n", span(e.TTL))
	}
	switch {
	case !original:
		b.WriteString("\n    The message itself can not be shown.\n")
	case r.full():
		b.WriteString("\n    Your message follows.\n")
	default:
		b.WriteString("\n    The headers of your message follow.\n")
	}
	return b.Bytes()
}

func (r *Report) introduce(b *bytes.Buffer) {
	switch {
	case r.Type == envelope.BounceDelayed:
		fmt.Fprintf(b, "    For more than %s we have not been able to deliver your message to\n"+
			"    the following recipients:\n", span(r.Delay))
	case r.Type == envelope.BounceDelivered && r.Relayed:
		b.WriteString("    Your message was handed on, to servers that will not tell us more,\n" +
			"    for the following recipients:\n")
	case r.Type == envelope.BounceDelivered:
		b.WriteString("    Your message was delivered to the following recipients:\n")
	default:
		b.WriteString("    Your message could not be delivered, and will not be tried again,\n" +
			"    for the following recipients:\n")
	}
}

// recipient writes the address and what went wrong.
func (r *Report) recipient(b *bytes.Buffer, e *envelope.Envelope) {
	b.WriteString(line(e.Dest.SMTP(), maxAddress))
	if reason := reason(e); reason != "" && r.Type != envelope.BounceDelivered {
		b.WriteString(": ")
		b.WriteString(reason)
	}
	b.WriteByte('\n')
}

// reason is the last failure. Codes that begin with 1 or 6 are OpenSMTPD's own
// and say nothing to people.
func reason(e *envelope.Envelope) string {
	s := e.ErrorLine
	if len(s) > 4 && (s[0] == '1' || s[0] == '6') && digits(s[:3]) {
		s = s[4:]
	}
	return strings.TrimSpace(line(s, maxReason))
}

// span writes a duration in its largest unit.
func span(d time.Duration) string {
	n, unit := int64(d/time.Second), "second"
	switch {
	case d >= 24*time.Hour:
		n, unit = int64(d/(24*time.Hour)), "day"
	case d >= time.Hour:
		n, unit = int64(d/time.Hour), "hour"
	case d >= time.Minute:
		n, unit = int64(d/time.Minute), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}
