package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"opensmtpd/src/privsep/msg"
)

// ErrNotRunning tells that nobody listens on the control socket.
var ErrNotRunning = errors.New("smtpd doesn't seem to be running")

// ErrVersion tells that smtpd and this program are of different releases.
var ErrVersion = errors.New("incompatible smtpctl and smtpd")

// Client is the side of smtpctl(8) and sendmail(8). It is used by one goroutine.
type Client struct {
	c      *net.UnixConn
	rights *rightsReader
	r      frameReader
}

// Dial connects to the control socket at path. The error is ErrNotRunning when
// there is no socket or nobody behind it, and ErrVersion when it is not the
// smtpd that belongs to this program.
func Dial(ctx context.Context, path, build string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errRefused), errors.Is(err, errLongPath):
		return nil, ErrNotRunning
	case err != nil:
		return nil, err
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%s: not a Unix socket", path)
	}
	rights := &rightsReader{c: uc}
	cl := &Client{c: uc, rights: rights, r: frameReader{r: bufio.NewReaderSize(rights, 16<<10), max: MaxAnswer}}
	if err := cl.hello(build); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

func (c *Client) hello(build string) error {
	k, body, err := c.r.read()
	if err != nil {
		return c.lost(err)
	}
	if k == kindFail { // too many are here
		return parseRefused(body)
	}
	if k != kindHello {
		return ErrVersion
	}
	theirs, err := parseHello(body)
	if err != nil || theirs.version != Version {
		return ErrVersion
	}
	if _, err := c.c.Write(appendFrame(nil, kindHello, hello{Version, build}.append)); err != nil {
		return c.lost(err)
	}
	return nil
}

// Answer takes what a request brings.
type Answer struct {
	Row func(json []byte) error // valid until it returns
	Raw func(p []byte) error    // valid until it returns
}

// Do sends a request and waits for the end of the answer, whose count it
// returns. A refusal is a *Refused. An error of a function of a ends the wait,
// and the connection must be closed.
func (c *Client) Do(q Request, a Answer) (count uint32, err error) {
	if err := c.send(q); err != nil {
		return 0, err
	}
	for {
		k, body, err := c.r.read()
		if err != nil {
			return 0, c.lost(err)
		}
		switch {
		case k == kindRow && a.Row != nil:
			err = a.Row(body)
		case k == kindRaw && a.Raw != nil:
			err = a.Raw(body)
		case k == kindDone:
			r := msg.NewReader(body)
			count = r.U32()
			return count, r.Done()
		case k == kindFail:
			return 0, parseRefused(body)
		default:
			err = ErrVersion
		}
		if err != nil {
			return 0, err
		}
	}
}

// Session asks for a connection on which the daemon speaks SMTP.
func (c *Client) Session() (net.Conn, error) {
	if err := c.send(Request{Verb: VerbSession}); err != nil {
		return nil, err
	}
	k, body, err := c.r.read()
	switch {
	case err != nil:
		return nil, c.lost(err)
	case k == kindFail:
		return nil, parseRefused(body)
	case k != kindSession || c.rights.file == nil:
		return nil, ErrVersion
	}
	f := c.rights.file
	c.rights.file = nil
	defer f.Close()
	return net.FileConn(f) // has its own copy of the descriptor
}

// Close ends the connection.
func (c *Client) Close() error {
	if c.rights.file != nil {
		c.rights.file.Close()
		c.rights.file = nil
	}
	return c.c.Close()
}

func (c *Client) send(q Request) error {
	b := appendFrame(nil, kindRequest, q.append)
	if len(b)-headerSize > MaxRequest {
		return errors.New("command too long")
	}
	if _, err := c.c.Write(b); err != nil {
		return c.lost(err)
	}
	return nil
}

// lost says what an ended connection means to a user.
func (c *Client) lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, errPipe) || errors.Is(err, errReset) {
		return errors.New("smtpd closed the connection")
	}
	return err
}
