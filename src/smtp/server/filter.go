package server

import (
	"context"

	"opensmtpd/src/mail"
	"opensmtpd/src/smtp"
)

// Phase is a moment at which filters are asked (smtpd.conf(5)).
type Phase uint8

const (
	NoPhase Phase = iota
	PhaseConnect
	PhaseHelo
	PhaseEhlo
	PhaseStartTLS
	PhaseAuth
	PhaseMailFrom
	PhaseRcptTo
	PhaseData
	PhaseCommit
	PhaseNoop
	PhaseQuit
	PhaseRset
	PhaseHelp
	PhaseWiz
)

// Action is what a filter decides.
type Action uint8

const (
	Proceed    Action = iota
	Rewrite           // Param replaces the argument
	Reject            // Reply is the answer
	Disconnect        // and then the connection is closed
	Junk              // proceed, marked
	Report            // proceed; Param was reported
)

// Verdict is the answer of a filter.
type Verdict struct {
	Action Action
	Param  string
	Reply  smtp.Reply
	// Marked is Junk beside another action.
	Marked bool
}

// Filter stands between a client and the server. All methods are called in the
// goroutine of the session.
type Filter interface {
	// Phase decides about a command whose syntax is right. Param is its
	// argument; at connect, the address.
	Phase(ctx context.Context, s *Session, p Phase, param string) Verdict
	// Lines is asked at DATA for one that sees every line of the message. It
	// returns nil when none wants to. Lines that come out, unstuffed and
	// without their end, go to next, from within the methods of LineFilter.
	Lines(ctx context.Context, s *Session, next func(line []byte)) LineFilter
	// Report tells of what happened.
	Report(s *Session, e Event)
}

// LineFilter sees a message line by line, as it came on the wire less the line
// ends; our own Received lines are the first.
type LineFilter interface {
	Line(line []byte)
	// End returns when all lines have come out.
	End() error
}

// EventKind names an event in the order of a session.
type EventKind uint8

const (
	LinkConnect EventKind = iota + 1
	LinkGreeting
	LinkIdentify // Text: "HELO" or "EHLO"
	LinkTLS      // Text: version:cipher:bits
	LinkAuth     // Text: "pass", "fail" or "error", a bar, and the user
	LinkDisconnect
	TxBegin
	TxMail     // Text: the address; Code: of the reply
	TxRcpt     // likewise
	TxEnvelope // Envelope: one of the recipient last accepted
	TxData     // Code: of the reply
	TxCommit   // Size: of the message
	TxRollback
	TxReset
	ProtocolClient // Text: the line
	ProtocolServer // Text: the line
	FilterResponse // Text: the action and its parameter
	Timeout
)

// Event is something that a filter may want to know. What else there is to know
// of it stands in the session.
type Event struct {
	Kind     EventKind
	Phase    Phase // of FilterResponse
	Code     int   // reply code, where there is one
	Text     string
	Message  mail.MessageID // of the events of a transaction
	Envelope mail.EnvelopeID
	Size     int64
}
