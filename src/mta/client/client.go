// Package client speaks SMTP (RFC 5321) and LMTP (RFC 2033) to one server, as a
// client. It knows the protocol and no policy: who may be talked to, when, and
// what a failure means is the business of package mta.
//
// It pipelines (RFC 2920): a transaction up to DATA is one write and, with a
// server that answers so, one read; so is the message. What a server sends is
// hostile: a line has at most 4,096 bytes, a reply 2,000 lines, and of its text
// no more than 1,000 bytes are kept.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
)

// Time-outs (RFC 5321 section 4.5.3.2).
const (
	timeGreeting = 5 * time.Minute
	timeCommand  = 5 * time.Minute
	timeData     = 2 * time.Minute
	timeBlock    = 3 * time.Minute
	timeEnd      = 10 * time.Minute
	timeQuit     = 10 * time.Second
)

// What is wrong with a server that does not keep to the protocol.
var (
	// ErrTooMuch: it sent something that it was not asked for.
	ErrTooMuch = errors.New("remote host sent too much data")
	// ErrTLS wraps a handshake that failed.
	ErrTLS = errors.New("TLS handshake failed")
)

// Extensions are what a server has offered.
type Extensions struct {
	StartTLS, Pipelining, EightBit, DSN, UTF8, RequireTLS, Enhanced bool

	Size    bool
	MaxSize int64    // 0: it does not say
	MaxMail int      // transactions that a session may have (RFC 9422); 0: it does not say
	Auth    []string // mechanisms, in capitals
}

// Conn is a connection to a server. Its methods are for one goroutine.
type Conn struct {
	// Watch, unless nil, sees every line that either side says, but for
	// messages and credentials.
	Watch func(sent bool, line string)

	nc   net.Conn
	wait func(time.Duration)
	ext  Extensions
	lmtp bool
	tls  *tls.Conn

	in       []byte // what was read and not looked at is in[from:to]
	from, to int
	out      []byte
	bol, cr  bool // of the body: at the beginning of a line; after a CR
	secret   bool // what is said is an answer of authentication
}

// New returns a connection over nc. wait is called before anything that may take
// time, with the longest that it may take; whoever gives it closes nc when that
// has passed.
func New(nc net.Conn, wait func(time.Duration)) *Conn {
	return &Conn{nc: nc, wait: wait, in: make([]byte, maxLine)}
}

// Ext returns what the server offered last.
func (c *Conn) Ext() *Extensions { return &c.ext }

// TLS returns the state of TLS, nil without it.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	s := c.tls.ConnectionState()
	return &s
}

// Greeting reads what a server says first.
func (c *Conn) Greeting() (Reply, error) {
	c.wait(timeGreeting)
	r, err := c.reply(wordy)
	if err == nil {
		err = c.quiet()
	}
	return r, err
}

// Hello says EHLO, HELO or LHLO, and notes what is offered.
func (c *Conn) Hello(verb, name string) (Reply, error) {
	c.ext = Extensions{}
	c.lmtp = verb == "LHLO"
	c.out = fmt.Appendf(c.out[:0], "%s %s\r\n", verb, name)
	c.wait(timeCommand)
	if err := c.flush(); err != nil {
		return Reply{}, err
	}
	r, err := c.replyEach(wordy, func(n int, text string) {
		if n > 0 && verb != "HELO" {
			c.ext.add(text)
		}
	})
	if err == nil {
		err = c.quiet()
	}
	if !r.OK() {
		c.ext = Extensions{}
	}
	return r, err
}

// add notes one line of a reply to EHLO (RFC 5321 section 4.1.1.1).
func (e *Extensions) add(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(word) {
	case "STARTTLS":
		e.StartTLS = true
	case "PIPELINING":
		e.Pipelining = true
	case "8BITMIME":
		e.EightBit = true
	case "DSN":
		e.DSN = true
	case "REQUIRETLS":
		e.RequireTLS = true
	case "SMTPUTF8":
		e.UTF8 = true
	case "ENHANCEDSTATUSCODES":
		e.Enhanced = true
	case "SIZE":
		e.Size = true
		if n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err == nil && n > 0 {
			e.MaxSize = n
		}
	case "LIMITS":
		for _, limit := range strings.Fields(rest) {
			name, value, _ := strings.Cut(limit, "=")
			if n, err := strconv.Atoi(value); err == nil && n > 0 && strings.EqualFold(name, "MAILMAX") {
				e.MaxMail = n
			}
		}
	case "AUTH":
		e.Auth = strings.Fields(strings.ToUpper(rest))
	}
}

// command sends one line and reads the reply.
func (c *Conn) command(d time.Duration, line string) (Reply, error) {
	c.out = append(append(c.out[:0], line...), '\r', '\n')
	c.wait(d)
	if err := c.flush(); err != nil {
		return Reply{}, err
	}
	r, err := c.reply(wordy)
	if err == nil {
		err = c.quiet()
	}
	return r, err
}

// quiet reports a server that says more than it was asked. After STARTTLS that
// would be taken for what comes through TLS.
func (c *Conn) quiet() error {
	if c.from != c.to {
		return ErrTooMuch
	}
	return nil
}

// StartTLS asks for TLS and, when the server agrees, begins it. An error that
// wraps ErrTLS is one of the handshake.
func (c *Conn) StartTLS(ctx context.Context, conf *tls.Config) (Reply, error) {
	r, err := c.command(timeCommand, "STARTTLS")
	if err != nil || !r.OK() {
		return r, err
	}
	return r, c.Handshake(ctx, conf)
}

// Handshake begins TLS at once.
func (c *Conn) Handshake(ctx context.Context, conf *tls.Config) error {
	t := tls.Client(c.nc, conf)
	c.wait(timeCommand)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	c.nc, c.tls, c.ext = t, t, Extensions{}
	return nil
}

// Auth authenticates. The reply is the last one.
func (c *Conn) Auth(m sasl.Client) (Reply, error) {
	name, first, err := m.Start()
	if err != nil {
		return Reply{}, err
	}
	line := "AUTH " + name
	if first != nil {
		line += " " + encode64(first)
	}
	defer func() { c.secret = false }()
	for n := range maxChallenges {
		c.secret = n > 0
		r, err := c.command(timeCommand, line)
		if err != nil || r.Code != 334 {
			return r, err
		}
		challenge, err := decode64(r.Text)
		if err != nil {
			return r, fmt.Errorf("bad response: %w", err)
		}
		answer, err := m.Next(challenge)
		if err != nil {
			return r, fmt.Errorf("bad response: %w", err)
		}
		line = string(encode64(answer))
	}
	return Reply{}, errors.New("bad response: no end to authentication")
}

// maxChallenges bounds an exchange; no mechanism has more than 3.
const maxChallenges = 8

// Reset gives up the transaction.
func (c *Conn) Reset() (Reply, error) { return c.command(timeCommand, "RSET") }

// Quit ends the session, politely and without patience.
func (c *Conn) Quit() error {
	_, err := c.command(timeQuit, "QUIT")
	return err
}

// flush sends the commands that were put together, in one piece.
func (c *Conn) flush() error {
	if c.Watch != nil {
		for line := range bytes.Lines(c.out) {
			text := string(bytes.TrimRight(line, "\r\n"))
			if c.secret {
				text = "********"
			}
			c.Watch(true, text)
		}
	}
	return c.write()
}

// write sends what was put together.
func (c *Conn) write() error {
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}
