package imsg

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepWrite is how large a buffer may be to be kept when a batch did not need
// its size, in bytes.
const keepWrite = 256 << 10

// writer gathers frames while an earlier batch is being written.
type writer struct {
	raw syscall.RawConn

	mu      sync.Mutex
	work    sync.Cond // there is something to write, or the end
	drained sync.Cond // less is waiting than before, or the end
	buf     []byte
	files   []attached // in buf, in order
	busy    bool       // a batch is being written
	err     error      // why nothing can be written any more

	spare []byte // the other buffer, when no batch is being written

	// Of the write in progress; only the writer goroutine touches them.
	push  func(fd uintptr) bool
	rest  []byte
	right []byte // control message, nil when no descriptor goes
	fail  error
}

// attached is a descriptor and the part of the buffer that is its frame.
type attached struct {
	start, end int
	file       *os.File
}

func (o *writer) init(raw syscall.RawConn) {
	o.raw = raw
	o.work.L = &o.mu
	o.drained.L = &o.mu
	o.push = o.send
}

// Put queues a frame and returns its size in bytes, header included. With a
// file, which it always takes over, FlagFile is set. It does not wait.
func (c *Conn) Put(h Header, body Appender, f *os.File) (int, error) {
	o := &c.out
	o.mu.Lock()
	n, err := o.put(h, body, f)
	o.mu.Unlock()
	if err != nil && f != nil {
		f.Close()
	}
	return n, err
}

func (o *writer) put(h Header, body Appender, f *os.File) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	start := len(o.buf)
	var blank [HeaderSize]byte
	b := append(o.buf, blank[:]...)
	if body != nil {
		b = body.Append(b)
	}
	length := len(b) - start - HeaderSize
	if length > MaxBody {
		return 0, ErrTooLong
	}
	if f != nil {
		h.Flags |= FlagFile
		o.files = append(o.files, attached{start, len(b), f})
	}
	putHeader(b[start:], length, h)
	o.buf = b
	if start == 0 && !o.busy {
		o.work.Signal()
	}
	return len(b) - start, nil
}

// Waiting returns how many bytes were put and are not yet being written.
func (c *Conn) Waiting() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return len(c.out.buf)
}

// WaitBelow returns when fewer than limit bytes wait to be written, or when
// the connection cannot write any more; limit 0 waits until everything was
// handed to the system, so that Close loses nothing.
func (c *Conn) WaitBelow(limit int) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.buf) >= max(limit, 1) || limit == 0 && o.err == nil && o.busy {
		o.drained.Wait()
	}
}

// run writes batches until the end.
func (o *writer) run() {
	for {
		batch, files := o.next()
		if batch == nil {
			return
		}
		err := o.write(batch, files)
		o.mu.Lock()
		o.busy = false
		if cap(batch) <= keepWrite || len(batch) > keepWrite {
			o.spare = batch[:0]
		}
		if err != nil && o.err == nil {
			o.err = err
		}
		o.drained.Broadcast()
		o.mu.Unlock()
	}
}

// next waits for a batch; nil is the end.
func (o *writer) next() ([]byte, []attached) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) == 0 && o.err == nil {
		o.work.Wait()
	}
	if o.err != nil {
		return nil, nil
	}
	batch, files := o.buf, o.files
	o.buf, o.files, o.spare = o.spare, nil, nil
	o.busy = true
	return batch, files
}

// write sends a batch: the frames with a descriptor each by itself.
func (o *writer) write(batch []byte, files []attached) error {
	var err error
	at := 0
	for _, a := range files {
		if err == nil && a.start > at {
			err = o.all(batch[at:a.start], nil)
		}
		if err == nil {
			err = o.all(batch[a.start:a.end], a.file)
		}
		at = a.end
		a.file.Close()
	}
	if err == nil && at < len(batch) {
		err = o.all(batch[at:], nil)
	}
	return err
}

// all writes p, and f with its first byte.
func (o *writer) all(p []byte, f *os.File) error {
	o.rest, o.right, o.fail = p, nil, nil
	if f == nil {
		return o.flush()
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	// Not f.Fd(): that would make the open file blocking, for the peer too.
	err2 := raw.Control(func(fd uintptr) {
		o.right = unix.UnixRights(int(fd))
		err = o.flush()
	})
	if err == nil {
		err = err2
	}
	return err
}

func (o *writer) flush() error {
	if err := o.raw.Write(o.push); err != nil {
		return ErrClosed
	}
	if o.fail != nil {
		return os.NewSyscallError("sendmsg", o.fail)
	}
	return nil
}

func (o *writer) send(fd uintptr) bool {
	for len(o.rest) > 0 {
		n, err := sendmsg(int(fd), o.rest, o.right)
		if n > 0 {
			o.rest, o.right = o.rest[n:], nil
		}
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			o.fail = err
			return true
		}
	}
	return true
}

func (o *writer) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.work.Broadcast()
	o.drained.Broadcast()
}

// dropFiles closes descriptors that will not be sent.
func (o *writer) dropFiles() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.files {
		a.file.Close()
	}
	o.files, o.buf = nil, nil
}
