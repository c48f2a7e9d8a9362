package queue

import (
	"context"
	"io"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// InlineMax is the size in bytes of the largest body that travels in the
// journal; a larger one is written with NewBody.
const InlineMax = 64 << 10

// Options of a Store. Zero values are the defaults named.
type Options struct {
	Clock       clock.Clock
	Log         *mlog.Logger
	Rand        io.Reader // of identifiers; nil: crypto/rand
	SegmentSize int64     // bytes of a journal segment; 64 MiB
	Segments    int       // segments in use before the oldest is emptied into the spool; 4
	Cache       int64     // bytes of recent bodies kept in memory; 8 MiB
	CheckOwner  bool      // refuse a spool that does not belong to Owner
	Owner       uint32    // uid

	// Intake is told when the store stops taking mail, with what to answer,
	// and, with nil, when it takes mail again. It must not wait, nor call the
	// Store. Optional.
	Intake func(*mailerr.Error)
}

// Message is what Commit makes durable.
type Message struct {
	ID mail.MessageID
	// Inline is a body of at most InlineMax bytes. The Store keeps the slice:
	// it must not be changed afterwards.
	Inline []byte
	// Body is a larger one, closed without error; Inline is nil then.
	Body *Body
	// Done lists envelopes, of other messages, that are complete if and only
	// if this message is durable: a bounce replaces its original so.
	Done []mail.EnvelopeID
}

// Summary is what the run queue needs to know of an envelope. Times are Unix
// seconds, zero for never.
type Summary struct {
	ID         mail.EnvelopeID
	Type       envelope.Type
	Flags      envelope.Flags
	Retry      uint16
	Action     string
	Domain     string // of the destination
	User       string // owner of a local delivery
	Created    int64
	TTL        int64 // seconds
	LastTry    int64
	LastBounce int64
}

// Reader reads a body. It is safe for use by many goroutines; Close ends it.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Size is that of the body in bytes.
	Size() int64
	// Bytes returns the whole body when it is in memory, else nil. It must not
	// be changed.
	Bytes() []byte
}

// API lists what a *Store offers; the methods have the full comments.
//
//	Open(ctx, fs, Options) (*Store, error)
type API interface {
	Reserve(n int) ([]mail.MessageID, error)
	Release(ids ...mail.MessageID)
	NewBody(ctx context.Context, id mail.MessageID) (*Body, error)

	// Commit returns nil when message and envelopes are durable. The error is
	// a *mailerr.Error: 452 for a full disk, 451 otherwise; after it nothing of
	// the message is kept, and the id may be released or committed again.
	Commit(ctx context.Context, m Message, envs []envelope.Envelope) error
	// CommitAsync calls done, from a goroutine of the Store, which must not
	// wait in it. It keeps envs and m.Inline.
	CommitAsync(m Message, envs []envelope.Envelope, done func(error))

	// Update and Done ride with the next commit, at most 100 ms later. Of an
	// unknown or completed envelope they do nothing.
	Update(e *envelope.Envelope)
	Done(ids ...mail.EnvelopeID)
	// Flush returns when all that was asked before is durable.
	Flush(ctx context.Context) error

	Envelope(id mail.EnvelopeID) (envelope.Envelope, error) // ErrNotFound, ErrDamaged
	OpenBody(id mail.MessageID) (Reader, error)             // ErrNotFound, ErrDamaged

	// Each calls f for every live envelope known, in no order, until f
	// returns false.
	Each(f func(Summary) bool)
	// Verify compares the spool with the index, to be run once after Open, in
	// a goroutine of the caller. It calls found for each envelope that another
	// program left in the spool, lost for each that is gone or damaged.
	Verify(ctx context.Context, found func(Summary), lost func(mail.EnvelopeID)) error

	// PutState keeps a small value durable like Done; nil removes it. State
	// calls f for each of a kind until f returns false.
	PutState(kind, key string, value []byte)
	State(kind string, f func(key string, value []byte) bool)

	Intake() *mailerr.Error // nil while mail is taken
	Stat() (disk.Space, error)
	// Close makes everything durable, writes a checkpoint and ends all
	// goroutines.
	Close() error
}

// Body is a large body being received.
type Body struct{}

var _ io.WriteCloser = (*Body)(nil)

// Write adds to the body.
func (b *Body) Write(p []byte) (int, error) { return 0, io.ErrClosedPipe }

// Close makes the body durable and ready for Commit.
func (b *Body) Close() error { return io.ErrClosedPipe }

// Abort gives the body up and removes what was written.
func (b *Body) Abort() {}
