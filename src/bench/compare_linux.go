package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"opensmtpd/src/bench/load"
)

// figures are what one round measures of one server.
type figures struct {
	start     float64 // ms to the greeting
	pssIdle   float64 // MiB, before any mail
	accepted  float64 // messages/s
	delivered float64 // messages/s
	cpu       float64 // s per 1,000 messages
	pssAfter  float64 // MiB
	perConn   float64 // KiB per idle connection
}

type compare struct {
	rounds, messages, sessions, size, reuse, idle int
	pipeline                                      bool
	bin, cache, dir                               string
}

// flags are the options that every comparison has.
func (c *compare) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.IntVar(&c.rounds, "rounds", 3, "rounds of each")
	fs.IntVar(&c.messages, "messages", 5000, "messages a round")
	fs.IntVar(&c.sessions, "sessions", 50, "connections at once")
	fs.IntVar(&c.size, "size", 4096, "bytes a message")
	fs.IntVar(&c.reuse, "reuse", 10, "messages a connection")
	fs.BoolVar(&c.pipeline, "pipeline", false, "use PIPELINING")
	fs.StringVar(&c.bin, "bin", "bin", "our programs")
	fs.StringVar(&c.cache, "cache", filepath.Join(os.TempDir(), "smtpd-bench-cache"), "downloaded packages")
	fs.StringVar(&c.dir, "dir", "/var/tmp", "disk for queues and mailboxes")
	return fs
}

// begin reads the options and makes the directory of the run, which the caller
// removes. It is false when nothing can be measured, and says why.
func (c *compare) begin(fs *flag.FlagSet, args []string, out io.Writer) (bool, error) {
	if err := fs.Parse(args); err != nil {
		return false, err
	}
	if c.rounds < 1 || c.messages < 1 {
		return false, errors.New("at least one round of one message is needed")
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(out, "bench: skipped, the comparison needs root for its namespaces")
		return false, nil
	}
	var err error
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return false, err
	}
	c.dir, err = apart(c.dir)
	return err == nil, err
}

func runCompare(ctx context.Context, args []string, out io.Writer) error {
	var c compare
	fs := c.flags("compare")
	fs.IntVar(&c.idle, "idle", maxIdle, "idle connections, at most 90")
	only := fs.String("only", "", "measure this server alone: ours or postfix")
	if ok, err := c.begin(fs, args, out); !ok {
		return err
	}
	defer os.RemoveAll(c.dir)
	peers := c.peers(ctx, out, *only)
	c.explain(out, peers)
	_, err := c.inTurn(ctx, peers, out)
	return err
}

// inTurn measures peers round by round, so that all meet the same machine, and
// reports the figures, which it returns by name.
func (c *compare) inTurn(ctx context.Context, peers []peer, out io.Writer) (map[string][]figures, error) {
	all := make(map[string][]figures)
	for round := range c.rounds {
		for _, p := range peers {
			f, err := c.measure(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", p.name, round+1, err)
			}
			fmt.Fprintf(out, "round %d %-8s %s\n", round+1, p.name, f)
			all[p.name] = append(all[p.name], f)
		}
	}
	report(out, peers, all)
	return all, nil
}

// explain says what is going to be measured, and how.
func (c *compare) explain(out io.Writer, peers []peer) {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	fmt.Fprintf(out, `bench: %s, %d rounds in turn, on %d processors shared with the load: %d messages
  of %d bytes from %d sessions, %d a connection, to %d users' maildirs; queues and
  maildirs in %s. start: from exec to the greeting. idle: memory (PSS) of all
  processes a second later. accepted: by the last 250. delivered: by the last file
  in new. CPU: of all processes, those that ended too, until the server has stopped.
`,
		strings.Join(names, " and "), c.rounds, runtime.NumCPU(), c.messages, c.size, c.sessions, c.reuse, mailboxes, c.dir)
}

// What the servers need to deliver to mailboxes.
const (
	localConf = `smtp limit max-mails 1000000
action "local" maildir
match for local action "local"
`
	localSettings = `mydestination = localhost, bench.localhost
home_mailbox = Maildir/
`
)

