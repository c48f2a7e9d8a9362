package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"opensmtpd/src/bench/load"
)

// filteredConf shows every phase and every line to the pass-through program.
const filteredConf = `filter "pass" proc-exec "/queue/passthrough"
smtp limit max-mails 1000000
action "local" maildir
match for local action "local"
`

// runFilter measures what filtering costs: our server with a program that is
// asked at every phase and sees every line, against the same server without.
func runFilter(ctx context.Context, args []string, out io.Writer) error {
	var c compare
	if ok, err := c.begin(c.flags("filter"), args, out); !ok {
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
	all, err := c.inTurn(ctx, peers, out)
	if err != nil {
		return err
	}
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
