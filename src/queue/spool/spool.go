// Package spool keeps messages as files, in OpenSMTPD's layout:
//
//	queue/XX/MSGID/message   the body; XX is the first byte of MSGID
//	queue/XX/MSGID/EVPID     an envelope, in the text form
//	incoming/                messages on their way, and large bodies
//	corrupt/                 what could not be read, set aside
//
// A message directory below queue/ is complete when it holds the body: it is
// written elsewhere, synced, and renamed into place.
package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
)

// The directories.
const (
	QueueDir    = "queue"
	IncomingDir = "incoming"
	CorruptDir  = "corrupt"

	body = "message"
)

// MaxEnvelope is the size in bytes of the largest envelope file read.
const MaxEnvelope = 64 << 10

// Spool works on the files below a disk.FS. Several goroutines may work on
// different messages.
type Spool struct {
	FS      disk.FS
	mu      sync.Mutex
	durable [256]bool // buckets known to be durable
}

// New returns a Spool.
func New(fs disk.FS) *Spool { return &Spool{FS: fs} }

// Incoming returns the name of a large body that the journal refers to.
func Incoming(id mail.MessageID) string { return IncomingDir + "/" + id.String() }

// Bucket returns the directory that holds the directory of a message.
func Bucket(id mail.MessageID) string { return fmt.Sprintf("%s/%02x", QueueDir, uint32(id)>>24) }

// MessageDir returns the directory of a message.
func MessageDir(id mail.MessageID) string { return Bucket(id) + "/" + id.String() }

// BodyName returns the file that holds the body of a message.
func BodyName(id mail.MessageID) string { return MessageDir(id) + "/" + body }

// EnvelopeName returns the file of an envelope.
func EnvelopeName(id mail.EnvelopeID) string { return MessageDir(id.Message()) + "/" + id.String() }

