// Package proc is how the processes of smtpd are made and talk: re-execution by
// role, peers, calls and replies, the two-phase reload. The parent's side and
// the child's side meet in the messages of package msg.
package proc

import (
	"context"
	"errors"
	"os"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
)

// Role names a process, in the words of ps(1).
type Role string

const (
	Parent     Role = "parent"
	Dispatcher Role = "dispatcher"
	Lookup     Role = "lookup"
	Queue      Role = "queue"
	Control    Role = "control"
	Crypto     Role = "crypto"
	Agent      Role = "agent" // a delivery agent, as a user
)

// Caller is the side of a peer that most code needs; tests give a fake.
type Caller interface {
	// Send sends one way. It waits while the peer's credit is used up.
	Send(ctx context.Context, m msg.Message) error
	// Call sends and waits for the reply, which it parses into reply. A
	// msg.Error reply is returned as *mailerr.Error; a peer that is gone or a
	// deadline that passes is a temporary *mailerr.Error too.
	Call(ctx context.Context, m msg.Message, reply msg.Parser) error
	// CallFile is Call for a reply that brings a descriptor (nil if none did).
	CallFile(ctx context.Context, m msg.Message, reply msg.Parser) (*os.File, error)
	// SendFile is Send with a descriptor, which it closes in this process.
	SendFile(ctx context.Context, m msg.Message, f *os.File) error
}

// Request is one received message. A handler that answers does so once, with
// Reply or Fail, from any goroutine.
type Request interface {
	From() Role
	Type() msg.Type
	// Body is valid until the handler returns, or until the reply when the row
	// says Concurrent.
	Body() []byte
	// Parse reads Body. On error the handler should Fail the request.
	Parse(m msg.Parser) error
	// File is the descriptor that came along, or nil; the handler owns it.
	File() *os.File
	// Row sends one of several replies; Reply or Fail ends them.
	Row(m msg.Message)
	Reply(m msg.Message)
	ReplyFile(m msg.Message, f *os.File)
	Fail(err *mailerr.Error)
}

// Handler is a row of a role's table of messages.
type Handler struct {
	From Role // who may send it
	Type msg.Type
	// Concurrent rows run in a goroutine of their own, bounded per peer; others
	// run in the order of arrival and must not wait for another process.
	Concurrent bool
	Do         func(context.Context, Request)
}

// File is a descriptor handed over with a configuration: a listener or a table
// file, named by an identity that stays the same while nothing about it changed.
type File struct {
	Identity string
	File     *os.File
}

// Conf is one generation of a role's configuration.
type Conf struct {
	Gen        mail.Gen
	Projection []byte
	Files      []File // those that are new; unchanged ones were given before
	Resources  Resources
}

// Resources is what a chroot hides, as parent read it.
type Resources struct {
	CABundle   []byte
	ResolvConf []byte
	Hosts      []byte
	Zone       string // of the local time
	UIDs       map[string]uint32
	// Operators are the uids of the members of the group "operators", by
	// whatever way they are; control lets them do what root may.
	Operators []uint32
}

// Program is a role: glue between the packages that do the work. New is given
// an Env before privileges are dropped and must not wait; it must not open
// files of its own either, which Run does, as the user that the role has become.
type Program interface {
	Handlers() []Handler
	// Prepare checks a new generation and keeps it ready; on error the old one
	// stays and the error is shown to the administrator.
	Prepare(ctx context.Context, c Conf) error
	// Commit makes the prepared generation current. It cannot fail.
	Commit(gen mail.Gen)
	// Abort forgets the prepared generation.
	Abort(gen mail.Gen)
	// Run works until ctx ends; then it has the grace that Env tells to finish
	// and returns. An error stops the daemon.
	Run(ctx context.Context) error
}

// Env is what a role's constructor is given. Peers are there from the start but
// calls may only be made from Run and from handlers.
type Env struct {
	Role  Role
	Clock clock.Clock
	Log   *mlog.Logger
	Peers map[Role]Caller
	Conf  Conf // the first generation; New reads it as Prepare and Commit would
	// Dir is the only directory that the role may use, as it sees it after the
	// drop: "/" of its chroot, or a path in unprivileged mode. Only queue has
	// one in which it may write: the spool.
	Dir string
	// Paused lists what smtpd -P wants stopped at the start: mda, mta, smtp.
	Paused []string
	// Unprivileged tells that all roles run as one ordinary user (smtpd -S).
	Unprivileged bool
	// Trace tells whether a trace of smtpd -T or smtpctl trace is on.
	Trace func(name string) bool
	// Grace is how long Run may go on after its context ended, as a rule: ask
	// GraceAfter.
	Grace time.Duration
}

// errOrphaned is why the context of Run ends when parent is gone.
var errOrphaned = errors.New("parent is gone")

// orphanGrace is what a role has left without parent: enough for what is on its
// way to the disk, little enough that a daemon which is started in our place
// need not wait long for the spool.
const orphanGrace = time.Second

// GraceAfter tells, after the end of Run's context, how long Run may go on.
func (e *Env) GraceAfter(ctx context.Context) time.Duration { return graceAfter(ctx, e.Grace) }

func graceAfter(ctx context.Context, grace time.Duration) time.Duration {
	if errors.Is(context.Cause(ctx), errOrphaned) {
		return min(grace, orphanGrace)
	}
	return grace
}
