// Package mail is the vocabulary that every other package shares: the
// identifiers of messages, envelopes, sessions and configuration generations.
// It imports nothing of ours.
package mail

import (
	"fmt"
	"strconv"
)

// MessageID names a message in the queue. It is random, never zero, and printed
// as eight hexadecimal digits.
type MessageID uint32

// EnvelopeID names one envelope: the message in the upper half, a number unique
// within the message in the lower half. It is printed as sixteen hexadecimal
// digits.
type EnvelopeID uint64

// SessionID names an SMTP session, incoming or outgoing, for the length of the
// process. It is printed as sixteen hexadecimal digits.
type SessionID uint64

// Gen counts the configurations loaded since start; the first is 1. Sessions
// and deliveries keep the generation under which they began.
type Gen uint32

func (id MessageID) String() string  { return fmt.Sprintf("%08x", uint32(id)) }
func (id EnvelopeID) String() string { return fmt.Sprintf("%016x", uint64(id)) }
func (id SessionID) String() string  { return fmt.Sprintf("%016x", uint64(id)) }

// Message returns the message that the envelope belongs to.
func (id EnvelopeID) Message() MessageID { return MessageID(id >> 32) }

// EnvelopeAt returns the identifier of the n-th envelope of a message, n from
// 0. For one message different n give different identifiers, and the lower half
// is never zero; the order does not show.
func EnvelopeAt(m MessageID, n uint32) EnvelopeID {
	// An odd multiplier permutes the 32-bit numbers. n+1 is never zero for
	// the counts that limits allow, so neither is the product.
	return EnvelopeID(m)<<32 | EnvelopeID((n+1)*0x9e3779b1)
}

// ParseMessageID reads eight or fewer hexadecimal digits.
func ParseMessageID(s string) (MessageID, error) {
	v, err := strconv.ParseUint(s, 16, 32)
	if err != nil || v == 0 || len(s) > 8 {
		return 0, fmt.Errorf("%q is not a message id: want up to 8 hexadecimal digits", s)
	}
	return MessageID(v), nil
}

// ParseEnvelopeID reads sixteen or fewer hexadecimal digits whose upper half is
// not zero.
func ParseEnvelopeID(s string) (EnvelopeID, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || v>>32 == 0 || len(s) > 16 {
		return 0, fmt.Errorf("%q is not an envelope id: want 9 to 16 hexadecimal digits", s)
	}
	return EnvelopeID(v), nil
}
