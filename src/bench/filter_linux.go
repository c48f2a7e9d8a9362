package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"opensmtpd/src/bench/load"
)

// filteredConf shows every phase and every line to the pass-through program. The
// second listener, at the port above, is without it.
const filteredConf = `filter "pass" proc-exec "/queue/passthrough"
smtp limit max-mails 1000000
action "local" maildir
match for local action "local"
`

// runFilter measures what filtering costs: our server with a program that is
// asked at every phase and sees every line, against the same server without.
func runFilter(ctx context.Context, args []string, out io.Writer) error {
	var c compare
	fs := flag.NewFlagSet("filter", flag.ContinueOnError)
	fs.IntVar(&c.rounds, "rounds", 3, "rounds of each")
	fs.IntVar(&c.messages, "messages", 5000, "messages a round")
	fs.IntVar(&c.sessions, "sessions", 50, "connections at once")
	fs.IntVar(&c.size, "size", 4096, "bytes a message")
	fs.IntVar(&c.reuse, "reuse", 10, "messages a connection")
	fs.StringVar(&c.bin, "bin", "bin", "our programs")
	fs.StringVar(&c.dir, "dir", "/var/tmp", "disk for queues and mailboxes")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(out, "bench: skipped, measuring filters needs root for its namespaces")
		return nil
	}
	var err error
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return err
	}
	if c.dir, err = apart(c.dir); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	program := filepath.Join(c.dir, "passthrough")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "opensmtpd/src/bench/passthrough")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the filter: %w\n%s", err, text)
	}
	peers := []peer{
		{"plain", func(dir string, port int) (*jail, error) { return ours(c.bin, dir, port, localConf) }},
		{"filtered", func(dir string, port int) (*jail, error) { return filtered(c.bin, dir, port, program) }},
	}
	all := make(map[string][]figures)
	for round := range c.rounds {
		for _, p := range peers {
			f, err := c.measure(ctx, p)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", p.name, round+1, err)
			}
			fmt.Fprintf(out, "round %d %-8s %s\n", round+1, p.name, f)
			all[p.name] = append(all[p.name], f)
		}
	}
	report(out, peers, all)
	plain, with := median(all["plain"]), median(all["filtered"])
	lines := load.Lines(c.size)
	fmt.Fprintf(out, "filtered/plain: accepted × %.2f; %.0f lines/s through the filter, %d a message of %d bytes\n",
		with.accepted/plain.accepted, with.accepted*float64(lines), lines, c.size)
	return nil
}

// filtered is our server with the pass-through program on its listener.
func filtered(bin, dir string, port int, program string) (*jail, error) {
	j, err := ours(bin, dir, port, "")
	if err != nil {
		return nil, err
	}
	j.Files["/etc/mail/smtpd.conf"] = filteredConf + fmt.Sprintf("listen on 127.0.0.1 port %d filter \"pass\"\n", port)
	text, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	return j, os.WriteFile(filepath.Join(dir, "queue/passthrough"), text, 0o755)
}
