package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/bench/sink"
)

// relayed are what one round of relaying measures of one server.
type relayed struct {
	accepted float64 // messages/s
	relayed  float64 // messages/s that have arrived
	cpu      float64 // s per 1,000 messages
	sessions float64 // connections to the sink
	broken   float64 // connections that the server dropped
}

func (f relayed) String() string {
	if f.cpu == 0 { // nobody is between
		return fmt.Sprintf("accepted %6.0f/s", f.accepted)
	}
	line := fmt.Sprintf("accepted %6.0f/s  relayed %6.0f/s  %5.2f CPU-s/1000  %4.0f sessions to the sink",
		f.accepted, f.relayed, f.cpu, f.sessions)
	if f.broken > 0 {
		line += fmt.Sprintf("  %.0f sessions dropped", f.broken)
	}
	return line
}

// relayPeer is a server that relays to a sink.
type relayPeer struct {
	name     string
	messages int // a round
	jail     func(dir string, port, sink int) (*jail, error)
}

// relaying compares how fast servers hand on what they take, each with its
// default settings.
type relaying struct {
	compare
	out io.Writer
}

// direct is the name of the row without a server: the generator sends to the
// sink itself.
const direct = "direct"

func runRelay(ctx context.Context, args []string, out io.Writer) error {
	r := relaying{out: out}
	fs := r.flags("relay")
	only := fs.String("only", "", "measure these alone: ours, postfix, opensmtpd, direct; with commas")
	if ok, err := r.begin(fs, args, out); !ok {
		return err
	}
	defer os.RemoveAll(r.dir)
	var names []string
	all := make(map[string][]relayed)
	for round := range r.rounds {
		for _, p := range r.peers(ctx, *only) {
			f, err := r.measure(ctx, p)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", p.name, round+1, err)
			}
			fmt.Fprintf(out, "round %d %-9s %s\n", round+1, p.name, f)
			if all[p.name] = append(all[p.name], f); round == 0 {
				names = append(names, p.name)
			}
		}
	}
	relayReport(out, names, all)
	return nil
}

// peers lists the servers that can be had; one that cannot is said.
func (r *relaying) peers(ctx context.Context, only string) []relayPeer {
	list := []relayPeer{{direct, r.messages, nil}, {"ours", r.messages, func(dir string, port, sink int) (*jail, error) {
		return ours(r.bin, dir, port, relayConf(sink))
	}}}
	for _, p := range []struct {
		name     string
		packages []string
		messages int
		jail     func(debs []string, dir string, port, sink int) (*jail, error)
	}{
		{"postfix", postfixPackages, r.messages, func(debs []string, dir string, port, sink int) (*jail, error) {
			return postfix(debs, dir, port, fmt.Sprintf("mydestination =\nrelayhost = [127.0.0.1]:%d\n", sink))
		}},
		// Its default limits let few messages a second go to one host.
		{"opensmtpd", opensmtpdPackages, max(1, r.messages/25), func(debs []string, dir string, port, sink int) (*jail, error) {
			return opensmtpd(debs, dir, port, relayConf(sink))
		}},
	} {
		if only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
			continue
		}
		debs, err := fetch(ctx, r.cache, p.packages...)
		if err != nil {
			fmt.Fprintf(r.out, "bench: %s skipped: %v\n", p.name, err)
			continue
		}
		list = append(list, relayPeer{p.name, p.messages, func(dir string, port, sink int) (*jail, error) {
			return p.jail(debs, dir, port, sink)
		}})
	}
	return slices.DeleteFunc(list, func(p relayPeer) bool {
		return only != "" && !slices.Contains(strings.Split(only, ","), p.name)
	})
}

func relayConf(sink int) string {
	return fmt.Sprintf(`action "out" relay host smtp://127.0.0.1:%d
match from any for any action "out"
`, sink)
}

func (r *relaying) measure(ctx context.Context, p relayPeer) (f relayed, err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return f, err
	}
	var s sink.Sink
	serving, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(serving, l) })
	defer wg.Wait()
	defer stop()
	if p.jail == nil {
		res := r.load(ctx, p, l.Addr().String())
		return relayed{accepted: res.PerSecond(), relayed: res.PerSecond()}, res.FirstErr
	}
	run, err := r.start(p.name, func(dir string, port int) (*jail, error) {
		return p.jail(dir, port, l.Addr().(*net.TCPAddr).Port)
	})
	if err != nil {
		return f, err
	}
	f, err = r.through(ctx, p, run, &s)
	cpu, stopErr := run.stop()
	if err == nil {
		err = stopErr
	}
	if err != nil {
		return f, run.failed(err)
	}
	f.cpu = (cpu - f.cpu) / float64(s.Messages.Load()) * 1000
	return f, nil
}

// through sends by a server to the sink. The CPU time in f is that of before.
func (r *relaying) through(ctx context.Context, p relayPeer, run *trial, s *sink.Sink) (f relayed, err error) {
	if err := awaitGreeting(ctx, run.addr); err != nil {
		return f, err
	}
	pause(ctx, time.Second)
	if _, f.cpu, err = run.started(); err != nil {
		return f, err
	}
	began := time.Now()
	res := r.load(ctx, p, run.addr)
	if res.Acked+res.Broken != int64(p.messages) || res.Acked == 0 {
		return f, fmt.Errorf("only %d of %d acknowledged: %w", res.Acked, p.messages, res.FirstErr)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for s.Messages.Load() < res.Acked {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return f, fmt.Errorf("only %d of %d relayed", s.Messages.Load(), res.Acked)
		}
		pause(ctx, 5*time.Millisecond)
	}
	f.accepted, f.relayed = res.PerSecond(), float64(res.Acked)/time.Since(began).Seconds()
	f.sessions, f.broken = float64(s.Sessions.Load()), float64(res.Broken)
	return f, nil
}

func (r *relaying) load(ctx context.Context, p relayPeer, addr string) load.Result {
	return load.Run(ctx, load.Options{
		Addr: addr, Sessions: r.sessions, Messages: p.messages, Size: r.size, Reuse: r.reuse, Pipeline: r.pipeline,
		Rcpts: []string{"a@relayed.test", "b@relayed.test", "c@relayed.test"}, Retry: true,
	})
}

// all lists the figures, for median.
func (f *relayed) all() []*float64 {
	return []*float64{&f.accepted, &f.relayed, &f.cpu, &f.sessions, &f.broken}
}

func relayReport(out io.Writer, names []string, all map[string][]relayed) {
	for _, n := range names {
		fmt.Fprintf(out, "median  %-9s %s\n", n, median(all[n]))
	}
	if len(all["ours"]) == 0 {
		return
	}
	a := median(all["ours"])
	for _, n := range names {
		if b := median(all[n]); n != "ours" {
			fmt.Fprintf(out, "ours/%s: relayed × %.2f", n, a.relayed/b.relayed)
			if n != direct {
				fmt.Fprintf(out, ", accepted × %.2f, CPU × %.2f", a.accepted/b.accepted, a.cpu/b.cpu)
			}
			fmt.Fprintln(out)
		}
	}
}
