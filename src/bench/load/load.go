// Package load is an SMTP load generator: sessions that send messages as fast as
// the server takes them, and remember which were acknowledged.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options says what to send.
type Options struct {
	Addr     string   // host:port of the server
	Sessions int      // connections at once
	Messages int      // in all; 0: until the context ends
	Size     int      // bytes of a message's body, roughly
	Reuse    int      // messages a connection; 0: all of them on one
	Pipeline bool     // MAIL, RCPT, DATA in one write when the server offers it
	Sender   string   // empty: bench@localhost
	Rcpts    []string // one is taken in turn for each message
	Timeout  time.Duration
	// Acked, when not nil, is told the tag of every message that got its 250.
	// It is called from many goroutines. The tag stands in X-Bench-Tag.
	Acked func(tag string)
	// Retry goes on with a new connection when one breaks, until ctx ends.
	Retry bool
}

// Result is what happened.
type Result struct {
	Acked    int64
	Refused  int64 // 4xx or 5xx at any command
	Broken   int64 // connections lost or not made
	Elapsed  time.Duration
	FirstErr error
}

// PerSecond is the rate of acknowledged messages.
func (r Result) PerSecond() float64 { return float64(r.Acked) / r.Elapsed.Seconds() }

type run struct {
	o     Options
	next  atomic.Int64
	res   Result
	acked atomic.Int64
	bad   atomic.Int64
	lost  atomic.Int64
	mu    sync.Mutex
	body  string
}

