// Package rfc5322 knows the header of a message (RFC 5322): it follows one line
// by line while the message passes, and rewrites it as OpenSMTPD does.
//
//   - Bcc is dropped.
//   - The addresses in From are replaced, when asked to.
//   - Addresses without a domain in To, Cc and From are completed.
//   - Date and Message-ID are added where they are missing, when asked to.
//   - Received is counted, so that a loop ends.
//   - TLS-Required: No is noticed (RFC 8689 section 3).
//
// All else stays as it came, byte for byte. Lines are given without their end
// and come out ended by LF, the form in which messages are kept.
package rfc5322

import (
	"bytes"
	"errors"
	"time"
)

const (
	// MaxHops is how many Received lines a message may have; the one that
	// reaches it shows a loop. RFC 5321 section 6.3 wants at least 100.
	MaxHops = 100
	// maxName is the longest name of a header field, as in OpenSMTPD.
	maxName = 1022
	// maxValue is the longest To, Cc or From, all its lines together: they are
	// kept until they end, so that an address over two lines is seen whole.
	maxValue = 65534
)

// Why a header is refused.
var (
	ErrMalformed = errors.New("message is not RFC 5322 compliant")
	ErrLoop      = errors.New("too many Received lines")
)

// field tells what is done with a header field.
type field uint8

const (
	none     field = iota // before the first
	copied                // as it is
	dropped               // Bcc
	complete              // To, Cc, From
	demand                // TLS-Required
)

// Rewriter follows one message. Its zero value rewrites without adding anything;
// Reset makes it ready for the next message.
type Rewriter struct {
	// Domain completes addresses that have none. Empty: none is completed.
	Domain string
	// From takes the place of the addresses in From. Empty: they stay.
	From string
	// Date and MessageID are the values of the header fields to add when the
	// message has none; empty: none is added.
	Date, MessageID string

	at        field
	body      bool
	hops      int
	date, mid bool
	asked, no bool   // TLS-Required is there; it says No, each time
	name, val []byte // of the field that is being collected
}

// Reset forgets the message, and keeps the buffers unless they grew large.
func (w *Rewriter) Reset() {
	val := w.val[:0]
	if cap(val) > 4096 {
		val = nil
	}
	*w = Rewriter{name: w.name[:0], val: val}
}

// InBody tells whether the empty line behind the header has passed.
func (w *Rewriter) InBody() bool { return w.body }

// TLSOptional tells whether the header says that the message need not be protected:
// by TLS-Required, which has no other value.
func (w *Rewriter) TLSOptional() bool { return w.no }

// Line takes the next line, without its end, and appends to dst what shall be
// kept so far. After an error the message is refused and the rest of it need
// not be shown.
func (w *Rewriter) Line(dst, line []byte) ([]byte, error) {
	if w.body {
		return append(append(dst, line...), '\n'), nil
	}
	if w.at != none && len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
		return w.more(dst, line)
	}
	dst = w.finish(dst)
	if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
		if colon := bytes.IndexByte(line, ':'); colon >= 0 {
			return w.start(dst, line, colon)
		}
	}
	dst = w.end(dst)
	if len(line) > 0 {
		return dst, ErrMalformed
	}
	w.body = true
	return append(dst, '\n'), nil
}

// End is called when the message is over; a message may end inside its header.
func (w *Rewriter) End(dst []byte) []byte {
	if w.body {
		return dst
	}
	w.body = true
	return w.end(w.finish(dst))
}

// start takes the first line of a field.
func (w *Rewriter) start(dst, line []byte, colon int) ([]byte, error) {
	if colon > maxName {
		return dst, ErrMalformed
	}
	w.at = w.classify(line[:colon])
	switch w.at {
	case dropped:
		return dst, nil
	case complete:
		w.name = append(w.name[:0], line[:colon+1]...)
		w.val = append(w.val[:0], line[colon+1:]...)
		if len(w.val) > maxValue {
			return dst, ErrMalformed
		}
		return dst, nil
	case demand:
		no := bytes.EqualFold(bytes.TrimSpace(line[colon+1:]), []byte("no"))
		w.asked, w.no = true, no && (w.no || !w.asked)
	}
	if w.hops >= MaxHops {
		return dst, ErrLoop
	}
	return append(append(dst, line...), '\n'), nil
}

// more takes a folded line.
func (w *Rewriter) more(dst, line []byte) ([]byte, error) {
	switch w.at {
	case dropped:
		return dst, nil
	case complete:
		w.val = append(append(w.val, '\n'), line...)
		if len(w.val) > maxValue {
			return dst, ErrMalformed
		}
		return dst, nil
	}
	return append(append(dst, line...), '\n'), nil
}

// finish writes the field that was collected, if any.
func (w *Rewriter) finish(dst []byte) []byte {
	if w.at == complete {
		w.val = append(w.val, '\n')
		dst = append(dst, w.name...)
		if w.From != "" && is(w.name[:len(w.name)-1], "from") {
			w.val = appendMasqueraded(nil, w.val, w.From)
		}
		dst = appendCompleted(dst, w.val, w.Domain)
	}
	w.at = none
	return dst
}

// end writes what the header lacks.
func (w *Rewriter) end(dst []byte) []byte {
	if !w.date && w.Date != "" {
		dst = append(append(append(dst, "Date: "...), w.Date...), '\n')
	}
	if !w.mid && w.MessageID != "" {
		dst = append(append(append(dst, "Message-ID: "...), w.MessageID...), '\n')
	}
	return dst
}

func (w *Rewriter) classify(name []byte) field {
	switch len(name) {
	case 2:
		if is(name, "to") || is(name, "cc") {
			return complete
		}
	case 3:
		if is(name, "bcc") {
			return dropped
		}
	case 4:
		if is(name, "from") {
			return complete
		}
		w.date = w.date || is(name, "date")
	case 8:
		if is(name, "received") {
			w.hops++
		}
	case 10:
		w.mid = w.mid || is(name, "message-id")
	case 12:
		if is(name, "tls-required") {
			return demand
		}
	}
	return copied
}

// is tells whether name is want, which is in lower case, whatever its case.
func is(name []byte, want string) bool {
	for i := range name {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// AppendDate adds t as header fields have it (RFC 5322 section 3.3), with the
// zone's name as a comment, as OpenSMTPD writes it.
func AppendDate(b []byte, t time.Time) []byte {
	return t.AppendFormat(b, "Mon, 2 Jan 2006 15:04:05 -0700 (MST)")
}
