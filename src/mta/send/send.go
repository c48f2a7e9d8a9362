// Package send runs one SMTP or LMTP transaction by hand: smtp(1). It talks to
// the server it is given and to no other, and keeps nothing.
package send

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

	"opensmtpd/src/mta/client"
)

// Order is what is to be done.
type Order struct {
	Server Server
	Helo   string
	// TLS is used where the scheme of Server wants it.
	TLS *tls.Config
	// User and Password are shown to the server, and only in TLS; an empty User
	// is none.
	User, Password string

	From    string // without brackets; "" is the null sender
	Rcpts   []string
	Message []byte // lines end in LF or CRLF
	// Try ends the session once it stands.
	Try bool
	// Note is told of each step. It may be nil.
	Note func(format string, args ...any)
}

// dialTime is how long a server may take to accept a connection.
const dialTime = time.Minute

// Refused tells which recipients were not served; the others were.
type Refused []string

func (r Refused) Error() string { return strings.Join(r, "\n") }

// Do does it. A Refused error means that some recipients have the message.
func Do(ctx context.Context, o *Order) error {
	if o.Note == nil {
		quiet := *o
		quiet.Note = func(string, ...any) {}
		o = &quiet
	}
	if o.User != "" && !o.Server.mayHide() {
		return fmt.Errorf("a password is not sent by %s://: smtp+tls:// or smtps:// hide it", o.Server.Scheme)
	}
	addr := net.JoinHostPort(o.Server.Host, strconv.Itoa(int(o.Server.Port)))
	d := net.Dialer{Timeout: dialTime}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	o.Note("connected to %s", nc.RemoteAddr())
	c := client.New(nc, func(d time.Duration) {
		_ = nc.SetDeadline(time.Now().Add(d)) // a closed connection fails at once
	})
	if err := o.session(ctx, c); err != nil {
		return err
	}
	if !o.Try {
		err = o.transaction(c)
	}
	if errors.Is(err, client.ErrTooMuch) {
		return err
	}
	_ = c.Quit() // what was to be done is done
	return err
}

// session greets the server, begins TLS and authenticates.
func (o *Order) session(ctx context.Context, c *client.Conn) error {
	if o.Server.Scheme == "smtps" {
		if err := c.Handshake(ctx, o.TLS); err != nil {
			return err
		}
		o.noteTLS(c)
	}
	r, err := c.Greeting()
	if err = o.check("greeting", r, err); err != nil {
		return err
	}
	if err := o.hello(c); err != nil {
		return err
	}
	if err := o.startTLS(ctx, c); err != nil {
		return err
	}
	return o.auth(c)
}

func (o *Order) hello(c *client.Conn) error {
	verb := "EHLO"
	if o.Server.lmtp() {
		verb = "LHLO"
	}
	r, err := c.Hello(verb, o.Helo)
	if err == nil && verb == "EHLO" && r.Code/100 == 5 {
		r, err = c.Hello("HELO", o.Helo)
	}
	return o.check(verb, r, err)
}

func (o *Order) startTLS(ctx context.Context, c *client.Conn) error {
	switch {
	case c.TLS() != nil || o.Server.clear():
		return nil
	case !c.Ext().StartTLS && o.Server.demands():
		return errors.New("the server does not offer STARTTLS")
	case !c.Ext().StartTLS:
		return nil
	}
	r, err := c.StartTLS(ctx, o.TLS)
	if err != nil || !r.OK() {
		return o.check("STARTTLS", r, err)
	}
	o.noteTLS(c)
	return o.hello(c)
}

func (o *Order) noteTLS(c *client.Conn) {
	st := c.TLS()
	o.Note("TLS: %s, %s", tls.VersionName(st.Version), tls.CipherSuiteName(st.CipherSuite))
}

func (o *Order) auth(c *client.Conn) error {
	if o.User == "" {
		return nil
	}
	if c.TLS() == nil {
		return errors.New("no TLS: the password is not sent")
	}
	var m sasl.Client
	for _, offered := range c.Ext().Auth {
		switch {
		case offered == sasl.Plain:
			m = sasl.NewPlainClient("", o.User, o.Password)
		case offered == sasl.Login && m == nil:
			m = sasl.NewLoginClient(o.User, o.Password)
		}
	}
	if m == nil {
		return errors.New("the server offers neither AUTH PLAIN nor AUTH LOGIN")
	}
	r, err := c.Auth(m)
	return o.check("AUTH", r, err)
}

// transaction hands the message in.
func (o *Order) transaction(c *client.Conn) error {
	t := client.Transaction{From: o.From, Size: int64(len(o.Message)), EightBit: has8Bit(o.Message)}
	t.UTF8 = has8Bit([]byte(o.From))
	for _, to := range o.Rcpts {
		t.UTF8 = t.UTF8 || has8Bit([]byte(to))
		t.Rcpts = append(t.Rcpts, client.Rcpt{To: to})
	}
	a, err := c.Begin(&t)
	if err = o.check("MAIL FROM", a.Mail, err); err != nil {
		return err
	}
	var refused Refused
	var accepted []string
	for i := range a.Rcpts {
		if err := o.check("RCPT TO <"+o.Rcpts[i]+">", a.Rcpts[i], nil); err != nil {
			refused = append(refused, err.Error())
			continue
		}
		accepted = append(accepted, o.Rcpts[i])
	}
	if a.Accepted() == 0 {
		if len(refused) == 0 {
			return o.check("DATA", a.Data, nil)
		}
		return refused
	}
	c.Open()
	if err := c.Body(o.Message); err != nil {
		return err
	}
	replies, err := c.End(len(accepted))
	if err != nil {
		return err
	}
	for i := range replies {
		what := "message"
		if o.Server.lmtp() {
			what = "message for <" + accepted[i] + ">"
		}
		if err := o.check(what, replies[i], nil); err != nil {
			refused = append(refused, err.Error())
		}
	}
	if refused != nil {
		return refused
	}
	return nil
}

// check makes an error of a reply that is not what was hoped for.
func (o *Order) check(what string, r client.Reply, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	o.Note("%s: %s", what, r.String())
	if !r.OK() {
		return fmt.Errorf("%s: %s", what, r.String())
	}
	return nil
}

func has8Bit(b []byte) bool { return bytes.IndexFunc(b, func(r rune) bool { return r >= 0x80 }) >= 0 }
