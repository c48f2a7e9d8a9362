// Package mda delivers mail into the mailboxes of this machine. The queue's side
// is a Pool of delivery agents; the other side, Serve, is the agent: smtpd
// re-executed by parent as the user who receives, so that whatever touches a
// user's files has that user's rights and no more.
//
//	queue  → parent  Agent          who delivers for this user, start one
//	parent → agent   AgentConf      the action, from parent's own configuration
//	queue  → agent   Deliver, DeliverChunk …
//	agent  → queue   DeliverResult  after the mail is on stable storage
//	agent  → parent  Mailbox        lock and open /var/mail/user (mbox only)
//
// The methods are in packages of their own: maildir, mbox, command; format holds
// the format specifiers of smtpd.conf(5), forward the checks of forward(5).
package mda

import (
	"io"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/envelope"
)

// Delivery is one message for one recipient. The caller changes nothing of it
// until Done was called.
type Delivery struct {
	Gen      mail.Gen
	Envelope *envelope.Envelope // of type MDA
	Size     int64              // of the body, bytes
	// The body: all of it in Body, or, when Body is nil, read from Reader at
	// offsets 0 to Size. Lines end in LF.
	Body   []byte
	Reader io.ReaderAt
	// Done is called once, from a goroutine of the pool, and must not wait for
	// anything, another delivery of the pool least of all.
	Done func(Result)
}

// Result tells what became of a delivery.
type Result struct {
	// Err is nil when the mail is in the mailbox and on stable storage. Its Text
	// is the line for the envelope and the report; its class is Temp or Perm.
	Err *mailerr.Error
	// Stat is what follows stat= in the log: "Delivered", "Loop detected" or
	// "Error (…)".
	Stat string
}

// Limits are those of `mda limit`.
type Limits struct {
	MaxSession        int // agents, and commands, at a time; default 50
	MaxSessionPerUser int // commands of a user at a time; default 7
}

// Options are what a Pool needs.
type Options struct {
	Clock  clock.Clock
	Log    *mlog.Logger
	Limits Limits
	// AgentsPerUser bounds the agents of one uid; default 2.
	AgentsPerUser int
	// Writers bounds the agents that write to the disk at a time; default half as
	// many as there are processors: the rest is for those who take mail in.
	Writers int
	// Idle is how long an agent without work stays; default 5 s.
	Idle time.Duration
	// Patience is how long an agent may take for one delivery before it is given
	// up; default 330 s, more than the 300 s that a command has.
	Patience time.Duration
}
