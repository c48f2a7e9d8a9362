package mlog

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"opensmtpd/src/clock"
)

const (
	// facility is LOG_MAIL (RFC 5424 section 6.2.1), in its place.
	facility = 2 << 3
	// maxLine is the longest line handed to syslog, in bytes: daemons cut at
	// 8 KiB.
	maxLine = 8000
	// backlog is how many bytes of lines may wait for a slow stderr.
	backlog = 1 << 20
	// atomicWrite is what a pipe takes without mixing it with the lines of
	// other processes, in bytes (POSIX PIPE_BUF on the systems we run on).
	atomicWrite = 4096
)

// lostLine is what is said once lines can be written again.
func lostLine(n uint64) string { return fmt.Sprintf("warn: %d log lines were lost", n) }

// Syslog sends lines to syslogd, facility mail, over a connected datagram
// socket. A line that the socket does not take at once is lost, counted, and
// said when one goes through again.
type Syslog struct {
	tag   string
	clock clock.Clock

	mu   sync.Mutex
	file *os.File
	raw  syscall.RawConn
	buf  []byte
	lost uint64
}

// NewSyslog returns a sink over f, which it takes over; nil is allowed, and all
// lines are lost until Replace. tag is the program name in the line.
func NewSyslog(f *os.File, tag string, c clock.Clock) *Syslog {
	s := &Syslog{tag: tag, clock: c}
	s.Replace(f)
	return s
}

// Replace gives the sink another socket, after syslogd was started again.
func (s *Syslog) Replace(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.raw = f, nil
	if f != nil {
		s.raw, _ = f.SyscallConn()
	}
}

// Line implements Sink.
func (s *Syslog) Line(p Priority, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 && s.send(Warning, lostLine(s.lost)) {
		s.lost = 0
	}
	if !s.send(p, line) {
		s.lost++
	}
}

// send writes one line in the form that local syslog sockets have (RFC 3164
// section 4.1, without the host).
func (s *Syslog) send(p Priority, line string) bool {
	if s.raw == nil {
		return false
	}
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	b := fmt.Appendf(s.buf[:0], "<%d>", facility|int(p))
	b = s.clock.Now().AppendFormat(b, time.Stamp)
	s.buf = fmt.Appendf(b, " %s[%d]: %s", s.tag, os.Getpid(), line)
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		_, failed = syscall.Write(int(fd), s.buf)
		return true // whatever happened: never wait
	})
	return err == nil && failed == nil
}

// Close closes the socket.
func (s *Syslog) Close() { s.Replace(nil) }

// DialSyslog connects to the system's syslogd. The socket does not block, and
// works after a chroot.
func DialSyslog() (*os.File, error) {
	var last error
	for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		syscall.CloseOnExec(fd)
		if err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err == nil {
			err = syscall.SetNonblock(fd, true)
		}
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		syscall.Close(fd)
		if last == nil {
			last = fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil, last
}

// Stream writes lines to stderr, or anything else that may block, from a
// goroutine of its own, so that who logs never waits. Lines beyond the backlog
// are lost, counted and said.
type Stream struct {
	w    io.Writer
	lost atomic.Uint64

	mu     sync.Mutex
	work   sync.Cond // something is waiting, or the end
	idle   sync.Cond // nothing is waiting any more
	buf    []byte
	busy   bool
	closed bool
	done   chan struct{}
}

// NewStream returns a sink that writes to w until Close.
func NewStream(w io.Writer) *Stream {
	s := &Stream{w: w, done: make(chan struct{})}
	s.work.L, s.idle.L = &s.mu, &s.mu
	go s.run()
	return s
}

// Line implements Sink.
func (s *Stream) Line(_ Priority, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.buf)+len(line) >= backlog {
		s.lost.Add(1)
		return
	}
	s.buf = append(append(s.buf, line...), '\n')
	s.work.Signal()
}

// Flush waits until what was logged so far has been written.
func (s *Stream) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.buf) > 0 || s.busy) && !s.closed {
		s.idle.Wait()
	}
}

// Close gives what waits d to be written and ends the sink. It returns at the
// latest after d, with the goroutine behind it if the writer is stuck: only the
// end of the process can help then.
func (s *Stream) Close(c clock.Clock, d time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.work.Signal()
	s.idle.Broadcast()
	s.mu.Unlock()
	late, cancel := c.After(d)
	defer cancel()
	select {
	case <-s.done:
	case <-late:
	}
}

func (s *Stream) run() {
	defer close(s.done)
	for {
		b := s.next()
		if b == nil {
			return
		}
		for len(b) > 0 {
			n := wholeLines(b, atomicWrite)
			// There is nobody to tell that stderr is gone.
			_, _ = s.w.Write(b[:n])
			b = b[n:]
		}
		s.mu.Lock()
		s.busy = false
		s.idle.Broadcast()
		s.mu.Unlock()
	}
}

func (s *Stream) next() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 && !s.closed {
		s.work.Wait()
	}
	if len(s.buf) == 0 {
		return nil
	}
	b := s.buf
	if n := s.lost.Swap(0); n > 0 {
		b = append(append(b, lostLine(n)...), '\n')
	}
	s.buf, s.busy = nil, true
	return b
}

// wholeLines returns how many bytes of whole lines fit into limit; at least one line.
func wholeLines(b []byte, limit int) int {
	if len(b) <= limit {
		return len(b)
	}
	for i := limit - 1; i >= 0; i-- {
		if b[i] == '\n' {
			return i + 1
		}
	}
	for i := limit; i < len(b); i++ {
		if b[i] == '\n' {
			return i + 1
		}
	}
	return len(b)
}
