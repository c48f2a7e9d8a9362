package client

import "bytes"

// flushAt is how much of a message is gathered before it is written, in bytes:
// a usual message is one write, and a large one takes no more memory than this.
const flushAt = 64 << 10

// Open begins the message; Body and End follow.
func (c *Conn) Open() {
	c.out = c.out[:0]
	c.bol, c.cr = true, false
}

// Body sends a piece of the message, whose lines end in LF or CRLF. They are
// sent with CRLF, a line that begins with a dot gets another (RFC 5321 section
// 4.5.2), and a CR elsewhere becomes a space: nothing that leaves here has a
// bare CR or LF, by which another message could be smuggled in.
func (c *Conn) Body(p []byte) error {
	for len(p) > 0 {
		piece := p[:min(len(p), flushAt/2)]
		p = p[len(piece):]
		c.encode(piece)
		if len(c.out) >= flushAt {
			c.wait(timeBlock)
			if err := c.write(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Conn) encode(p []byte) {
	rough := c.cr || bytes.IndexByte(p, '\r') >= 0
	out := c.out
	for len(p) > 0 {
		line, ended := p, false
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line, ended = p[:i], true
			p = p[i+1:]
		} else {
			p = nil
		}
		if rough {
			if c.cr && len(line) > 0 {
				out = append(out, ' ')
				c.bol = false
			}
			c.cr = false
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
				c.cr = !ended
			}
		}
		if c.bol && len(line) > 0 && line[0] == '.' {
			out = append(out, '.')
		}
		start := len(out)
		out = append(out, line...)
		if rough {
			for i := start; i < len(out); i++ {
				if out[i] == '\r' {
					out[i] = ' '
				}
			}
		}
		if ended {
			out = append(out, '\r', '\n')
			c.bol = true
		} else if len(line) > 0 {
			c.bol = false
		}
	}
	c.out = out
}

// End ends the message and reads what becomes of it: one reply, or with LMTP one
// for each recipient accepted, of which there are n.
func (c *Conn) End(n int) ([]Reply, error) {
	if c.cr {
		c.out = append(c.out, ' ')
		c.bol = false
	}
	if !c.bol {
		c.out = append(c.out, '\r', '\n')
	}
	c.out = append(c.out, ".\r\n"...)
	c.wait(timeEnd)
	if c.Watch != nil {
		c.Watch(true, ".")
	}
	err := c.write()
	if cap(c.out) > 2*flushAt {
		c.out = nil
	}
	if err != nil {
		return nil, err
	}
	if !c.lmtp {
		n = 1
	}
	replies := make([]Reply, 0, n)
	for range n {
		r, err := c.reply(wordy)
		if err != nil {
			return replies, err
		}
		replies = append(replies, r)
	}
	return replies, nil
}
