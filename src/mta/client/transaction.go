package client

import (
	"bytes"
	"errors"
	"fmt"

	"opensmtpd/src/queue/envelope"
)

// Transaction is what is said before a message. Nothing in it may hold CR or LF.
type Transaction struct {
	From     string // address without brackets, "" for the null sender
	Size     int64  // of the message as it will be sent, bytes; an estimate will do
	EightBit bool   // it has bytes above 127
	UTF8     bool   // an address has, or a header field that needs SMTPUTF8
	TLS      bool   // the server must pass it on in TLS alone (RFC 8689)
	Return   envelope.Return
	EnvID    string // xtext
	Rcpts    []Rcpt
	// Answered, unless nil, is called after each answer, which is the last one
	// in what it is given.
	Answered func(*Answers)
}

func (t *Transaction) answered(a *Answers) {
	if t.Answered != nil {
		t.Answered(a)
	}
}

// Rcpt is one recipient.
type Rcpt struct {
	To     string // address without brackets
	Notify envelope.Notify
	ORcpt  string // type;xtext
}

// Answers are what a server said to a transaction.
type Answers struct {
	Mail  Reply
	Rcpts []Reply // of those asked, in order
	Data  Reply   // Code 0: not asked, because everything had failed
}

// Accepted counts the recipients who are to get the message.
func (a *Answers) Accepted() int {
	n := 0
	if a.Mail.OK() && a.Data.Code == 354 {
		for i := range a.Rcpts {
			if a.Rcpts[i].OK() {
				n++
			}
		}
	}
	return n
}

// errLine is a fault of ours: an address that would break out of its line.
var errLine = errors.New("a command would have more than one line")

// maxBatch is how much is sent without reading replies, in bytes: the replies
// must fit into the buffers between two systems, or both would wait.
const maxBatch = 8 << 10

// Begin says MAIL, RCPT for everybody, and DATA. When it returns without an
// error the server either waits for the message, which Body and End must give
// it, or has refused all of it; then Reset must follow.
func (c *Conn) Begin(t *Transaction) (Answers, error) {
	a := Answers{Rcpts: make([]Reply, 0, len(t.Rcpts))}
	if err := c.quiet(); err != nil {
		return a, err
	}
	c.out = c.appendMail(c.out[:0], t)
	c.wait(timeCommand)
	if !c.ext.Pipelining {
		return a, c.oneByOne(t, &a)
	}
	return a, c.pipelined(t, &a)
}

func (c *Conn) oneByOne(t *Transaction, a *Answers) (err error) {
	if a.Mail, err = c.ask(agreed); err != nil {
		return err
	}
	if t.answered(a); !a.Mail.OK() {
		return nil
	}
	good := false
	for i := range t.Rcpts {
		c.out = c.appendRcpt(c.out, &t.Rcpts[i])
		c.wait(timeCommand)
		r, err := c.ask(agreed)
		if err != nil {
			return err
		}
		a.Rcpts = append(a.Rcpts, r)
		t.answered(a)
		good = good || r.OK()
		if r.Code == 421 {
			return nil
		}
	}
	if !good {
		return nil
	}
	c.out = append(c.out, "DATA\r\n"...)
	c.wait(timeData)
	if a.Data, err = c.ask(goOn); err == nil {
		t.answered(a)
	}
	return err
}

// ask sends the commands gathered, which must be one line each, and reads the
// reply to the last.
func (c *Conn) ask(quiet int) (Reply, error) {
	if bytes.Count(c.out, []byte{'\n'}) != 1 || bytes.Count(c.out, []byte{'\r'}) != 1 {
		return Reply{}, errLine
	}
	if err := c.flush(); err != nil {
		return Reply{}, err
	}
	r, err := c.reply(quiet)
	if err == nil {
		err = c.quiet()
	}
	return r, err
}

