// Package mailerr holds the one error type that crosses process borders: a
// class that code branches on, a reply for the stranger, a cause for the log.
package mailerr

import (
	"errors"
	"fmt"
)

// Class says what an error means for the mail it concerns.
type Class uint8

const (
	Temp Class = iota + 1 // try again later: 4xx
	Perm                  // never: 5xx
	Drop                  // answer, then close the connection
)

func (c Class) String() string {
	switch c {
	case Temp:
		return "temporary"
	case Perm:
		return "permanent"
	case Drop:
		return "drop"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Enhanced is an enhanced status code, RFC 3463: class, subject, detail. The
// zero value means none.
type Enhanced [3]uint16

func (e Enhanced) String() string { return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2]) }

// Error is what went wrong with a command, an envelope or a delivery.
type Error struct {
	Class    Class
	Code     int      // SMTP reply code, 400 to 599 (RFC 5321 section 4.2)
	Enhanced Enhanced // RFC 3463; zero when the reply carries none
	Text     string   // for the stranger: printable, one line, no code
	Cause    error    // for the log alone; never sent to a peer; may be nil
}

// Error returns the reply and, when there is one, the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Reply()
	}
	return e.Reply() + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Reply returns the error as it goes to a peer: code, enhanced code, text.
func (e *Error) Reply() string {
	if e.Enhanced == (Enhanced{}) {
		return fmt.Sprintf("%d %s", e.Code, e.Text)
	}
	return fmt.Sprintf("%d %v %s", e.Code, e.Enhanced, e.Text)
}

// Temporary returns a Temp error with the given reply. The class digit of the
// enhanced code is always 4, so it takes the other two.
func Temporary(code int, subject, detail uint16, text string, cause error) *Error {
	return &Error{Temp, code, Enhanced{4, subject, detail}, text, cause}
}

// Permanent returns a Perm error with the given reply; the class digit of the
// enhanced code is 5.
func Permanent(code int, subject, detail uint16, text string, cause error) *Error {
	return &Error{Perm, code, Enhanced{5, subject, detail}, text, cause}
}

// Local is the temporary failure for trouble of our own: the peer learns
// nothing, the log has the cause.
func Local(cause error) *Error {
	return Temporary(451, 3, 0, "Temporary failure", cause)
}

// From returns err as an *Error: itself when it is one, else Local(err); nil
// for nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Local(err)
}
