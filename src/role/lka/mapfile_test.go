package lka

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

const maps = `
table map db:/etc/mail/map.db
table twin db:/etc/mail/map.db
action "local" maildir alias <map>
action "other" maildir alias <twin>
action "out" relay
match from src <map> for domain <twin> action "out"
match tag other for local action "other"
match for local action "local"
listen on lo tag other
-- /etc/mail/map.db --
x
-- users --
bob:1000:1000:/home/bob
eve:1001:1001:/home/eve
`

func makemap(t *testing.T, path string, pairs ...string) {
	t.Helper()
	var entries []mapdb.Entry
	for i := 0; i < len(pairs); i += 2 {
		entries = append(entries, mapdb.Entry{Key: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	if err := mapdb.Write(path, mapdb.Plain, entries, mapdb.Owner{Mode: 0o600, UID: -1, GID: -1}); err != nil {
		t.Fatal(err)
	}
}

// TestMapFile holds that a map that makemap wrote again is in use at the next
// look, that a bad one is not, and that both names of it see the same.
func TestMapFile(t *testing.T) {
	s := newSystem(t, maps)
	path := filepath.Join(t.TempDir(), "map.db")
	s.real = map[string]string{"/etc/mail/map.db": path}
	makemap(t, path, "list", "bob", "10.0.0.0/8", "", "*.example.net", "")
	r := s.role()
	logged := ""
	asks := func(rcpt, want string) {
		t.Helper()
		got := to(t, s, r, 0, rcpt)
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, not %s", rcpt, got, want)
		}
		for line := range strings.Lines(got) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "log: "); ok {
				logged += text
			}
		}
	}
	said := func(want string) {
		t.Helper()
		if strings.Count(logged, want) != 1 {
			t.Errorf("log %q, not %q once", logged, want)
		}
		logged = ""
	}
	asks("list", "user=bob")
	asks("list tag=other", "user=bob")
	asks("x@a.example.net src=10.1.2.3", "action=out")
	asks("x@a.example.net src=11.1.2.3", "550")

	makemap(t, path, "list", "eve")
	asks("list", "user=bob") // looked at a moment ago
	s.clock.Advance(lookEvery)
	asks("list", "user=eve")
	asks("list tag=other", "user=eve")
	said(`info: Table "map" successfully updated`)

	// A map of Berkeley DB: the content stays, the log says what to do, once.
	if err := os.WriteFile(path+".new", append([]byte{0x62, 0x31, 0x05, 0x00}, make([]byte, 64)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.clock.Advance(time.Second)
		asks("list", "user=eve")
	}
	said("run makemap(8) again")
	if _, fail := ask(t, t.Context(), r, proc.Control, &msg.Control{Verb: msg.VerbUpdateTable, Args: []string{"twin"}}); fail == nil {
		t.Error("an update from a bad map went well")
	}
	makemap(t, path, "list", "bob")
	s.log.Take()
	if _, fail := ask(t, t.Context(), r, proc.Control, &msg.Control{Verb: msg.VerbUpdateTable, Args: []string{"map"}}); fail != nil {
		t.Error(fail)
	}
	asks("list", "user=bob")

	// The next generation takes the descriptor of this one.
	if err := r.Prepare(t.Context(), s.conf(2, false)); err != nil {
		t.Fatal(err)
	}
	r.Commit(2)
	makemap(t, path, "list", "eve")
	s.clock.Advance(time.Second)
	asks("list", "user=eve")
}

// TestBadMap holds that a map that cannot be read refuses the configuration.
func TestBadMap(t *testing.T) {
	s := newSystem(t, maps)
	if _, err := New(s.env(false)); err == nil || !strings.Contains(err.Error(), "table map: ") ||
		!strings.Contains(err.Error(), "is not a map made by makemap(8)") {
		t.Error(err)
	}
}

// TestExplain asks by the control socket's verb what becomes of recipients.
func TestExplain(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	for words, want := range map[string]string{
		"rcpt-to list@mail.example.org":                   `"text":"maildir for user bob, action local"`,
		"rcpt-to bob@mail.example.org tag other":          `"text":"maildir for user bob, action other"`,
		"src 203.0.113.1 rcpt-to x@example.net":           `"text":"relay to x@example.net, action out"`,
		"src 203.0.113.1 rcpt-to x@example.com":           `"failed":"for domain example.net"`,
		"src 203.0.113.1 rcpt-to nobody@mail.example.org": `"kind":"refused","text":"550 5.1.1 Invalid recipient"`,
	} {
		reply, fail := ask(t, t.Context(), r, proc.Control, &msg.Control{Verb: msg.VerbExplain, Args: strings.Fields(words)})
		if fail != nil {
			t.Fatal(fail)
		}
		var got strings.Builder
		for _, row := range reply.(*msg.ControlRows).Rows {
			got.Write(append(row, '\n'))
		}
		if !strings.Contains(got.String(), want) {
			t.Errorf("%s: no %s in\n%s", words, want, got.String())
		}
	}
	for _, bad := range []*msg.Control{
		{Verb: msg.VerbExplain}, {Verb: msg.VerbExplain, Args: []string{"bogus"}},
		{Verb: msg.VerbExplain, Args: []string{"rcpt-to", "a@b"}, Cursor: "x"},
	} {
		if _, fail := ask(t, t.Context(), r, proc.Control, bad); fail == nil {
			t.Errorf("%+v is answered", bad)
		}
	}
	if len(s.sent) > 0 {
		t.Errorf("%d envelopes were made", len(s.sent))
	}
}
