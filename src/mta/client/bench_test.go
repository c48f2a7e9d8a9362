package client

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// devour is a server that takes everything.
func devour(nc net.Conn, ehlo string) {
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 16<<10)
	w := bufio.NewWriter(nc)
	say := func(s string) bool {
		_, err := w.WriteString(s + "\r\n")
		return err == nil && (r.Buffered() > 0 || w.Flush() == nil)
	}
	for ok := say("220 sink ESMTP"); ok; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte("EHLO")):
			ok = say(ehlo)
		case bytes.HasPrefix(line, []byte("DATA")):
			if ok = say("354 go"); !ok {
				return
			}
			for string(line) != ".\r\n" {
				if line, err = r.ReadSlice('\n'); err != nil {
					return
				}
			}
			ok = say("250 2.0.0 taken")
		case bytes.HasPrefix(line, []byte("QUIT")):
			say("221 bye")
			return
		default:
			ok = say("250 2.0.0 ok")
		}
	}
}

// sink is an address at which mail disappears.
func sink(b *testing.B, ehlo string) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go devour(c, ehlo)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

const (
	plainEHLO = "250-sink\r\n250-8BITMIME\r\n250 DSN"
	pipeEHLO  = "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 DSN"
)

var benchBody = []byte(strings.Repeat("From: somebody@example.org and so on for a line\n", 80)) // 4 kB; never written

// BenchmarkLibrary and the others compare one message of 4 kB to one recipient
// over a connection that stays, with emersion/go-smtp and with this package.
func BenchmarkLibrary(b *testing.B) {
	c := smtp.NewClient(sink(b, pipeEHLO))
	if err := c.Hello("client"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Mail("a@example.org", nil); err != nil {
			b.Fatal(err)
		}
		if err := c.Rcpt("b@example.org", nil); err != nil {
			b.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(benchBody); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOurs(b *testing.B)      { benchOurs(b, plainEHLO) }
func BenchmarkPipelined(b *testing.B) { benchOurs(b, pipeEHLO) }

func benchOurs(b *testing.B, ehlo string) {
	c := New(sink(b, ehlo), func(time.Duration) {})
	if _, err := c.Greeting(); err != nil {
		b.Fatal(err)
	}
	if r, err := c.Hello("EHLO", "client"); err != nil || !r.OK() {
		b.Fatal(r, err)
	}
	t := &Transaction{From: "a@example.org", Rcpts: []Rcpt{{To: "b@example.org"}}}
	b.ReportAllocs()
	for b.Loop() {
		a, err := c.Begin(t)
		if err != nil || a.Accepted() != 1 {
			b.Fatal(a, err)
		}
		c.Open()
		if err := c.Body(benchBody); err != nil {
			b.Fatal(err)
		}
		if r, err := c.End(1); err != nil || !r[0].OK() {
			b.Fatal(r, err)
		}
	}
}
