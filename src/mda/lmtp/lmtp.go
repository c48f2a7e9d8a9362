// Package lmtp hands messages to an LMTP server (RFC 2033), over TCP or by a
// Unix socket: one connection for one message.
package lmtp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"opensmtpd/src/clock"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
)

// Message is what is handed over.
type Message struct {
	// Destination is the absolute path of a socket, or host[:port]. An address
	// can stand in brackets, one of IPv6 must: [::1]:24, [IPv6:::1]:24. Without a
	// port it is 25.
	Destination string
	Hello       string // of LHLO; localhost when empty
	Sender      string // without brackets and quotes; empty for the null sender
	Rcpts       []string
	Body        io.Reader // header and all; lines end in LF or CRLF
	// Timeout is what all of it together may take.
	Timeout time.Duration
}

const (
	defaultPort = "25"
	// dialTime is the most for one connection attempt.
	dialTime = 60 * time.Second
	// quitTime is the most that a server's last word is waited for: the message
	// is its own by then.
	quitTime = 2 * time.Second
	// maxReplies bounds what a server may say in all, in bytes.
	maxReplies = 1 << 20
)

// errTimeout is the cause of a context whose time was over.
var errTimeout = errors.New("time is over")

// Deliver hands a message over and returns what became of it for each recipient,
// nil where the server has taken it. A refusal of the server is temporary or
// permanent as its reply says, and carries the reply's codes; all other failures
// are temporary.
func Deliver(ctx context.Context, c clock.Clock, m Message) []*mailerr.Error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	expired, stop := c.After(m.Timeout)
	defer stop()
	go func() {
		select {
		case <-expired:
			cancel(errTimeout)
		case <-ctx.Done():
		}
	}()
	s := &session{m: quoted(m), errs: make([]error, len(m.Rcpts))}
	if err := s.run(ctx); err != nil {
		for i := range s.errs {
			if s.errs[i] == nil {
				s.errs[i] = err
			}
		}
	}
	results := make([]*mailerr.Error, len(m.Rcpts))
	for i, err := range s.errs {
		results[i] = judge(ctx, err)
	}
	return results
}

// quoted returns m with addresses as SMTP has them. What a local part holds would
// else end the path, and the rest be parameters, or another address.
func quoted(m Message) Message {
	m.Sender = addr.Cut(m.Sender).SMTP()
	rcpts := make([]string, len(m.Rcpts))
	for i, rcpt := range m.Rcpts {
		rcpts[i] = addr.Cut(rcpt).SMTP()
	}
	m.Rcpts = rcpts
	return m
}

// session is one delivery.
type session struct {
	m    Message
	errs []error // for each recipient
	took []int   // the recipients that RCPT was accepted for
}

// run returns an error that holds for all recipients without one of their own.
func (s *session) run(ctx context.Context) error {
	conn, err := dial(ctx, s.m.Destination)
	if err != nil {
		return &dialError{err}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	g := &guard{Conn: conn, left: maxReplies}
	c := smtp.NewClientLMTP(g)
	err = s.talk(c, g)
	if err == nil || refusal(err) != nil {
		// After other errors the connection is just closed: above all, after half
		// a message nothing may look like its end.
		c.CommandTimeout = quitTime
		c.Quit() // whatever comes of it: the results are known
	}
	return err
}

func (s *session) talk(c *smtp.Client, g *guard) error {
	hello := s.m.Hello
	if hello == "" {
		hello = "localhost"
	}
	if err := c.Hello(hello); err != nil {
		return err
	}
	g.greeted = true
	if err := s.envelope(c); err != nil || len(s.took) == 0 {
		return err
	}
	return s.data(c)
}

// dial connects.
func dial(ctx context.Context, destination string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	if strings.HasPrefix(destination, "/") {
		return d.DialContext(ctx, "unix", destination)
	}
	host, port := split(destination)
	return d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
}

// split takes a destination apart.
func split(s string) (host, port string) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, port, _ = strings.Cut(rest, "]")
		port = strings.TrimPrefix(port, ":")
		if len(host) > 5 && strings.EqualFold(host[:5], "IPv6:") {
			host = host[5:]
		}
	} else {
		host, port, _ = strings.Cut(s, ":")
	}
	if port == "" {
		port = defaultPort
	}
	return host, port
}

// envelope says MAIL and RCPT.
func (s *session) envelope(c *smtp.Client) error {
	var opts smtp.MailOptions
	if utf8, _ := c.Extension("SMTPUTF8"); utf8 {
		opts.UTF8 = !ascii(s.m.Sender)
		for _, rcpt := range s.m.Rcpts {
			opts.UTF8 = opts.UTF8 || !ascii(rcpt)
		}
	}
	if err := c.Mail(s.m.Sender, &opts); err != nil && !good(err) {
		return err
	}
	for i, rcpt := range s.m.Rcpts {
		err := c.Rcpt(rcpt, nil)
		if s.errs[i] = err; err == nil {
			s.took = append(s.took, i)
		} else if refusal(err) == nil {
			return err
		}
	}
	return nil
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// data sends the message and reads a reply for each recipient that was taken
// (RFC 2033 section 4.2). An error comes before any reply to the message.
func (s *session) data(c *smtp.Client) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, s.m.Body); err != nil {
		return err
	}
	done, err := w.CloseWithLMTPResponse()
	var refused smtp.LMTPDataError
	errors.As(err, &refused)
	for _, i := range s.took {
		rcpt := s.m.Rcpts[i]
		switch r := refused[rcpt]; {
		case r != nil && !good(r):
			s.errs[i] = r
		case r == nil && done[rcpt] == nil:
			s.errs[i] = &lostError{err}
		}
	}
	return nil
}
