package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
	"opensmtpd/src/queue/spool"
)

const (
	// InlineMax is the size in bytes of the largest body that travels in the
	// journal; a larger one is written with NewBody.
	InlineMax = 64 << 10

	defaultSegment  = 64 << 20
	defaultSegments = 4
	defaultCache    = 8 << 20

	// checkpointEvery is the time after which a changed index is saved, and
	// bounds what a start has to read.
	checkpointEvery = time.Minute
)

var (
	// ErrNotFound tells that no such message or envelope lives.
	ErrNotFound = errors.New("not in the queue")
	// ErrDamaged tells that it lives but cannot be read; what is left of it
	// was set aside.
	ErrDamaged = errors.New("damaged in the queue")
)

// Options of a Store. Zero values are the defaults named.
type Options struct {
	Clock       clock.Clock
	Log         *mlog.Logger
	Rand        io.Reader // of identifiers; nil: crypto/rand
	SegmentSize int64     // bytes of a journal segment; 64 MiB
	Segments    int       // segments in use before the oldest is emptied into the spool; 4
	Cache       int64     // bytes of recent messages kept in memory; 8 MiB
	CheckOwner  bool      // refuse a spool that does not belong to Owner
	Owner       uint32    // uid

	// Intake is told when the store stops taking mail, with what to answer,
	// and, with nil, when it takes mail again. It must not wait, nor call the
	// Store. Optional.
	Intake func(*mailerr.Error)

	// manual leaves the upkeep to the test.
	manual bool
	// upkept is told that a round of upkeep is over. For tests.
	upkept func()
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
	LocalUID   uint32 // who submitted it on the local socket
	Created    int64
	TTL        int64 // seconds
	LastTry    int64
	LastBounce int64
}

// Store is the queue on disk. Its methods may be called at the same time.
type Store struct {
	fs    disk.FS
	opt   Options
	log   *journal.Log
	spool *spool.Spool
	lock  io.Closer

	readOnly bool

	mu sync.Mutex // guards what follows
	index
	cache
	reserved map[mail.MessageID]struct{}
	pos      journal.Position             // what the index reflects
	saved    journal.Position             // what the last checkpoint covers
	dirty    bool                         // the index changed since
	litter   []litter                     // files to remove
	scanned  bool                         // Verify has been through the spool
	gone     map[mail.EnvelopeID]struct{} // completed, of messages unknown; until then

	upkeep    sync.Mutex          // held by whoever works on the files
	unsynced  map[string]struct{} // directories with removals, for upkeep
	savedAt   time.Duration       // monotonic time of the last checkpoint
	savedTook time.Duration
	rotated   atomic.Bool // a segment was begun since

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
	once sync.Once
	err  error // of Close
}

func (o *Options) defaults() {
	if o.Clock == nil {
		o.Clock = clock.NewSystem()
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegment
	}
	if o.Segments == 0 {
		o.Segments = defaultSegments
	}
	if o.Cache == 0 {
		o.Cache = defaultCache
	}
}

// Each calls f for every live envelope, in no order, until f returns false. It
// works on a copy: f may call the Store.
func (s *Store) Each(f func(Summary) bool) {
	s.mu.Lock()
	all := make([]Summary, 0, len(s.messages))
	for _, m := range s.messages {
		for i := range m.envs {
			all = append(all, m.envs[i].Summary)
		}
	}
	s.mu.Unlock()
	for _, sum := range all {
		if !f(sum) {
			return
		}
	}
}

// Intake returns what to answer to MAIL while the journal cannot be written, nil
// when mail is taken.
func (s *Store) Intake() *mailerr.Error {
	if err := s.log.Err(); err != nil {
		return failure(err)
	}
	return nil
}

// Stat tells how full the file system of the spool is.
func (s *Store) Stat() (disk.Space, error) { return s.fs.Space() }

// Gone tells that somebody has removed the journal.
func (s *Store) Gone() error { return s.log.Gone() }

// nudge wakes the upkeep.
func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close makes everything durable, saves the index so that the next start reads
// nothing else, and ends the goroutines. Bodies open for reading stay readable.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.stop)
		if !s.opt.manual {
			<-s.done
		}
		s.err = s.log.Close()
		if s.err == nil {
			s.err = s.saveClean(context.Background())
		}
		s.log.CloseFiles()
		s.lock.Close()
	})
	return s.err
}
