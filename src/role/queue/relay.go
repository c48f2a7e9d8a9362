package queue

import (
	"context"
	"io"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// Relayer takes mail for other servers.
type Relayer interface {
	// Dest names what envelopes of an action and a domain have in common: those
	// with the same name are held and take turns together. It may be called at
	// any time and must be quick.
	Dest(action, domain string) string
	// Domain is the domain behind a name that Dest gave, "" when there is none:
	// its `mta limit` holds.
	Domain(dest string) string
	// Relay takes one envelope and returns at once. Nothing need be begun before
	// Flush, so that what goes together is seen together.
	Relay(*Relaying)
	// Flush is called after the last Relay of all that was due at once.
	Flush()
	// Close takes no more, waits for what is under way until ctx ends, fails
	// the rest for now (451 4.3.2), and returns when every Done was called.
	Close(ctx context.Context)
}

// Relaying is one envelope on its way to another server. Nothing of it changes
// until Done was called.
type Relaying struct {
	Gen      mail.Gen
	Envelope *envelope.Envelope // of type MTA
	Size     int64              // of the body, bytes
	Body     []byte             // all of the body, or nil: read Reader
	Reader   io.ReaderAt
	// Done is called once, from any goroutine, and must not wait.
	Done func(Relayed)
}

// Relayed tells what became of it. Who relays has logged it.
type Relayed struct {
	// Err is nil when the other server took the mail.
	Err *mailerr.Error
	// Line is what the other server said, or what went wrong, for the envelope
	// and the report; "": Err's reply.
	Line string
	// NoDSN: the other server took it, but will send no reports.
	NoDSN bool
	// Returned: it was not tried, and nothing else holds.
	Returned bool
	// Unreachable: so is everything else for the same destination, which need
	// not be tried before its next moment.
	Unreachable bool
}
