package mta

import (
	"context"
	"errors"
	"io"
	"net"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/mta/client"
)

// phase is where in a transaction a server said something.
type phase uint8

const (
	phaseMail phase = iota
	phaseRcpt
	phaseData
	phaseEnd
)

// classify makes an error of a reply that is not the one hoped for. A server
// that gives no enhanced code has one chosen that says the same (RFC 3463).
func classify(at phase, r *client.Reply) *mailerr.Error {
	e := &mailerr.Error{Class: mailerr.Temp, Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}
	switch {
	case r.Code/100 == 5:
		e.Class = mailerr.Perm
	case r.Code/100 != 4:
		// An agreement to something else: the server cannot be understood.
		e.Code, e.Enhanced, e.Text = 451, mailerr.Enhanced{4, 5, 0}, "Unexpected reply: "+r.String()
	}
	if e.Enhanced == (mailerr.Enhanced{}) {
		s := chosen(at, r.Code)
		e.Enhanced = mailerr.Enhanced{uint16(e.Code / 100), s[0], s[1]}
	}
	return e
}

// chosen is subject and detail for a code alone.
func chosen(at phase, code int) [2]uint16 {
	switch code {
	case 421:
		return [2]uint16{3, 2} // system not accepting messages
	case 450, 451:
		if at == phaseRcpt && code == 450 {
			return [2]uint16{2, 0} // mailbox
		}
		return [2]uint16{3, 0}
	case 452:
		return [2]uint16{3, 1} // system full
	case 500, 501, 502, 503, 504, 555:
		return [2]uint16{5, 0} // protocol
	case 530, 534, 535, 538:
		return [2]uint16{7, 0} // security
	case 521, 556:
		return [2]uint16{1, 10} // takes no mail
	case 550:
		if at == phaseRcpt {
			return [2]uint16{1, 1} // no such mailbox
		}
		return [2]uint16{7, 1} // refused
	case 551:
		return [2]uint16{1, 6} // moved
	case 552:
		if at == phaseRcpt {
			return [2]uint16{2, 2} // mailbox full
		}
		return [2]uint16{3, 4} // too big
	case 553:
		return [2]uint16{1, 3} // address syntax
	}
	return [2]uint16{0, 0}
}

// lackError tells that a server cannot do what TLS needs, today or later.
type lackError string

func (e lackError) Error() string { return string(e) }

// noPromise is that of a server which has TLS and does not promise to send mail on
// likewise.
const noPromise lackError = "REQUIRETLS support required"

const noPromiseDetail = 30 // of 5.7.30

// lacks returns what strict mail is told when a session failed because of what the
// server is (RFC 8689 section 4.2.1), and nil when another time may be better.
func lacks(err error) *mailerr.Error {
	var lack lackError
	switch {
	case errors.Is(err, noPromise):
		return mailerr.Permanent(550, 7, noPromiseDetail, string(noPromise), nil)
	case errors.As(err, &lack), errors.Is(err, client.ErrTLS) && !ofNetwork(err):
		return mailerr.Permanent(550, 7, 10, "Encryption needed: "+sentence(err), nil)
	}
	return nil
}

// ofNetwork tells trouble of the connection from a refusal to speak TLS, which the
// library reports as errors of the network, too.
func ofNetwork(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op != "remote error" && op.Op != "local error"
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled)
}

// broken makes an error of a conversation that ended early.
func broken(err error) *mailerr.Error {
	if err == nil {
		err = errors.New("connection closed unexpectedly")
	}
	return mailerr.Temporary(451, 4, 2, sentence(plainError(err)), err)
}
