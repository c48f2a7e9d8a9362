package lka

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

const simple = `
table aliases file:/etc/mail/aliases
table second file:/etc/mail/aliases
action "local" maildir alias <aliases> ttl 2d
action "other" maildir alias <second>
action "out" relay
match tag other for local action "other"
match for local action "local"
match from any for domain example.net action "out"
listen on lo tag other
-- /etc/mail/aliases --
list: bob, x@example.net
-- users --
bob:1000:1000:/home/bob
`

func expandOne(t *testing.T, r *Role, m *msg.Expand) *msg.Expanded {
	t.Helper()
	reply, fail := ask(t, t.Context(), r, proc.Dispatcher, m)
	if fail != nil {
		t.Fatal(fail)
	}
	return reply.(*msg.Expanded)
}

// to asks about a recipient from the local socket and returns what was answered.
func to(t *testing.T, s *system, r *Role, gen mail.Gen, rcpt string) string {
	t.Helper()
	m := question(t, "to="+rcpt)
	m.Gen = gen
	return strings.TrimSpace(answer(t, s, r, m))
}

func TestEnvelopes(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	m := &msg.Expand{
		Gen: 1, Session: 7, Message: 0xcafe0001, First: 5, Flags: envelope.Authenticated,
		Client: msg.Client{
			Listener: "tcp:127.0.0.1:25", Tag: "x", Addr: netip.MustParseAddrPort("127.0.0.1:4000"),
			Helo: "client.example", SMTPName: "mail.example.org", AuthUser: "joe", UID: 99,
		},
		Sender: addr.Address{Local: "a", Domain: "b"}, Rcpt: addr.Address{Local: "List", Domain: "localhost"},
		Notify: envelope.NotifyDelay, Return: envelope.ReturnHeaders, EnvID: "id", ORcpt: "rfc822;q",
		Now: time.Unix(1e9, 0),
	}
	x := expandOne(t, r, m)
	if x.Err != nil || x.Added != 2 {
		t.Fatalf("%+v", x)
	}
	want := envelope.Envelope{
		Flags: envelope.Authenticated, Tag: "x", SMTPName: "mail.example.org", Helo: "client.example", Hostname: "<unknown>",
		Username: "joe", Source: m.Client.Addr, Sender: m.Sender, Rcpt: m.Rcpt, Created: m.Now,
		DSNNotify: envelope.NotifyDelay, DSNRet: envelope.ReturnHeaders, DSNEnvID: "id", DSNORcpt: "rfc822;q",
	}
	local, out := want, want
	// Breadth first: the address leaves before the user has been looked up.
	out.ID, out.Type, out.Action, out.TTL = mail.EnvelopeAt(m.Message, 6), envelope.MTA, "out", 4*24*time.Hour
	out.Dest = addr.Address{Local: "x", Domain: "example.net"}
	local.ID, local.Type, local.Action, local.TTL = mail.EnvelopeAt(m.Message, 5), envelope.MDA, "local", 48*time.Hour
	local.Dest, local.MDAUser = m.Rcpt, "bob"
	opts := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if d := cmp.Diff([]envelope.Envelope{local, out}, s.sent, opts); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}

	s.sent = nil
	m.Client = msg.Client{Socket: true, RDNS: "mail.example.org", UID: 1000}
	if x := expandOne(t, r, m); x.Err != nil {
		t.Fatal(x.Err)
	}
	if e := s.sent[0]; e.LocalUID != 1000 || e.Source.IsValid() || e.Hostname != "mail.example.org" {
		t.Errorf("by the socket: %+v", e)
	}
}

// Queue asks too, for reports, and gets no envelope of a recipient refused.
func TestQueueAsks(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	m := question(t, "to=bob bounce")
	reply, fail := ask(t, t.Context(), r, proc.Queue, m)
	if fail != nil || reply.(*msg.Expanded).Added != 1 || s.sent[0].Flags != envelope.IsBounce|envelope.Internal {
		t.Errorf("%+v, %v, %+v", reply, fail, s.sent)
	}
	s.sent = nil
	m = question(t, "to=ghost bounce")
	reply, fail = ask(t, t.Context(), r, proc.Queue, m)
	if fail != nil || reply.(*msg.Expanded).Err == nil || len(s.sent) != 0 {
		t.Errorf("%+v, %v, %+v", reply, fail, s.sent)
	}
}

// A client of the network without an address must not pass for a local one.
func TestNobodyIsNotLocal(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	m := question(t, "to=bob")
	m.Client = msg.Client{Tag: "x"}
	if x := expandOne(t, r, m); x.Err == nil {
		t.Error("a client without an address is local")
	}
}

