// Package sink is an SMTP server that takes every message and forgets it, for
// measuring what can be sent.
package sink

import (
	"bufio"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// Sink counts what it is given.
type Sink struct {
	Messages atomic.Int64
	Sessions atomic.Int64
	Bytes    atomic.Int64
}

// Serve answers on l until ctx ends, and returns when every session has ended.
func (s *Sink) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.Sessions.Add(1)
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.session(c)
		})
	}
}

// session ends at the first error: whoever talks to a sink can bear that.
func (s *Sink) session(c net.Conn) {
	r, w := bufio.NewReaderSize(c, 16<<10), bufio.NewWriterSize(c, 1<<10)
	reply := func(text string) bool {
		if _, err := w.WriteString(text + "\r\n"); err != nil {
			return false
		}
		return r.Buffered() > 0 || w.Flush() == nil
	}
	if !reply("220 sink ESMTP") {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		ok := true
		switch verb {
		case "EHLO":
			ok = reply("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
		case "DATA":
			ok = reply("354 go on") && w.Flush() == nil && s.data(r) && reply("250 2.0.0 gone")
		case "QUIT":
			reply("221 2.0.0 bye")
			return
		default:
			ok = reply("250 2.0.0 ok")
		}
		if !ok {
			return
		}
	}
}

func (s *Sink) data(r *bufio.Reader) bool {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return false
		}
		s.Bytes.Add(int64(len(line)))
		if len(line) == 3 && string(line) == ".\r\n" {
			s.Messages.Add(1)
			return true
		}
	}
}