// Run sends until Messages are acknowledged or refused, or ctx ends.
func Run(ctx context.Context, o Options) Result {
	if o.Sender == "" {
		o.Sender = "bench@localhost"
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	r := &run{o: o, body: body(o.Size)}
	start := time.Now()
	var wg sync.WaitGroup
	for range o.Sessions {
		wg.Go(func() { r.worker(ctx) })
	}
	wg.Wait()
	r.res.Elapsed = time.Since(start)
	r.res.Acked, r.res.Refused, r.res.Broken = r.acked.Load(), r.bad.Load(), r.lost.Load()
	return r.res
}

// body makes lines of 72 bytes, size bytes in all.
func body(size int) string { return strings.Repeat(bodyLine, Lines(size)) }

const bodyLine = "The quick brown fox jumps over the lazy dog, and the postmaster sighs.\r\n"

// Lines is how many lines the body of a message of that size has.
func Lines(size int) int { return max(1, size/len(bodyLine)) }

// take returns the number of the next message, or false when there are enough.
func (r *run) take() (int64, bool) {
	n := r.next.Add(1)
	return n, r.o.Messages == 0 || n <= int64(r.o.Messages)
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.res.FirstErr == nil {
		r.res.FirstErr = err
	}
}

func (r *run) worker(ctx context.Context) {
	for ctx.Err() == nil {
		n, ok := r.take()
		if !ok {
			return
		}
		err := r.session(ctx, n)
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			r.lost.Add(1)
			r.fail(err)
		}
		if !r.o.Retry {
			return
		}
		select { // a server that is down need not be asked a million times
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// session sends message n and those after it, up to Reuse, on one connection.
func (r *run) session(ctx context.Context, n int64) error {
	c, err := Dial(ctx, r.o.Addr, r.o.Timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.Hello("bench.localhost"); err != nil {
		return err
	}
	for sent := 1; ; sent++ {
		if err := r.message(c, n); err != nil {
			return err
		}
		if r.o.Reuse > 0 && sent >= r.o.Reuse {
			break
		}
		var ok bool
		if n, ok = r.take(); !ok || ctx.Err() != nil {
			break
		}
	}
	return c.Quit()
}

func (r *run) message(c *Conn, n int64) error {
	rcpt := r.o.Rcpts[int(n)%len(r.o.Rcpts)]
	tag := strconv.FormatInt(n, 10)
	text := "From: <" + r.o.Sender + ">\r\nTo: <" + rcpt + ">\r\nSubject: bench\r\nX-Bench-Tag: " +
		tag + "\r\nMessage-ID: <" + tag + "@bench.localhost>\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\n\r\n" + r.body
	err := c.Send(r.o.Sender, []string{rcpt}, text, r.o.Pipeline)
	var refused *Refused
	switch {
	case errors.As(err, &refused):
		r.bad.Add(1)
		r.fail(err)
		if refused.Code == 421 {
			return err
		}
		return c.Reset()
	case err != nil:
		return err
	}
	r.acked.Add(1)
	if r.o.Acked != nil {
		r.o.Acked(tag)
	}
	return nil
}

// Refused is a reply of 4xx or 5xx.
type Refused struct {
	Command string
	Code    int
	Text    string
}

func (e *Refused) Error() string { return fmt.Sprintf("%s: %d %s", e.Command, e.Code, e.Text) }

// Conn is a client connection that does no more than it must.
type Conn struct {
	net.Conn
	r          *bufio.Reader
	timeout    time.Duration
	pipelining bool
}

// Dial connects and reads the greeting.
func Dial(ctx context.Context, addr string, timeout time.Duration) (*Conn, error) {
	d := net.Dialer{Timeout: timeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: nc, r: bufio.NewReaderSize(nc, 1024), timeout: timeout}
	if err := c.want("greeting", 2); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// DialTLS is Dial for a server that speaks TLS from the first byte. Nobody's
// certificate is checked: it is a measurement.
func DialTLS(ctx context.Context, addr string, timeout time.Duration) (*Conn, error) {
	d := net.Dialer{Timeout: timeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: tls.Client(nc, &tls.Config{InsecureSkipVerify: true}), timeout: timeout}
	c.r = bufio.NewReaderSize(c.Conn, 1024)
	err = c.SetDeadline(time.Now().Add(timeout))
	if err == nil {
		err = c.want("greeting", 2)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// Hello says EHLO.
func (c *Conn) Hello(name string) error {
	if err := c.write("EHLO " + name + "\r\n"); err != nil {
		return err
	}
	return c.want("EHLO", 2)
}

func (c *Conn) write(s string) error {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := io.WriteString(c.Conn, s)
	return err
}

// want reads a reply whose code begins with the digit class.
func (c *Conn) want(command string, class int) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if len(line) < 4 {
			return fmt.Errorf("%s: short reply %q", command, line)
		}
		if strings.HasPrefix(string(line[4:]), "PIPELINING") {
			c.pipelining = true
		}
		if line[3] == '-' {
			continue
		}
		code, err := strconv.Atoi(string(line[:3]))
		if err != nil {
			return fmt.Errorf("%s: not a reply: %q", command, line)
		}
		if code/100 != class {
			return &Refused{command, code, strings.TrimSpace(string(line[4:]))}
		}
		return nil
	}
}

// Send sends one message, whose text has CRLF line ends and no line that begins
// with a dot.
func (c *Conn) Send(from string, to []string, text string, pipeline bool) error {
	var cmds []string
	cmds = append(cmds, "MAIL FROM:<"+from+">\r\n")
	for _, t := range to {
		cmds = append(cmds, "RCPT TO:<"+t+">\r\n")
	}
	cmds = append(cmds, "DATA\r\n")
	if pipeline && c.pipelining {
		if err := c.write(strings.Join(cmds, "")); err != nil {
			return err
		}
	}
	var refused error
	for i, cmd := range cmds {
		if !pipeline || !c.pipelining {
			if err := c.write(cmd); err != nil {
				return err
			}
		}
		class := 2
		if i == len(cmds)-1 {
			class = 3
		}
		err := c.want(cmd[:4], class)
		var no *Refused
		if err != nil && (!errors.As(err, &no) || !pipeline) {
			return err
		}
		if err != nil && refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return refused
	}
	if err := c.write(text + ".\r\n"); err != nil {
		return err
	}
	return c.want("end of data", 2)
}

// Reset says RSET.
func (c *Conn) Reset() error {
	if err := c.write("RSET\r\n"); err != nil {
		return err
	}
	return c.want("RSET", 2)
}

// Quit says QUIT and waits for the answer.
func (c *Conn) Quit() error {
	if err := c.write("QUIT\r\n"); err != nil {
		return err
	}
	return c.want("QUIT", 2)
}
