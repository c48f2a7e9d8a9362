// Package envelope is what the queue knows of one recipient of one message: the
// structure, its compact form between processes, and the text form on disk,
// which is OpenSMTPD's version 3, field for field.
package envelope

import (
	"net/netip"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
)

// Type says who delivers.
type Type uint8

const (
	MDA    Type = iota // into a mailbox of this machine
	MTA                // to another server
	Bounce             // a report about another message
)

// Flags of an envelope, with the words of the text form.
type Flags uint16

const (
	Authenticated Flags = 1 << iota // the client had authenticated
	IsBounce                        // "bounce": the message is itself a report
	Internal                        // "internal": made by this machine

	// Of the following OpenSMTPD knows nothing, and the text form has no word.

	SMTPUTF8    // addresses or header fields may be beyond ASCII (RFC 6531)
	RequireTLS  // no server may get it but in TLS, and pass it on likewise (RFC 8689)
	TLSOptional // its sender would rather have it arrive than protected (RFC 8689)
)

// OursAlone are the flags that a file of the spool does not hold.
const OursAlone = SMTPUTF8 | RequireTLS | TLSOptional

// Notify is the set of DSN conditions asked for (RFC 3461 section 4.1); zero
// means that the sender did not say.
type Notify uint8

const (
	NotifySuccess Notify = 1 << iota
	NotifyFailure
	NotifyDelay
	NotifyNever
)

// Return says how much of the message a report carries (RFC 3461 section 4.3).
type Return uint8

const (
	ReturnUnset Return = iota
	ReturnFull
	ReturnHeaders
)

// BounceType tells the kinds of report.
type BounceType uint8

const (
	BounceFailed BounceType = iota
	BounceDelayed
	BounceDelivered
)

// Envelope is one recipient of one message. Strings never hold CR, LF or NUL.
type Envelope struct {
	ID     mail.EnvelopeID
	Type   Type
	Flags  Flags
	Action string // name of the action ("dispatcher" in the text form)
	Tag    string // of the listener

	SMTPName string         // the name under which our listener greeted
	Helo     string         // what the client called itself
	Hostname string         // the client's name by reverse DNS
	Username string         // who authenticated
	Source   netip.AddrPort // the client; zero for the local socket
	LocalUID uint32         // who submitted it on the local socket; 0 for every other mail

	Sender addr.Address // MAIL FROM; zero for the null sender
	Rcpt   addr.Address // RCPT TO, as the client gave it
	Dest   addr.Address // after expansion

	// Local delivery.
	MDAExec       string // a |command or /file of an expansion
	MDAUser       string // who owns the delivery
	MDASubaddress string // what followed the sub-address delimiter

	// Bounce.
	BounceType  BounceType
	BounceDelay time.Duration
	BounceTTL   time.Duration

	Created    time.Time
	TTL        time.Duration
	LastTry    time.Time // zero: not tried
	LastBounce time.Time // of the last delay report
	Retry      uint16

	DSNNotify Notify
	DSNRet    Return
	DSNEnvID  string // xtext as the client gave it
	DSNORcpt  string // type;xtext

	ErrorLine string // the last failure, one line
	ESCClass  uint8  // enhanced status class of a report asked for
	ESCCode   uint8
}