func TestOneQuestionPerUser(t *testing.T) {
	s := newSystem(t, `
action "local" maildir
match for local action "local"
-- /home/bob/.forward --
bob, "|/bin/x", carol
-- /home/carol/.forward --
carol, bob
-- users --
bob:1000:1000:/home/bob
carol:1001:1001:/home/carol
`)
	r := s.role()
	got := to(t, s, r, 1, "bob")
	if n := strings.Count(got, "mda "); n != 3 {
		t.Errorf("%d deliveries: %s", n, got)
	}
	if len(s.asked) != 2 {
		t.Errorf("parent was asked %d times: %q", len(s.asked), s.asked)
	}
}

func TestGenerations(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	if got := to(t, s, r, 1, "dave"); got != "550 5.1.1 Invalid recipient" {
		t.Fatal(got)
	}
	s.files["/etc/mail/aliases"] = "dave: bob\n"
	if err := r.Prepare(t.Context(), s.conf(2, true)); err != nil {
		t.Fatal(err)
	}
	if got := to(t, s, r, 2, "dave"); !strings.HasPrefix(got, "550") {
		t.Errorf("prepared is in force already: %s", got)
	}
	r.Abort(2)
	r.Commit(2)
	if got := to(t, s, r, 0, "dave"); !strings.HasPrefix(got, "550") {
		t.Errorf("aborted is in force: %s", got)
	}
	if err := r.Prepare(t.Context(), s.conf(3, true)); err != nil {
		t.Fatal(err)
	}
	r.Commit(2) // another than was prepared
	if got := to(t, s, r, 0, "dave"); !strings.HasPrefix(got, "550") {
		t.Errorf("generation 2 was not prepared: %s", got)
	}
	r.Commit(3)
	for gen, want := range map[mail.Gen]string{1: "550", 3: "mda", 0: "mda", 99: "mda"} {
		if got := to(t, s, r, gen, "dave"); !strings.HasPrefix(got, want) {
			t.Errorf("generation %d: %s, want %s", gen, got, want)
		}
	}
	for gen := mail.Gen(4); gen < 4+kept; gen++ {
		if err := r.Prepare(t.Context(), s.conf(gen, false)); err != nil {
			t.Fatal(err)
		}
		r.Commit(gen)
	}
	if got := to(t, s, r, 1, "dave"); !strings.HasPrefix(got, "mda") {
		t.Errorf("generation 1 is still known after %d others: %s", kept+1, got)
	}
}

// A bad configuration, or a bad file, changes nothing.
func TestBadGeneration(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	good := s.conf(2, true)
	projection := func(old, new string) []byte {
		return []byte(strings.Replace(string(good.Projection), old, new, 1))
	}
	s.files["/etc/mail/aliases"] = "list: bob\nbroken\n"
	badFile := s.conf(2, true)
	badFile.Projection = good.Projection
	for name, c := range map[string]proc.Conf{
		"garbage":         {Gen: 2, Projection: []byte("{")},
		"file":            badFile,
		"back end":        {Gen: 2, Projection: projection(`"Backend":"file"`, `"Backend":"none"`)},
		"table of action": {Gen: 2, Projection: projection(`"Alias":"aliases"`, `"Alias":"nothing"`)},
		"table of rule":   {Gen: 2, Projection: projection(`"Tag":{"Set":true,"Table":"`, `"Tag":{"Set":true,"Table":"no`)},
	} {
		err := r.Prepare(t.Context(), c)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if name == "file" && !strings.Contains(fmt.Sprint(err), "/etc/mail/aliases:2: invalid map entry") {
			t.Errorf("bad file: %v", err)
		}
		r.Abort(2)
	}
	if got := to(t, s, r, 0, "list"); strings.Count(got, "action=") != 2 {
		t.Errorf("after bad generations: %s", got)
	}
	env := s.env(false)
	if _, err := New(env); err == nil {
		t.Error("a start with a bad table file")
	}
	s.files["/etc/mail/aliases"] = ""
	env = s.env(false)
	env.Conf.Files = nil
	if _, err := New(env); err == nil || !strings.Contains(err.Error(), "no descriptor") {
		t.Errorf("a start without a descriptor: %v", err)
	}
	env.Peers = nil
	if _, err := New(env); err == nil {
		t.Error("a start without peers")
	}
}