// Has tells whether there is something in the place of a message.
func (s *Spool) Has(id mail.MessageID) (bool, error) {
	_, err := s.FS.Stat(MessageDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Complete tells whether a message is whole as files.
func (s *Spool) Complete(id mail.MessageID) (bool, error) {
	_, err := s.FS.Stat(BodyName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Each calls f for everything that has the name and the place of a message.
func (s *Spool) Each(f func(mail.MessageID) error) error {
	buckets, err := s.FS.ReadDir(QueueDir)
	if err != nil {
		return ignoreAbsent(err)
	}
	for _, b := range buckets {
		if len(b) != 2 {
			continue // OpenSMTPD skips it too
		}
		dir := QueueDir + "/" + b
		names, err := s.FS.ReadDir(dir)
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			id, err := mail.ParseMessageID(name)
			if err != nil || MessageDir(id) != dir+"/"+name {
				continue
			}
			if err := f(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Envelopes lists the envelope files of a message.
func (s *Spool) Envelopes(id mail.MessageID) ([]mail.EnvelopeID, error) {
	names, err := s.FS.ReadDir(MessageDir(id))
	if err != nil {
		return nil, ignoreAbsent(err)
	}
	var evps []mail.EnvelopeID
	for _, name := range names {
		evp, err := mail.ParseEnvelopeID(name)
		if err == nil && evp.Message() == id && evp.String() == name {
			evps = append(evps, evp)
		}
	}
	return evps, nil
}

// Write makes a message into files and returns when they are durable. What an
// earlier attempt left is replaced. With a nil text the message's large body is
// moved from incoming/.
func (s *Spool) Write(id mail.MessageID, text io.ReaderAt, size int64, envs []envelope.Envelope) error {
	if text == nil {
		// An earlier attempt may have moved the body: it must not go.
		whole, err := s.Complete(id)
		if err != nil {
			return err
		}
		if whole {
			return s.finish(id, envs)
		}
	}
	tmp := Incoming(id) + ".new"
	if err := s.RemoveTree(tmp); err != nil {
		return err
	}
	if err := s.FS.Mkdir(tmp); err != nil {
		return err
	}
	if text != nil {
		if err := s.create(tmp+"/"+body, io.NewSectionReader(text, 0, size)); err != nil {
			return err
		}
	}
	for i := range envs {
		b, err := envs[i].AppendText(nil)
		if err != nil {
			return err
		}
		if err := s.create(tmp+"/"+envs[i].ID.String(), strings.NewReader(string(b))); err != nil {
			return err
		}
	}
	if err := s.FS.SyncDir(tmp); err != nil {
		return err
	}
	if err := s.makeBucket(id); err != nil {
		return err
	}
	if err := s.RemoveTree(MessageDir(id)); err != nil {
		return err
	}
	if err := s.FS.Rename(tmp, MessageDir(id)); err != nil {
		return err
	}
	if err := s.FS.SyncDir(Bucket(id)); err != nil {
		return err
	}
	if text == nil {
		return s.moveBody(id)
	}
	return nil
}

// finish makes durable what an earlier attempt had in place but for the last
// sync.
func (s *Spool) finish(id mail.MessageID, envs []envelope.Envelope) error {
	if err := s.makeBucket(id); err != nil {
		return err
	}
	if err := s.FS.SyncDir(Bucket(id)); err != nil {
		return err
	}
	for i := range envs {
		if err := s.WriteEnvelope(&envs[i]); err != nil {
			return err
		}
	}
	return s.FS.SyncDir(MessageDir(id))
}

// moveBody completes a directory with the large body.
func (s *Spool) moveBody(id mail.MessageID) error {
	if err := s.FS.Rename(Incoming(id), BodyName(id)); err != nil {
		return err
	}
	return s.FS.SyncDir(MessageDir(id))
}

func (s *Spool) makeBucket(id mail.MessageID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable[id>>24] {
		return nil
	}
	if err := s.FS.Mkdir(Bucket(id)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when it was there: whoever made it may have been stopped before
	// it was durable.
	err := s.FS.SyncDir(QueueDir)
	s.durable[id>>24] = err == nil
	return err
}

// create writes a file and syncs it.
func (s *Spool) create(name string, from io.Reader) error {
	f, err := s.FS.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(&cursor{f: f}, from)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// cursor writes one piece behind the other.
type cursor struct {
	f  disk.File
	at int64
}

func (c *cursor) Write(p []byte) (int, error) {
	n, err := c.f.WriteAt(p, c.at)
	c.at += int64(n)
	return n, err
}

// WriteEnvelope replaces, or adds, the file of an envelope of a message that is
// there, and returns when that is durable.
func (s *Spool) WriteEnvelope(e *envelope.Envelope) error {
	b, err := e.AppendText(nil)
	if err != nil {
		return err
	}
	tmp := IncomingDir + "/" + e.ID.String() + ".new"
	if err := s.FS.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.create(tmp, strings.NewReader(string(b))); err != nil {
		return err
	}
	if err := s.FS.Rename(tmp, EnvelopeName(e.ID)); err != nil {
		return err
	}
	return s.FS.SyncDir(MessageDir(e.ID.Message()))
}

// ReadEnvelope reads the file of an envelope.
func (s *Spool) ReadEnvelope(id mail.EnvelopeID) (envelope.Envelope, error) {
	f, err := s.FS.Open(EnvelopeName(id), false)
	if err != nil {
		return envelope.Envelope{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return envelope.Envelope{}, err
	}
	if size > MaxEnvelope {
		return envelope.Envelope{}, envelope.ErrMalformed
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return envelope.Envelope{}, err
	}
	return envelope.ParseText(id, b[:n])
}

// OpenBody opens the body of a message that is complete, or, when incoming is
// set, perhaps still in incoming/.
func (s *Spool) OpenBody(id mail.MessageID, incoming bool) (disk.File, error) {
	if incoming {
		f, err := s.FS.Open(Incoming(id), false)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return s.FS.Open(BodyName(id), false)
}

// RemoveEnvelope unlinks the file of an envelope; it need not be there. The
// removal is durable after Sync of its MessageDir.
func (s *Spool) RemoveEnvelope(id mail.EnvelopeID) error {
	return ignoreAbsent(s.FS.Remove(EnvelopeName(id)))
}

// RemoveMessage removes a message and all its files; it need not be there. The
// removal is durable after Sync of its Bucket.
func (s *Spool) RemoveMessage(id mail.MessageID) error {
	// The body first: what a crash leaves is then not complete.
	if err := ignoreAbsent(s.FS.Remove(BodyName(id))); err != nil {
		return err
	}
	return s.RemoveTree(MessageDir(id))
}

// RemoveTree removes a file, or a directory and the files in it, two levels
// deep at most, which is what there can be below incoming/ and queue/.
func (s *Spool) RemoveTree(name string) error { return s.removeTree(name, 2) }

func (s *Spool) removeTree(name string, depth int) error {
	err := s.FS.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if depth == 0 {
		return err
	}
	names, lerr := s.FS.ReadDir(name)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, n := range names {
		if err := s.removeTree(name+"/"+n, depth-1); err != nil {
			return err
		}
	}
	return ignoreAbsent(s.FS.Remove(name))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SetAside moves a file or directory to corrupt/ and returns its name there.
func (s *Spool) SetAside(name string) (string, error) {
	base := name[strings.LastIndexByte(name, '/')+1:]
	for n := 0; n < 1000; n++ {
		to := fmt.Sprintf("%s/%s.%d", CorruptDir, base, n)
		if _, err := s.FS.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := s.FS.Rename(name, to); err != nil {
			return "", err
		}
		return to, s.FS.SyncDir(CorruptDir)
	}
	return "", fmt.Errorf("%s: too many of that name in %s", base, CorruptDir)
}

// Sync makes removals in a directory durable; it may be gone itself.
func (s *Spool) Sync(dir string) error { return ignoreAbsent(s.FS.SyncDir(dir)) }

// Keep writes bytes under a name in corrupt/, unless it is there already.
func (s *Spool) Keep(name string, b []byte) error {
	err := s.create(CorruptDir+"/"+name, strings.NewReader(string(b)))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.FS.SyncDir(CorruptDir)
}
