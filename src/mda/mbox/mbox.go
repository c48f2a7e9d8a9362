// Package mbox appends messages to a mailbox file in the mbox form: a line
// "From sender date", the message with lines that begin with "From " quoted by
// ">", and an empty line.
package mbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"opensmtpd/src/clock"
)

// File is an open mailbox, as *os.File is one. Writes go to its end.
type File interface {
	io.Writer
	Truncate(size int64) error
	Sync() error
	// Size returns the length in bytes.
	Size() (int64, error)
	// Lock takes, or when off releases, the fcntl lock on the whole file without
	// waiting; unix.EAGAIN or EACCES tell that somebody else has it.
	Lock(on bool) error
}

// Message is one message to append.
type Message struct {
	From string // of the separator line
	Head []byte // written before the body
	Body io.Reader
	// QuoteAll quotes every line that begins with "From ", as mail.mboxfile does;
	// otherwise only the first line and those after an empty one, as mail.local.
	QuoteAll bool
	Err      error // set by Append
}

// ErrLocked tells that somebody else held the lock all the time.
var ErrLocked = errors.New("mailbox is locked by another program")

// The lock is tried this often; mail readers hold it for moments.
const (
	lockTries = 50
	lockPause = 200 * time.Millisecond
)

// Append appends a batch under one lock and one sync. A message that cannot be
// written whole is taken back and has its Err; when nothing can be synced all
// have, and the file is as long as it was.
func Append(ctx context.Context, f File, c clock.Clock, batch []*Message) {
	fail := func(err error) {
		for _, m := range batch {
			if m.Err == nil {
				m.Err = err
			}
		}
	}
	if err := lock(ctx, f, c); err != nil {
		fail(err)
		return
	}
	defer f.Lock(false)
	start, err := f.Size()
	if err != nil {
		fail(err)
		return
	}
	end := start
	for _, m := range batch {
		n, err := m.write(f, c.Now())
		if err == nil {
			end += n
			continue
		}
		m.Err = err
		if err := f.Truncate(end); err != nil {
			fail(fmt.Errorf("mailbox may hold a part of a message: %w", err))
			return
		}
	}
	if err := f.Sync(); err != nil {
		fail(errors.Join(err, f.Truncate(start)))
	}
}

func lock(ctx context.Context, f File, c clock.Clock) error {
	for range lockTries {
		err := f.Lock(true)
		if err != unix.EAGAIN && err != unix.EACCES {
			return err
		}
		woken, cancel := c.After(lockPause)
		select {
		case <-woken:
		case <-ctx.Done():
			cancel()
			return ctx.Err()
		}
	}
	return ErrLocked
}

// write returns how many bytes the message takes.
func (m *Message) write(w io.Writer, now time.Time) (int64, error) {
	q := quoter{w: w, all: m.QuoteAll}
	q.buf = append(q.buf, "From "+m.From+" "+now.Format("Mon Jan _2 15:04:05 2006")+"\n"...)
	q.begin()
	q.Write(m.Head)
	if m.Body != nil {
		if _, err := io.Copy(&q, m.Body); err != nil {
			return q.n, err
		}
	}
	return q.finish()
}

// quoter writes lines, quoting separators.
type quoter struct {
	w     io.Writer
	all   bool
	buf   []byte
	n     int64 // written
	err   error
	blank bool   // the line before was empty
	line  []byte // the first bytes of the line so far, at most five
	held  bool   // line is not yet in buf
}

const mark = "From "

const flushSize = 64 << 10

// begin starts the message: its first line counts as one after an empty one.
func (q *quoter) begin() { q.blank, q.held = true, true }

// Write implements io.Writer.
func (q *quoter) Write(p []byte) (int, error) {
	for i := 0; i < len(p) && q.err == nil; {
		if q.held {
			q.line = append(q.line, p[i])
			i++
			if p[i-1] == '\n' || len(q.line) == len(mark) {
				q.release()
			}
			continue
		}
		end := i
		for end < len(p) && p[end] != '\n' {
			end++
		}
		if end < len(p) {
			end++
			q.held, q.blank = true, false
		}
		q.buf = append(q.buf, p[i:end]...)
		i = end
		if len(q.buf) >= flushSize {
			q.flush()
		}
	}
	return len(p), q.err
}

// release decides about the held start of a line.
func (q *quoter) release() {
	if string(q.line) == mark && (q.all || q.blank) {
		q.buf = append(q.buf, '>')
	}
	q.buf = append(q.buf, q.line...)
	if n := len(q.line); n > 0 && q.line[n-1] == '\n' {
		q.blank = n == 1
	} else {
		q.held = false
	}
	q.line = q.line[:0]
}

func (q *quoter) flush() {
	if q.err == nil {
		var n int
		n, q.err = q.w.Write(q.buf)
		q.n += int64(n)
	}
	q.buf = q.buf[:0]
}

// finish ends the last line and the message.
func (q *quoter) finish() (int64, error) {
	if !q.held || len(q.line) > 0 {
		if q.held {
			q.release()
		}
		q.buf = append(q.buf, '\n')
	}
	q.buf = append(q.buf, '\n')
	q.flush()
	return q.n, q.err
}