// pipelined sends as much as it may before it reads.
func (c *Conn) pipelined(t *Transaction, a *Answers) error {
	asked := -1 // MAIL; then recipients
	for next := 0; ; {
		for next < len(t.Rcpts) && len(c.out) < maxBatch {
			c.out = c.appendRcpt(c.out, &t.Rcpts[next])
			next++
		}
		last := next == len(t.Rcpts)
		n := next - asked
		if last {
			c.out = append(c.out, "DATA\r\n"...)
			n++
		}
		if bytes.Count(c.out, []byte{'\n'}) != n || bytes.Count(c.out, []byte{'\r'}) != n {
			return errLine
		}
		c.wait(timeCommand)
		if err := c.flush(); err != nil {
			return err
		}
		for ; asked < next; asked++ {
			r, err := c.reply(agreed)
			if err != nil {
				return err
			}
			if asked < 0 {
				a.Mail = r
			} else {
				a.Rcpts = append(a.Rcpts, r)
			}
			t.answered(a)
			if r.Code == 421 && asked < 0 {
				return nil
			}
		}
		if last {
			return c.dataReply(t, a)
		}
	}
}

// dataReply reads the reply to a DATA that was sent on trust. A server that
// wants a message for nobody gets an empty one (RFC 2920 section 3.1).
func (c *Conn) dataReply(t *Transaction, a *Answers) (err error) {
	if a.Data, err = c.reply(goOn); err != nil {
		return err
	}
	t.answered(a)
	if err := c.quiet(); err != nil {
		return err
	}
	if a.Data.Code != 354 || a.Accepted() > 0 {
		return nil
	}
	c.out = append(c.out, ".\r\n"...)
	c.wait(timeEnd)
	if err := c.flush(); err != nil {
		return err
	}
	a.Data.Code = 0
	if c.lmtp { // no recipient, no reply (RFC 2033 section 4.2)
		return nil
	}
	_, err = c.reply(agreed)
	return err
}

func (c *Conn) appendMail(b []byte, t *Transaction) []byte {
	b = append(append(append(b, "MAIL FROM:<"...), t.From...), '>')
	if c.ext.Size && t.Size > 0 {
		b = fmt.Appendf(b, " SIZE=%d", t.Size)
	}
	if c.ext.EightBit && t.EightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if c.ext.UTF8 && t.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if t.TLS {
		b = append(b, " REQUIRETLS"...)
	}
	if c.ext.DSN {
		switch t.Return {
		case envelope.ReturnFull:
			b = append(b, " RET=FULL"...)
		case envelope.ReturnHeaders:
			b = append(b, " RET=HDRS"...)
		case envelope.ReturnUnset:
		}
		if t.EnvID != "" {
			b = append(append(b, " ENVID="...), t.EnvID...)
		}
	}
	return append(b, '\r', '\n')
}

func (c *Conn) appendRcpt(b []byte, r *Rcpt) []byte {
	b = append(append(append(b, "RCPT TO:<"...), r.To...), '>')
	if c.ext.DSN {
		if r.Notify != 0 {
			b = appendNotify(append(b, " NOTIFY="...), r.Notify)
		}
		if r.ORcpt != "" {
			b = append(append(b, " ORCPT="...), r.ORcpt...)
		}
	}
	return append(b, '\r', '\n')
}

// appendNotify writes a NOTIFY value (RFC 3461 section 4.1); NEVER stands alone.
func appendNotify(b []byte, n envelope.Notify) []byte {
	if n&envelope.NotifyNever != 0 {
		return append(b, "NEVER"...)
	}
	sep := ""
	for _, w := range []struct {
		bit  envelope.Notify
		name string
	}{{envelope.NotifySuccess, "SUCCESS"}, {envelope.NotifyFailure, "FAILURE"}, {envelope.NotifyDelay, "DELAY"}} {
		if n&w.bit != 0 {
			b = append(append(b, sep...), w.name...)
			sep = ","
		}
	}
	return b
}