func TestUpdateTable(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	update := func(name string) *mailerr.Error {
		_, fail := ask(t, t.Context(), r, proc.Control, &msg.Control{Verb: msg.VerbUpdateTable, Args: []string{name}})
		return fail
	}
	s.files["/etc/mail/aliases"] = "dave: bob\n"
	if fail := update("second"); fail != nil {
		t.Fatal(fail)
	}
	if got := s.log.Take(); len(got) != 1 || got[0] != `info: Table "second" successfully updated` {
		t.Errorf("log %q", got)
	}
	// Both tables are the same file.
	for _, rcpt := range []string{"dave", "dave tag=other"} {
		if got := to(t, s, r, 0, rcpt); !strings.HasPrefix(got, "mda ") {
			t.Errorf("%s after the update: %s", rcpt, got)
		}
	}
	s.files["/etc/mail/aliases"] = "dave: bob\nerror\n"
	fail := update("aliases")
	if fail == nil || !strings.Contains(fail.Text, "the old content stays: /etc/mail/aliases:2: invalid map entry") {
		t.Errorf("a bad file: %v", fail)
	}
	s.files["/etc/mail/aliases"] = "dave\n"
	fail = update("aliases")
	if fail == nil || !strings.Contains(fail.Text, "the old content stays: /etc/mail/aliases: it is a list, a mapping is needed") {
		t.Errorf("a list of names: %v", fail)
	}
	delete(s.files, "/etc/mail/aliases")
	if fail := update("aliases"); fail == nil || !strings.Contains(fail.Text, "the old content stays") {
		t.Errorf("a file that is gone: %v", fail)
	}
	s.log.Take()
	if got := to(t, s, r, 0, "dave"); !strings.HasPrefix(got, "mda ") {
		t.Errorf("after failed updates: %s", got)
	}
	if fail := update("nothing"); fail == nil || !strings.Contains(fail.Text, "no table nothing") {
		t.Errorf("a table that does not exist: %v", fail)
	}
	s.log.Take()
	if fail := update("<1>"); fail != nil && !strings.Contains(fail.Text, "no table") {
		t.Errorf("an inline table: %v", fail)
	}
	s.parent = errors.New("gone")
	if fail := update("aliases"); fail == nil {
		t.Error("no failure without parent")
	}
	if got := s.log.Take(); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], `warn: Failed to update table "aliases": `) {
		t.Errorf("log %q", got)
	}
	for _, m := range []*msg.Control{{Verb: msg.VerbList}, {Verb: msg.VerbUpdateTable}, {Verb: msg.VerbUpdateTable, Args: []string{"a", "b"}}} {
		if _, fail := ask(t, t.Context(), r, proc.Control, m); fail == nil {
			t.Errorf("%+v is served", m)
		}
	}
	if reply, fail := ask(t, t.Context(), r, proc.Control, &msg.Stats{}); fail != nil || reply == nil {
		t.Errorf("stats: %v, %v", reply, fail)
	}
}

func TestUserBase(t *testing.T) {
	s := newSystem(t, `
table people file:/etc/people
table list { x }
action "virt" maildir userbase <people>
match for local action "virt"
match tag <list> for local action "virt"
listen on lo tag x
-- /etc/people --
joe 500:501:/virtual/joe
bad x
-- users --
`)
	r := s.role()
	find := func(table, name string) (msg.Message, *mailerr.Error) {
		return ask(t, t.Context(), r, proc.Parent, &msg.UserBase{Gen: 1, Table: table, Name: name})
	}
	reply, fail := find("people", "Joe")
	if u, _ := reply.(*msg.UserInfoReply); fail != nil || !u.Found || u.UID != 500 || u.GID != 501 || u.Home != "/virtual/joe" {
		t.Errorf("joe: %+v, %v", reply, fail)
	}
	reply, fail = find("people", "jack")
	if u, _ := reply.(*msg.UserInfoReply); fail != nil || u.Found || u.Err != nil {
		t.Errorf("jack: %+v, %v", reply, fail)
	}
	for _, q := range [][2]string{{"people", "bad"}, {"nothing", "joe"}} {
		if _, fail := find(q[0], q[1]); fail == nil || fail.Class != mailerr.Temp {
			t.Errorf("%v: %v", q, fail)
		}
	}
}

func TestRDNS(t *testing.T) {
	r := newSystem(t, simple).role()
	reply, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.RDNS{Addr: netip.MustParseAddr("127.0.0.1")})
	if fail != nil || *reply.(*msg.RDNSReply) != (msg.RDNSReply{Name: "localhost", Forward: true}) {
		t.Errorf("%+v, %v", reply, fail)
	}
	if _, fail := ask(t, t.Context(), r, proc.Dispatcher, &msg.RDNS{}); fail == nil {
		t.Error("no address has a name")
	}
}

// broken is a message that no handler can parse.
type broken msg.Type

func (b broken) Type() msg.Type           { return msg.Type(b) }
func (b broken) Append(buf []byte) []byte { return append(buf, 0xff) }

func TestGarbage(t *testing.T) {
	r := newSystem(t, simple).role()
	for _, h := range r.Handlers() {
		if h.Type == msg.TypeStats {
			continue // has no body to be wrong
		}
		if _, fail := ask(t, t.Context(), r, h.From, broken(h.Type)); fail == nil {
			t.Errorf("message %d from %s: garbage is accepted", h.Type, h.From)
		}
	}
}

