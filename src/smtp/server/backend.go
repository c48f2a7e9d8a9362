// Package server is the SMTP server (RFC 5321): sessions, their commands and
// the way a message takes from DATA to its 250. It knows no rules, queue or
// processes: those are behind Backend.
//
// The protocol is a table of commands (table.go). A handler returns the reply;
// one place writes it, counts it, logs it and shows it to the filters.
//
// A session that waits costs a goroutine with a small stack and no buffer:
// input buffers are lent once the socket is readable, reply buffers until they
// are written. Replies to pipelined commands (RFC 2920) leave in one write.
//
// The end of a message is CR LF . CR LF and nothing else. A message with a bare
// CR or LF is read to its end and refused, so that no two servers can disagree
// where it ended.
package server

import (
	"context"
	"net/netip"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/smtp"
)

// Backend decides and keeps. Its methods are called from the goroutine of the
// session and may wait; ctx ends when the server gives up on its sessions. None
// keeps a Transaction after it returned.
type Backend interface {
	// Admit is asked once who a session is with, before anything is said. Done is
	// told of a session that was refused, too, and can tell by Session.Admitted
	// whether Admit was asked.
	Admit(s *Session) *mailerr.Error
	// Hostname returns what to greet a client as that came in by a listener with
	// Hostnames; "" when the table does not say.
	Hostname(ctx context.Context, s *Session) string
	// Lookup returns the name of an address by reverse DNS.
	Lookup(ctx context.Context, a netip.Addr) Name
	// Begin starts a message and returns its identifier.
	Begin(ctx context.Context) (mail.MessageID, *mailerr.Error)
	// Authenticate tells whether a password is the user's. An error means that
	// it could not be found out.
	Authenticate(ctx context.Context, s *Session, user, password string) (bool, *mailerr.Error)
	// MaySend tells whether the user of s may send as from; it is asked only when
	// the listener has Senders.
	MaySend(ctx context.Context, s *Session, from addr.Address) (bool, *mailerr.Error)
	// Rcpt makes the envelopes of one recipient and returns how many: they are
	// numbered from t.Envelopes on.
	Rcpt(ctx context.Context, s *Session, t *Transaction, r *smtp.Rcpt) (uint32, *mailerr.Error)
	// Chunk takes a piece of a body too large for Commit. It keeps no
	// reference to data.
	Chunk(ctx context.Context, t *Transaction, data []byte) *mailerr.Error
	// Commit makes the message durable: its nil is the 250. Body is all of the
	// message unless pieces of it went to Chunk; then it is empty.
	Commit(ctx context.Context, t *Transaction, body []byte) *mailerr.Error
	// Discard forgets a message that was begun and not committed.
	Discard(id mail.MessageID)
	// Done is told that a session is over.
	Done(s *Session)
}

// Name is what DNS says of a client.
type Name struct {
	Host    string // "" when there is none
	Forward bool   // it resolves back to the address
	Temp    bool   // DNS did not answer
}

// Listener is where a session came in, under one generation of the
// configuration. It is never changed once sessions use it.
type Listener struct {
	Gen      mail.Gen
	Identity string
	Hostname string // in the greeting, and what completes addresses
	// Hostnames is the table that has a name for the address a client connected
	// to; "": there is none.
	Hostnames string
	// Proxy wants the header of a proxy before anything else.
	Proxy bool
	Tag   string
	// Socket is the local socket: clients are users of this machine.
	Socket bool
	// Submission adds Date and Message-ID where they are missing: on the local
	// socket, loopback addresses and port 587.
	Submission bool
	MaskSource bool // leaves the client out of Received
	NoDSN      bool
	Auth       AuthPolicy
	// AuthClear lets clients authenticate without TLS: what they say does not
	// leave the machine.
	AuthClear bool
	AuthTable string // of Backend: who there is and his password; "": the system
	// Senders is a table of Backend: which addresses a user may send as; "":
	// any. Masquerade puts the sender into From.
	Senders      string
	Masquerade   bool
	SubAddrDelim string // between a user and a tag in the addresses of Senders
	ReceivedAuth bool   // Received tells who has authenticated
	TLS          *TLS   // nil: none
	Settings     Settings
	Filter       Filter // nil: none
}

// Client is who is at the other end.
type Client struct {
	Addr netip.AddrPort // zero on the local socket; keeps its zone
	To   netip.Addr     // which of our addresses it connected to
	UID  uint32         // on the local socket
	Name Name
}

// Transaction is a message that is being received.
type Transaction struct {
	ID        mail.MessageID
	Mail      smtp.Mail
	Rcpts     []Recipient
	Envelopes uint32    // made so far, all recipients together
	Received  time.Time // when DATA began
	Size      int64     // of the message as kept, bytes
	Streamed  bool      // pieces went to Chunk
	Junk      bool      // a filter said so
	// TLSOptional: the header says that it need not be protected (RFC 8689
	// section 3), and MAIL did not say that it must.
	TLSOptional bool

	chunks bool // it comes by BDAT, and one has begun
	body   body
}

// Recipient is one that was accepted.
type Recipient struct {
	To   addr.Address
	Last mail.EnvelopeID // the last of its envelopes
}