// peers lists the servers that can be had; one that cannot is said.
func (c *compare) peers(ctx context.Context, out io.Writer, only string) []peer {
	list := []peer{{"ours", func(dir string, port int) (*jail, error) { return ours(c.bin, dir, port, localConf) }}}
	debs, err := fetch(ctx, c.cache, postfixPackages...)
	if err != nil {
		fmt.Fprintln(out, "bench: postfix skipped:", err)
	} else {
		list = append(list, peer{"postfix", func(dir string, port int) (*jail, error) { return postfix(debs, dir, port, localSettings) }})
	}
	return slices.DeleteFunc(list, func(p peer) bool { return only != "" && p.name != only })
}

// trial is one server in one round.
type trial struct {
	*server
	jail *jail
	addr string
}

// start runs a server in a directory of its own.
func (c *compare) start(name string, jailIn func(dir string, port int) (*jail, error)) (*trial, error) {
	dir, err := os.MkdirTemp(c.dir, name+"-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	j, err := jailIn(dir, port)
	if err != nil {
		return nil, err
	}
	srv, err := j.start()
	return &trial{srv, j, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, err
}

// failed adds to err what the server has said.
func (r *trial) failed(err error) error {
	text, _ := os.ReadFile(r.jail.Output)
	log, _ := os.ReadFile(filepath.Join(r.jail.Dir, "queue/log"))
	return fmt.Errorf("%w\n%s%s", err, text, tail(log))
}

func (c *compare) measure(ctx context.Context, p peer) (f figures, err error) {
	r, err := c.start(p.name, p.jail)
	if err != nil {
		return f, err
	}
	f, err = c.deliver(ctx, r)
	cpu, stopErr := r.stop()
	if err == nil {
		err = stopErr
	}
	if err != nil {
		return f, r.failed(err)
	}
	f.cpu = (cpu - f.cpu) / float64(c.messages) * 1000
	return f, nil
}

// deliver has a server deliver to mailboxes. The CPU time in f is that of before.
func (c *compare) deliver(ctx context.Context, r *trial) (f figures, err error) {
	if err := awaitGreeting(ctx, r.addr); err != nil {
		return f, err
	}
	greeted := time.Now()
	began, cpu, err := r.started()
	if err != nil {
		return f, err
	}
	f.start, f.cpu = greeted.Sub(began).Seconds()*1000, cpu
	pause(ctx, time.Second)
	f.pssIdle = pss(r.cmd.Process.Pid)
	if f.perConn, err = c.perConnection(ctx, r); err != nil {
		return f, err
	}
	began = time.Now()
	res := load.Run(ctx, load.Options{
		Addr: r.addr, Sessions: c.sessions, Messages: c.messages, Size: c.size,
		Reuse: c.reuse, Pipeline: c.pipeline, Rcpts: recipients(),
	})
	f.accepted = res.PerSecond()
	if res.Acked != int64(c.messages) {
		return f, fmt.Errorf("only %d of %d acknowledged: %w", res.Acked, c.messages, res.FirstErr)
	}
	if err := awaitDelivery(ctx, filepath.Join(r.jail.Dir, "home"), c.messages); err != nil {
		return f, err
	}
	f.delivered = float64(c.messages) / time.Since(began).Seconds()
	f.pssAfter = pss(r.cmd.Process.Pid)
	return f, nil
}

// apart makes the directory of all rounds below dir. Nothing in it is removed
// before the last round, and on ext4 each directory in it has inodes of its own:
// for a minute or more that file system goes around inodes that were freed, one by
// one, so that a round would pay for the files that the one before has removed, up
// to three times what it costs to create one.
func apart(dir string) (string, error) {
	dir, err := os.MkdirTemp(dir, "smtpd-bench-")
	if err != nil {
		return "", err
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const topDir = 0x20000 // FS_TOPDIR_FL, linux/fs.h
	if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		// Best effort: other file systems have no such flag.
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topDir))
	}
	return dir, os.Chmod(dir, 0o755)
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// maxIdle stays below the 100 processes that Postfix serves connections with.
const maxIdle = 90

// perConnection returns the KiB that an idle connection costs.
func (c *compare) perConnection(ctx context.Context, r *trial) (float64, error) {
	if c.idle == 0 {
		return 0, nil
	}
	all := min(c.idle, maxIdle)
	few := all / 10
	conns, err := holdIdle(ctx, load.Dial, r.addr, few)
	defer func() { closeAll(conns) }()
	if err != nil {
		return 0, err
	}
	pause(ctx, 500*time.Millisecond)
	before := pss(r.cmd.Process.Pid)
	more, err := holdIdle(ctx, load.Dial, r.addr, all-few)
	conns = append(conns, more...)
	if err != nil {
		return 0, err
	}
	pause(ctx, 500*time.Millisecond)
	n := len(more)
	if n == 0 {
		return 0, nil
	}
	return (pss(r.cmd.Process.Pid) - before) * 1024 / float64(n), nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func awaitGreeting(ctx context.Context, addr string) error {
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		c, err := load.Dial(ctx, addr, 5*time.Second)
		if err == nil {
			return c.Close()
		}
		pause(ctx, time.Millisecond)
	}
	return fmt.Errorf("no greeting on %s within 20 s", addr)
}

// awaitDelivery returns when want messages lie in the new/ of all mailboxes.
func awaitDelivery(ctx context.Context, home string, want int) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		n := 0
		for i := range mailboxes {
			d, err := os.Open(filepath.Join(home, fmt.Sprintf("b%02d/Maildir/new", i)))
			if err != nil {
				continue
			}
			names, _ := d.Readdirnames(-1)
			d.Close()
			n += len(names)
		}
		if n >= want {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d delivered", n, want)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// pss adds the proportional set size of a process and all below it, in MiB.
func pss(root int) float64 {
	parents := make(map[int][]int)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
		if fields := strings.Fields(rest); len(fields) > 1 {
			ppid, _ := strconv.Atoi(fields[1])
			parents[ppid] = append(parents[ppid], pid)
		}
	}
	total := 0.0
	for todo := slices.Clone(parents[root]); len(todo) > 0; { // not the jail itself
		pid := todo[0]
		todo = append(todo[1:], parents[pid]...)
		total += pssOf(pid)
	}
	return total / 1024
}

func pssOf(pid int) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb
		}
	}
	return 0
}