func TestParentFails(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	s.parent = errors.New("gone")
	if got := to(t, s, r, 1, "bob"); !strings.HasSuffix(got, "451 4.3.0 Temporary failure") {
		t.Errorf("without parent: %s", got)
	}
	// Mail for elsewhere needs no parent.
	if got := to(t, s, r, 1, "x@example.net"); !strings.HasPrefix(got, "mta ") {
		t.Errorf("relay without parent: %s", got)
	}
	// Half of a list is nothing.
	if got := to(t, s, r, 1, "list"); !strings.HasSuffix(got, "451 4.3.0 Temporary failure") || len(s.sent) > 0 {
		t.Errorf("list without parent: %s", got)
	}
}

func TestPatience(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	s.hang = true
	done := make(chan *msg.Expanded)
	go func() { done <- expandOne(t, r, question(t, "to=bob")) }()
	<-s.hanging
	s.clock.BlockUntil(1)
	s.clock.Advance(patience)
	if x := <-done; x.Err == nil || x.Err.Code != 451 {
		t.Errorf("parent hangs: %+v", x)
	}
}

// What has begun to go to queue goes all the way.
func TestSendingIsNotCut(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	reply, fail := ask(t, ctx, r, proc.Dispatcher, question(t, "to=x@example.net"))
	if fail != nil || reply.(*msg.Expanded).Added != 1 || len(s.sent) != 1 {
		t.Errorf("%+v, %v, %d envelopes", reply, fail, len(s.sent))
	}
}

func TestBigList(t *testing.T) {
	var list strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&list, "member%d@example.net,", i)
	}
	s := newSystem(t, strings.Replace(simple, "list: bob, x@example.net", "list: "+list.String(), 1))
	r := s.role()
	x := expandOne(t, r, question(t, "to=list"))
	if x.Err != nil || x.Added != 10_000 || len(s.sent) != 10_000 {
		t.Fatalf("%d added, %v", x.Added, x.Err)
	}
	ids := make(map[mail.EnvelopeID]bool)
	for _, e := range s.sent {
		ids[e.ID] = true
	}
	if len(ids) != 10_000 {
		t.Errorf("%d different ids", len(ids))
	}
}

// An aliases file made to explode is cut, at little cost.
func TestBomb(t *testing.T) {
	var text strings.Builder
	for depth := range 9 {
		for i := range 20 {
			fmt.Fprintf(&text, "a%d-%d: ", depth, i)
			for j := range 20 {
				fmt.Fprintf(&text, "a%d-%d@localhost, ", depth+1, j)
			}
			text.WriteString("\n")
		}
	}
	fmt.Fprintf(&text, "wide: ")
	for i := range 30_000 {
		fmt.Fprintf(&text, "w%d,", i)
	}
	s := newSystem(t, strings.Replace(simple, "list: bob, x@example.net", text.String(), 1))
	r := s.role()
	for _, rcpt := range []string{"a0-0", "wide"} {
		if got := to(t, s, r, 1, rcpt); !strings.HasSuffix(got, "524 5.2.4 Mailing list expansion problem") {
			t.Errorf("%s: %.200s", rcpt, got)
		}
	}
}

func TestTrace(t *testing.T) {
	s := newSystem(t, simple)
	r, err := New(s.env(true))
	if err != nil {
		t.Fatal(err)
	}
	s.run(r)
	got := to(t, s, r, 1, "list")
	for _, want := range []string{
		"expand: address: list@mail.example.org [depth=0]",
		"expand: rule #2 matched: match from local for local action local",
		"expand: user: list [depth=1]",
		"expand: user: bob [depth=2]",
		"expand: address: x@example.net [depth=2]",
	} {
		if !strings.Contains(got, "log: "+want+"\n") {
			t.Errorf("the trace lacks %q:\n%s", want, got)
		}
	}
}

// Requests and updates at the same time, for the race detector.
func TestTogether(t *testing.T) {
	s := newSystem(t, simple)
	r := s.role()
	confs := []proc.Conf{s.conf(2, true), s.conf(3, false)}
	f := s.open("/etc/mail/aliases")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if x := expandOne(t, r, question(t, "to=list")); x.Err != nil || x.Added != 2 {
					t.Errorf("%+v", x)
				}
			}
		})
	}
	wg.Go(func() {
		for _, c := range confs {
			if err := r.Prepare(t.Context(), c); err != nil {
				t.Error(err)
			}
			r.Commit(c.Gen)
		}
	})
	wg.Go(func() { updateOften(t, r, f) })
	wg.Wait()
}

func updateOften(t *testing.T, r *Role, f *os.File) {
	for range 20 {
		tbl := r.at(0).files["file:/etc/mail/aliases"]
		if err := tbl.Update(f); err != nil {
			t.Error(err)
		}
	}
}
