package bounce

import (
	"bytes"
	"fmt"
	"strings"

	"opensmtpd/src/queue/envelope"
)

// statusPart writes the part for programs.
func (r *Report) statusPart(b *bytes.Buffer, boundary string) {
	fields := "Content-Type: message/delivery-status\n"
	if r.global() {
		fields = "Content-Type: message/global-delivery-status\n" + encoding(true)
	}
	part(b, boundary, "Delivery report", fields)
	r.status(b)
}

// text writes what may be beyond ASCII as it is where that can be.
func (r *Report) text(s string) string {
	if r.global() {
		return s
	}
	return plain(s)
}

// status writes the body of the message/delivery-status part: a block of fields
// for the message and one for each recipient (RFC 3464 section 2.1).
func (r *Report) status(b *bytes.Buffer) {
	first := &r.Envelopes[0]
	if id := line(unxtext(first.DSNEnvID), maxAddress); id != "" {
		field(b, "Original-Envelope-Id", id)
	}
	field(b, "Reporting-MTA", "dns; "+r.host())
	if !first.Created.IsZero() {
		field(b, "Arrival-Date", first.Created.In(r.Date.Location()).Format(dateFormat))
	}
	for i := range r.Envelopes {
		b.WriteByte('\n')
		r.recipientStatus(b, &r.Envelopes[i])
	}
}

func (r *Report) recipientStatus(b *bytes.Buffer, e *envelope.Envelope) {
	if kind, who, ok := strings.Cut(e.DSNORcpt, ";"); ok {
		kind, who = line(kind, 32), line(unxtext(who), maxAddress)
		if who != "" && atom(kind) {
			field(b, "Original-Recipient", kind+"; "+r.original(kind, who))
		}
	}
	dest := line(e.Dest.SMTP(), maxAddress)
	if ascii([]byte(dest)) {
		field(b, "Final-Recipient", "rfc822; "+dest)
	} else {
		field(b, "Final-Recipient", "utf-8; "+r.text(dest))
	}
	field(b, "Action", r.action())
	field(b, "Status", r.code(e))
	if why := reason(e); why != "" && r.Type != envelope.BounceDelivered {
		// RFC 3464 section 2.3.6: what is not from SMTP says so.
		kind := "x-unix; "
		if len(why) >= 3 && digits(why[:3]) && (why[0] == '4' || why[0] == '5') {
			kind = "smtp; "
		}
		field(b, "Diagnostic-Code", kind+r.text(why))
	}
	if !e.LastTry.IsZero() {
		field(b, "Last-Attempt-Date", e.LastTry.In(r.Date.Location()).Format(dateFormat))
	}
	if r.Type == envelope.BounceDelayed {
		field(b, "Will-Retry-Until", e.Created.Add(e.TTL).In(r.Date.Location()).Format(dateFormat))
	}
}

// original is the address that the sender meant. One of type utf-8 has what is
// beyond ASCII as "\x{…}" where it had to be ASCII (RFC 6533 section 3).
func (r *Report) original(kind, who string) string {
	if r.global() && strings.EqualFold(kind, "utf-8") {
		return line(unescape(who), maxAddress)
	}
	return r.text(who)
}

// code is the status of RFC 3463. The class follows from the report; subject
// and detail come from the envelope, or else from the line of the server that
// failed.
func (r *Report) code(e *envelope.Envelope) string {
	class := map[envelope.BounceType]int{envelope.BounceFailed: 5, envelope.BounceDelayed: 4, envelope.BounceDelivered: 2}[r.Type]
	subject, detail := int(e.ESCCode/10), int(e.ESCCode%10)
	if e.ESCCode == 0 && r.Type != envelope.BounceDelivered {
		subject, detail = enhanced(e.ErrorLine)
	}
	return fmt.Sprintf("%d.%d.%d", class, subject, detail)
}

// enhanced finds the code in a line like "550 5.1.1 User unknown", else 0, 0.
func enhanced(s string) (subject, detail int) {
	if len(s) < 4 || !digits(s[:3]) {
		return 0, 0
	}
	word, _, _ := strings.Cut(s[4:], " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 {
		return 0, 0
	}
	for i, to := range []*int{&subject, &detail} {
		p := parts[i+1]
		if p == "" || len(p) > 3 || !digits(p) {
			return 0, 0
		}
		for _, c := range []byte(p) {
			*to = *to*10 + int(c-'0')
		}
	}
	return subject, detail
}

// field writes a field, folded before column 78 where there are spaces (RFC
// 5322 section 2.2.3).
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteByte(':')
	col := len(name) + 1
	for i, word := range strings.Split(value, " ") {
		if i > 0 && col+1+len(word) > 77 && word != "" {
			b.WriteString("\n\t")
			col = 8
		} else {
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += len(word)
	}
	b.WriteByte('\n')
}
