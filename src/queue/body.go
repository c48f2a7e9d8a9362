package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/journal"
	"opensmtpd/src/queue/spool"
)

// Body is a large body being received: a file below incoming/. It is used by one
// goroutine at a time.
type Body struct {
	s     *Store
	id    mail.MessageID
	file  disk.File // nil once closed
	size  int64
	ready bool  // durable, fit for Commit
	err   error // of the first failure
}

// NewBody begins the body of a message whose identifier is reserved. What an
// earlier, failed attempt left is replaced.
func (s *Store) NewBody(ctx context.Context, id mail.MessageID) (*Body, error) {
	if err := ctx.Err(); err != nil {
		return nil, failure(err)
	}
	name := spool.Incoming(id)
	f, err := s.fs.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err = s.fs.Remove(name); err == nil {
			f, err = s.fs.Create(name)
		}
	}
	if err != nil {
		return nil, failure(err)
	}
	return &Body{s: s, id: id, file: f}, nil
}

// Write adds to the body. After an error the body can only be aborted.
func (b *Body) Write(p []byte) (int, error) {
	if b.file == nil {
		return 0, io.ErrClosedPipe
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.file.WriteAt(p, b.size)
	b.size += int64(n)
	if err != nil {
		b.err = failure(err)
		return n, b.err
	}
	return n, nil
}

// Size returns how many bytes have been written.
func (b *Body) Size() int64 { return b.size }

// Close makes the body durable; it can then be committed. It waits for the disk.
// After an error the body is gone.
func (b *Body) Close() error {
	if b.file == nil {
		return b.err
	}
	err := b.err
	if err == nil {
		err = b.file.Sync()
	}
	if cerr := b.file.Close(); err == nil {
		err = cerr
	}
	b.file = nil
	if err == nil {
		err = b.s.fs.SyncDir(spool.IncomingDir)
	}
	if err != nil {
		b.err = failure(err)
		b.remove()
		return b.err
	}
	b.ready = true
	return nil
}

// Abort gives the body up, closed or not, and removes what was written. Not for a
// body that was committed.
func (b *Body) Abort() {
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
	b.ready, b.err = false, io.ErrClosedPipe
	b.remove()
}

func (b *Body) remove() {
	// What stays is removed at the next start.
	if err := b.s.fs.Remove(spool.Incoming(b.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.s.opt.Log.StoreTrouble(err)
	}
}

// Reader reads a body. It may be used by many goroutines.
type Reader struct {
	bytes []byte // nil: in file
	file  disk.File
	size  int64
}

// Size is that of the body in bytes.
func (r *Reader) Size() int64 { return r.size }

// Bytes returns the whole body when it is in memory, else nil. It must not be
// changed.
func (r *Reader) Bytes() []byte { return r.bytes }

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if r.file != nil {
		return r.file.ReadAt(p, off)
	}
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	n := copy(p, r.bytes[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close ends the reading.
func (r *Reader) Close() error {
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}

// retries bounds how often a reader looks again because what it looked for had
// been moved meanwhile.
const retries = 3

// OpenBody opens the body of a live message: from memory when it is recent, else
// from the journal or a file. The error is ErrNotFound, ErrDamaged, or what the
// disk says.
func (s *Store) OpenBody(id mail.MessageID) (*Reader, error) {
	var err error
	for range retries {
		s.mu.Lock()
		m := s.messages[id]
		if m == nil {
			s.mu.Unlock()
			return nil, ErrNotFound
		}
		if m.body != nil {
			r := &Reader{bytes: m.body, size: m.size}
			s.mu.Unlock()
			return r, nil
		}
		at, file, spooled, size := m.at, m.file, m.spooled, m.size
		s.mu.Unlock()
		var r *Reader
		switch {
		case file || spooled:
			r, err = s.openFile(id, spooled, size)
		default:
			r, err = readInline(at)
		}
		if err == nil {
			return r, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrDamaged) || errors.Is(err, errPayload) {
		s.opt.Log.MessageDamaged(id, err.Error(), "")
		return nil, ErrDamaged
	}
	return nil, err
}

func readInline(at ref) (*Reader, error) {
	payload, err := at.seg.Read(int64(at.off), int(at.n), nil)
	if err != nil {
		return nil, err
	}
	h, err := parseHead(payload)
	if err != nil {
		return nil, err
	}
	return &Reader{bytes: h.body, size: int64(len(h.body))}, nil
}

func (s *Store) openFile(id mail.MessageID, spooled bool, size int64) (*Reader, error) {
	f, err := s.spool.OpenBody(id, !spooled)
	if err != nil {
		return nil, err
	}
	n, err := f.Size()
	if err == nil && n != size {
		err = fmt.Errorf("%w: body of %d bytes, not %d", errPayload, n, size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Reader{file: f, size: size}, nil
}
