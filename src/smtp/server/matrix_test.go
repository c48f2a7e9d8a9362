package server

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the files of TestMatrix anew")

// asked is what TestMatrix says in each state, each in a session of its own. The
// password is that of bob; the chunks are of two bytes, and there.
var asked = []string{
	"HELO client.example.org", "HELO", "HELO -",
	"EHLO client.example.org", "EHLO", "EHLO [192.0.2.9",
	"STARTTLS", "STARTTLS now",
	"AUTH PLAIN AGJvYgBCT0I=", "AUTH PLAIN", "AUTH X", "AUTH",
	"MAIL FROM:<a@example.org>", "MAIL FROM:<>", "MAIL FROM:a b", "MAIL FROM:<a@example.org> X=1", "MAIL",
	"RCPT TO:<b@example.com>", "RCPT TO:<>", "RCPT TO:<b@example.com> X=1", "RCPT",
	"DATA", "DATA now",
	"BDAT 2\r\n", "BDAT 2 LAST\r\n", "BDAT 0", "BDAT 0 LAST", "BDAT", "BDAT x",
	"RSET", "RSET now",
	"NOOP", "NOOP now",
	"VRFY", "VRFY bob",
	"EXPN", "EXPN list",
	"HELP", "HELP MAIL",
	"QUIT", "QUIT now",
	"UNKNOWN", "",
}

// TestMatrix holds the reply to every command in every state. A file in
// testdata/matrix is a state: the dialogue that leads to it and, behind a line
// "-- PROBE", each line that was asked with its reply and, indented, the reply to
// the probe after it, from which one can tell whether there is a transaction.
// -update writes the files again, to be read against the RFCs.
func TestMatrix(t *testing.T) {
	files, err := filepath.Glob("testdata/matrix/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no states", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			setup, rest, _ := strings.Cut(string(text), "-- ")
			probe, want, _ := strings.Cut(rest, "\n")
			got := inState(t, file, setup, probe)
			if *update {
				if err := os.WriteFile(file, []byte(setup+"-- "+probe+"\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// inState asks all in the state that a dialogue leads to.
func inState(t *testing.T, file, setup, probe string) string {
	d := &dialogue{t: t, rig: newRig(t)}
	var settings, steps []string
	for line := range strings.Lines(setup) {
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "set ") {
			settings = append(settings, line)
		} else {
			steps = append(steps, line)
		}
	}
	for _, line := range settings {
		d.where = file
		d.step(line)
	}
	var b strings.Builder
	for _, line := range asked {
		d.conn = nil
		for i, step := range steps {
			d.where = fmt.Sprintf("%s, before %q, step %d", file, line, i)
			d.step(step)
		}
		head, _, _ := strings.Cut(line, "\r\n")
		b.WriteString("> " + head + "\n")
		d.send(line + "\r\n")
		reply := readReply(t, d.in)
		b.WriteString(reply)
		if !strings.HasPrefix(reply, "3") && !strings.Contains(reply, "start TLS") {
			d.send(probe + "\r\n")
			b.WriteString("\t" + readReply(t, d.in))
		}
		d.conn.Close()
		<-d.rig.mem.done // one at a time: they may share a filter
	}
	return b.String()
}

var ackID = regexp.MustCompile(`\b[0-9a-f]{8} Message accepted`)

// readReply returns a reply whole, or that there is none.
func readReply(t *testing.T, in *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		// A server that has gone answers a line that comes after with a reset.
		if line == "" && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
			return "closed\n"
		}
		if err != nil || len(line) < 6 || !strings.HasSuffix(line, "\r\n") {
			t.Fatalf("reply %q and %v", line, err)
		}
		b.WriteString(strings.TrimSuffix(line, "\r\n") + "\n")
		if line[3] == ' ' {
			return ackID.ReplaceAllString(b.String(), "MSGID Message accepted")
		}
	}
}
