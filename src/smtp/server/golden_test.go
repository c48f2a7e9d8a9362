package server

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// deviations are the recorded cases in which we do otherwise on purpose, with
// the text that stands in our message instead of OpenSMTPD's.
var deviations = map[string]struct{ why, theirs, ours string }{
	"group-members": {"a member of a group is no address to be completed with what follows it",
		"To: friends: bob, carol;@mx.example.com\n", "To: friends: bob, carol;\n"},
	"comment-first": {"a domain inside a comment is no domain of the address",
		"To:(@mx.example.comcomment)\n", "To:(comment)\n"},
}

// TestGolden holds the messages that we keep equal, byte for byte, to those that
// OpenSMTPD 7.8.0p1 wrote into its queue for the same input. Identifiers and
// times are normalised. Each file has the session, the message as the client
// sent it (lines ended by LF, dots not stuffed), the reply and what was kept.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) < 50 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			part := sections(t, string(raw))
			want := part["message"]
			if d, ok := deviations[name]; ok {
				if !strings.Contains(want, d.theirs) {
					t.Fatalf("the record lacks %q", d.theirs)
				}
				want = strings.Replace(want, d.theirs, d.ours, 1)
			}
			reply, got := converse(t, part["session"], part["data"])
			if diff := cmp.Diff(strings.TrimSpace(part["reply"]), reply); diff != "" {
				t.Errorf("reply (-OpenSMTPD +ours)\n%s", diff)
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("message (-OpenSMTPD +ours)\n%s", diff)
			}
		})
	}
}

// sections cuts a file at the lines "-- name --".
func sections(t *testing.T, s string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, name := range []string{"message", "reply", "data", "session"} {
		head, body, found := strings.Cut(s, "-- "+name+" --\n")
		if !found {
			t.Fatalf("no section %q", name)
		}
		m[name], s = body, head
	}
	return m
}

var (
	aDate = regexp.MustCompile(`(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d+ \w+ \d{4} \d\d:\d\d:\d\d [+-]\d{4} \(\w+\)`)
	anID  = regexp.MustCompile(`\bid [0-9a-f]{8}\b`)
	aMID  = regexp.MustCompile(`<[0-9a-f]{16}@`)
	anAck = regexp.MustCompile(`^250 2\.0\.0 [0-9a-f]{8}`)
)

func normalise(s string) string {
	s = aDate.ReplaceAllString(s, "DATE")
	s = anID.ReplaceAllString(s, "id MSGID")
	return aMID.ReplaceAllString(s, "<MID@")
}

// converse replays a session and returns the reply to the message and what was
// kept of it, normalised.
func converse(t *testing.T, session, data string) (string, string) {
	t.Helper()
	r := newRig(t)
	lines := strings.Split(strings.TrimSpace(session), "\n")
	arrive(t, r, strings.TrimPrefix(lines[0], "listener "))
	nc := r.dial(t)
	in := bufio.NewReader(nc)
	answer(t, in)
	for _, line := range append(lines[1:], "DATA") {
		if _, err := nc.Write([]byte(line + "\r\n")); err != nil {
			t.Fatal(err)
		}
		if got := answer(t, in); got[0] > '3' {
			t.Fatalf("%s: %s", line, got)
		}
	}
	if _, err := nc.Write(append(onTheWire(data), ".\r\n"...)); err != nil {
		t.Fatal(err)
	}
	reply := anAck.ReplaceAllString(answer(t, in), "250 2.0.0 MSGID")
	var kept string
	if all := r.mem.accepted(); len(all) > 0 {
		kept = normalise(all[0].body.String())
	}
	return reply, kept
}

// arrive sets the listener and the client of a record up.
func arrive(t *testing.T, r *rig, listener string) {
	t.Helper()
	r.local = netip.MustParseAddrPort("192.0.2.1:1234")
	switch listener {
	case "net":
	case "loopback":
		r.local = netip.MustParseAddrPort("127.0.0.1:1234")
		r.mem.name.Host, r.ln.Submission = "localhost", true
	case "inet6":
		r.local = netip.MustParseAddrPort("[::1]:1234")
		r.mem.name.Host, r.ln.Submission = "", true
	case "submission":
		r.ln.Submission = true
	case "mask":
		r.ln.MaskSource = true
	case "socket":
		r.ln.Socket, r.ln.Submission = true, true
	default:
		t.Fatalf("listener %q", listener)
	}
}

func onTheWire(data string) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(data) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.WriteString(strings.TrimSuffix(line, "\n") + "\r\n")
	}
	return b.Bytes()
}

// answer returns the last line of the next reply.
func answer(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		if len(line) > 3 && line[3] == ' ' {
			return strings.TrimSuffix(line, "\r\n")
		}
	}
}