func (f figures) String() string {
	return fmt.Sprintf("start %5.0f ms  idle %5.1f MiB  accepted %6.0f/s  delivered %6.0f/s  %5.2f CPU-s/1000  after %5.1f MiB  %7.1f KiB/idle connection",
		f.start, f.pssIdle, f.accepted, f.delivered, f.cpu, f.pssAfter, f.perConn)
}

// all lists the figures, for median.
func (f *figures) all() []*float64 {
	return []*float64{&f.start, &f.pssIdle, &f.accepted, &f.delivered, &f.cpu, &f.pssAfter, &f.perConn}
}

// median returns the middle figure of each kind.
func median[F any, P interface {
	*F
	all() []*float64
}](rounds []F) F {
	var m F
	for i, middle := range P(&m).all() {
		var v []float64
		for r := range rounds {
			v = append(v, *P(&rounds[r]).all()[i])
		}
		slices.Sort(v)
		*middle = v[len(v)/2]
	}
	return m
}

func report(out io.Writer, peers []peer, all map[string][]figures) {
	for _, p := range peers {
		fmt.Fprintf(out, "median  %-8s %s\n", p.name, median(all[p.name]))
	}
	if len(all["ours"]) == 0 || len(all["postfix"]) == 0 {
		return
	}
	a, b := median(all["ours"]), median(all["postfix"])
	fmt.Fprintln(out, "wanted:       accepted × 4, delivered × 3, 1.2 CPU-s/1000 (× 0.36 where Postfix needs 3.3), start 60 ms, idle 18 MiB")
	fmt.Fprintf(out, "ours/postfix: accepted × %.2f, delivered × %.2f, CPU × %.2f, start × %.2f, idle memory × %.2f\n",
		a.accepted/b.accepted, a.delivered/b.delivered, a.cpu/b.cpu, a.start/b.start, a.pssIdle/b.pssIdle)
}
