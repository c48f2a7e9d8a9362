// Package msg holds every message that processes send each other as a type. A
// message appends itself to a byte slice and parses itself from one; nothing
// here uses reflection, and no input makes a parser panic or allocate more than
// the frame that carried it.
//
// The SMTP path, for one recipient and a small body:
//
//	dispatcher → lka    Expand            "RCPT TO: who is this?"
//	lka        → queue  AddEnvelope …     one way, under the message id
//	dispatcher → queue  Commit            body, number of envelopes; the reply is the 250
package msg

import (
	"net/netip"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// Type is the number of a message on the wire. Numbers are never reused for
// something else while two builds may meet.
type Type uint16

// Message is what can be sent.
type Message interface {
	Type() Type
	// Append adds the body of the message to b.
	Append(b []byte) []byte
}

// Parser is what can be received: Parse reads the whole body or reports what
// is wrong with it. It keeps no reference to b.
type Parser interface {
	Message
	Parse(b []byte) error
}

// The numbers, by the pair of processes that speak.
const (
	TypeError Type = iota + 1 // reply of any call that failed

	// parent ↔ every role: life and configuration.
	TypeHello
	TypePeer     // + descriptor: the socket to another role
	TypeResource // + descriptor or bytes: what a chroot hides
	TypeFile     // + descriptor: listener or table file, by identity
	TypeConf     // a piece of the projection
	TypePrepare
	TypeCommitConf
	TypeAbortConf
	TypeReady
	TypeShutdown
	TypeVerbose

	// dispatcher → lka
	TypeExpand Type = iota + 32
	TypeExpanded
	TypeRDNS
	TypeRDNSReply

	// lka → parent, agents
	TypeUserInfo Type = iota + 64
	TypeUserInfoReply
	TypeInclude
	TypeIncludeReply
	TypeTableFile
	TypeTableFileReply // + descriptor: the file, opened again

	// lka → queue, dispatcher → queue, queue → dispatcher
	TypeAddEnvelope Type = iota + 96
	TypeReserveIDs
	TypeReservedIDs
	TypeBodyChunk
	TypeCommit
	TypeCommitted
	TypeDiscard
	TypeIntake
	TypeSubmit // bounces: queue → dispatcher asks for a front-door session

	// queue → parent, queue ↔ agent
	TypeAgent Type = iota + 128
	TypeAgentReply
	TypeDeliver
	TypeDeliverChunk
	TypeDeliverResult
	TypeForward
	TypeForwardReply
	TypeAgentConf    // parent → agent: what it is there for
	TypeMailbox      // agent → parent: lock and open a system mailbox
	TypeMailboxReply // + descriptor
	TypeMailboxDone  // agent → parent: unlock it
	TypeAgentEnd     // queue → parent: this agent does not answer
	TypeUserBase     // parent → lookup: who is this in a userbase table? UserInfoReply answers

	// control → every role
	TypeControl Type = iota + 160
	TypeControlRow
	TypeLocalSession // control → dispatcher: a connection of smtpctl
	TypeStats
	TypeStatsReply
)

// Client is what is known of an SMTP client when a recipient is offered.
type Client struct {
	Listener string         // identity of the listener
	Tag      string         // of the listener
	Socket   bool           // came through the local socket
	Addr     netip.AddrPort // zero for the local socket; keeps its zone
	RDNS     string         // name by reverse DNS, "" when there is none
	Helo     string
	SMTPName string // our name in the greeting
	TLS      bool
	AuthUser string // "" when not authenticated
	UID      uint32 // of a client on the local socket
}

// Expand asks lka for the envelopes of one recipient. The reply is Expanded; the
// envelopes themselves go from lka to queue.
type Expand struct {
	Gen     mail.Gen
	Session mail.SessionID
	Message mail.MessageID
	First   uint32 // number of envelopes that the transaction has so far
	Flags   envelope.Flags
	Client  Client
	Sender  addr.Address
	Rcpt    addr.Address
	Notify  envelope.Notify
	Return  envelope.Return
	EnvID   string
	ORcpt   string
	Now     time.Time // creation time of the envelopes
}

// Expanded answers Expand: what was added, or why the recipient is refused.
type Expanded struct {
	Err   *mailerr.Error // nil when accepted
	Added uint32         // envelopes numbered First … First+Added-1 went to queue
	Dests []addr.Address // of each, for the log
}

// RDNS asks lka for the verified name of an address.
type RDNS struct{ Addr netip.Addr }

// RDNSReply answers RDNS. Name is "" when there is none; Forward tells whether
// the name resolves back to the address; Temp tells that DNS did not answer.
type RDNSReply struct {
	Name    string
	Forward bool
	Temp    bool
}

// UserInfo asks parent for a system user, and for what his .forward holds when
// Forward is set. When Virtual is set the user is from a userbase table: nobody
// is looked up, and the .forward is the one in Home, checked and read as UID and
// GID.
type UserInfo struct {
	Name     string
	Forward  bool
	Virtual  bool
	UID, GID uint32
	Home     string
}

// UserInfoReply answers UserInfo. When Err is set nothing else holds.
type UserInfoReply struct {
	Err        *mailerr.Error // trouble finding out; nil otherwise
	Found      bool
	Name       string
	UID, GID   uint32
	Home       string
	HasForward bool   // ~/.forward exists and passed every check of forward(5); Forward may still be empty
	Forward    []byte // at most 4 KiB
}

// Include asks parent for what a file named by :include: in an aliases table
// holds. It is read as the daemon's own user, never as root: the name comes from
// a table, but a lookup process gone wrong must not read what only root may.
type Include struct{ Path string }

// IncludeReply answers Include. When Err is set nothing else holds.
type IncludeReply struct {
	Err   *mailerr.Error // trouble reading; nil when there is no such file
	Found bool
	Data  []byte // at most MaxInclude bytes; a longer file is an error
}

// MaxInclude is the longest file that :include: takes: what one frame carries.
const MaxInclude = 1<<20 - 4096

// TableFile asks parent to open the file of a table of the given generation
// again, for `smtpctl update table`.
type TableFile struct {
	Gen  mail.Gen
	Name string // of the table; the path is parent's own knowledge
}

// TableFileReply answers TableFile and brings the descriptor unless Err is set.
type TableFileReply struct{ Err *mailerr.Error }

// AddEnvelope gives queue one envelope of a message that is being received.
type AddEnvelope struct{ Envelope envelope.Envelope }

// ReserveIDs asks queue for N message identifiers that nobody else will get.
type ReserveIDs struct{ N uint32 }

// ReservedIDs answers ReserveIDs.
type ReservedIDs struct{ IDs []mail.MessageID }

// BodyChunk is a piece, at most 64 KiB, of a body too large for Commit.
type BodyChunk struct {
	Message mail.MessageID
	Data    []byte
}

// Commit asks queue to make the message and its envelopes durable. A body of at
// most 64 KiB is in Body; a larger one was sent before, in order, as BodyChunk.
type Commit struct {
	Message   mail.MessageID
	Envelopes uint32 // how many lka has sent; queue waits for all of them
	Size      uint64 // of the whole body, bytes
	Streamed  bool
	// TLSOptional is what the header of the message asks for, which nobody knew
	// when the envelopes were made.
	TLSOptional bool
	Body        []byte
}

// Committed answers Commit: Err is nil when all is on stable storage.
type Committed struct{ Err *mailerr.Error }

// Discard tells queue that a message will not be committed. Its identifier
// returns to the pool.
type Discard struct{ Message mail.MessageID }

// Intake tells dispatcher whether queue takes mail: a full disk closes it.
type Intake struct {
	Open bool
	Err  *mailerr.Error // what to answer to MAIL while it is closed
}

// Error is the reply of a call that failed before a reply of its own type could
// be made.
type Error struct{ Err mailerr.Error }
