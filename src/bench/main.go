// Command bench measures the mail server and compares it with others. It is run
// by `make bench`; speed never lives in a test.
//
//	bench load    -addr HOST:PORT …   send messages, print what was acknowledged
//	bench idle    -addr HOST:PORT -n N [-smtps]  hold idle connections until interrupted
//	bench sink    -addr HOST:PORT     take messages and forget them
//	bench compare [-rounds N] …       ours and Debian's Postfix in turn (root, Linux)
//	bench relay   [-rounds N] …       the same for relaying to a sink, and Debian's
//	                                  OpenSMTPD, and no server at all
//	bench filter  [-rounds N] …       ours with and without a filter program
//	bench crowd   [-idle N] …         ours among idle connections
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/bench/sink"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: bench load|idle|sink|compare|relay|filter|crowd [options]")
	}
	switch verb, rest := args[0], args[1:]; verb {
	case "load":
		return runLoad(ctx, rest, out)
	case "idle":
		return runIdle(ctx, rest, out)
	case "sink":
		return runSink(ctx, rest, out)
	case "compare":
		return runCompare(ctx, rest, out)
	case "relay":
		return runRelay(ctx, rest, out)
	case "filter":
		return runFilter(ctx, rest, out)
	case "crowd":
		return runCrowd(ctx, rest, out)
	case jailVerb:
		return runJail(ctx, rest)
	default:
		return fmt.Errorf("%s: no such measurement; want load, idle, sink, compare, relay, filter or crowd", verb)
	}
}

func runLoad(ctx context.Context, args []string, out io.Writer) error {
	var o load.Options
	var rcpts string
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.StringVar(&o.Addr, "addr", "127.0.0.1:2525", "server")
	fs.IntVar(&o.Sessions, "sessions", 50, "connections at once")
	fs.IntVar(&o.Messages, "messages", 1000, "messages in all")
	fs.IntVar(&o.Size, "size", 4096, "bytes a message")
	fs.IntVar(&o.Reuse, "reuse", 0, "messages a connection, 0: no limit")
	fs.BoolVar(&o.Pipeline, "pipeline", false, "use PIPELINING where offered")
	fs.StringVar(&o.Sender, "sender", "", "MAIL FROM")
	fs.StringVar(&rcpts, "rcpt", "root@localhost", "recipients, comma separated, taken in turn")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.Rcpts = strings.Split(rcpts, ",")
	res := load.Run(ctx, o)
	fmt.Fprintf(out, "acknowledged %d in %.2f s: %.0f/s; refused %d, broken %d\n",
		res.Acked, res.Elapsed.Seconds(), res.PerSecond(), res.Refused, res.Broken)
	if res.FirstErr != nil {
		fmt.Fprintln(out, "first error:", res.FirstErr)
	}
	return nil
}

func runIdle(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("idle", flag.ContinueOnError)
	addr := fs.String("addr", "127.0.0.1:2525", "server")
	n := fs.Int("n", 1000, "connections")
	smtps := fs.Bool("smtps", false, "in TLS from the first byte")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dial := load.Dial
	if *smtps {
		dial = load.DialTLS
	}
	conns, err := holdIdle(ctx, dial, *addr, *n)
	defer closeAll(conns)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d connections greeted; interrupt to end\n", len(conns))
	<-ctx.Done()
	return nil
}

// dialer is how a connection is made, until the greeting.
type dialer func(ctx context.Context, addr string, timeout time.Duration) (*load.Conn, error)

// holdIdle opens n connections that have said EHLO and then keep still.
func holdIdle(ctx context.Context, dial dialer, addr string, n int) ([]*load.Conn, error) {
	conns := make([]*load.Conn, 0, n)
	for range n {
		c, err := dial(ctx, addr, 30*time.Second)
		if err != nil {
			return conns, fmt.Errorf("idle connection %d: %w", len(conns), err)
		}
		conns = append(conns, c)
		if err := c.Hello("idle.localhost"); err != nil {
			return conns, err
		}
	}
	return conns, nil
}

func closeAll(conns []*load.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

func runSink(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("sink", flag.ContinueOnError)
	addr := fs.String("addr", "127.0.0.1:2526", "where to listen")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	var s sink.Sink
	err = s.Serve(ctx, l)
	fmt.Fprintf(out, "%d messages, %d sessions, %d bytes\n", s.Messages.Load(), s.Sessions.Load(), s.Bytes.Load())
	return err
}
