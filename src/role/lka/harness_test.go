package lka

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is all that is around the role: files, users, the other processes.
type system struct {
	t     testing.TB
	clock *clock.Fake
	files map[string]string // by absolute path
	users map[string]msg.UserInfoReply
	real  map[string]string // files that are one on disk, and where

	mu      sync.Mutex
	log     mlog.Memory
	asked   []string // of parent
	sent    []envelope.Envelope
	parent  error            // what calls to parent fail with
	hang    bool             // parent does not answer until the call is given up
	hanging chan struct{}    // receives when a call hangs
	told    chan msg.Message // receives what is sent to parent, unless nil
}

// newSystem reads files in sections, "-- path --", with the users in one called
// users, as name:uid:gid:home.
func newSystem(t testing.TB, text string) *system {
	t.Helper()
	s := &system{
		t: t, clock: clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		files: make(map[string]string), users: make(map[string]msg.UserInfoReply), hanging: make(chan struct{}, 1),
	}
	name := "smtpd.conf"
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(strings.TrimSpace(n), " --")
			s.files[name] = ""
			continue
		}
		s.files[name] += line
	}
	for line := range strings.Lines(s.files["users"]) {
		w := strings.Split(strings.TrimSpace(line), ":")
		uid, err1 := strconv.ParseUint(w[1], 10, 32)
		gid, err2 := strconv.ParseUint(w[2], 10, 32)
		if err1 != nil || err2 != nil {
			t.Fatalf("user %q", line)
		}
		s.users[w[0]] = msg.UserInfoReply{Found: true, Name: w[0], UID: uint32(uid), GID: uint32(gid), Home: w[3]}
	}
	return s
}

// conf loads smtpd.conf as parent would, for a machine with two addresses.
func (s *system) conf(gen mail.Gen, withFiles bool) proc.Conf {
	s.t.Helper()
	all := fstest.MapFS{"smtpd.conf": {Data: []byte(s.files["smtpd.conf"])}}
	for name, text := range s.files {
		if strings.HasPrefix(name, "/") {
			all[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		}
	}
	none := errors.New("not here")
	m := load.Machine{
		ReadFile:   func(name string) ([]byte, error) { return fs.ReadFile(all, strings.TrimPrefix(name, "/")) },
		Open:       func(name string) (fs.File, error) { return all.Open(strings.TrimPrefix(name, "/")) },
		Stat:       func(name string) (fs.FileInfo, error) { return fs.Stat(all, strings.TrimPrefix(name, "/")) },
		Owner:      func(fs.FileInfo) (uint32, bool) { return 0, true },
		Hostname:   func() (string, error) { return "mail.example.org", nil },
		Canonical:  func(context.Context, string) (string, error) { return "", none },
		LookupIP:   func(context.Context, string) ([]netip.Addr, error) { return nil, none },
		LookupPort: func(context.Context, string) (int, error) { return 0, none },
		Egress:     func() ([]string, error) { return nil, nil },
		Interfaces: func() ([]load.Interface, error) {
			return []load.Interface{{Name: "lo", Loopback: true, Addrs: []netip.Addr{
				netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("192.0.2.1"),
			}}}, nil
		},
		MailName: "/etc/mail/mailname",
	}
	l, diags := load.File(s.t.Context(), m, "smtpd.conf", nil)
	if diags.HasErrors() {
		s.t.Fatalf("smtpd.conf: %v", diags.All())
	}
	b, err := project.Encode(project.Lookup(l))
	if err != nil {
		s.t.Fatal(err)
	}
	c := proc.Conf{Gen: gen, Projection: b, Resources: proc.Resources{Hosts: []byte("127.0.0.1 localhost\n")}}
	if withFiles {
		for _, f := range l.TableFiles {
			c.Files = append(c.Files, proc.File{Identity: f.Identity, File: s.open(f.Path)})
		}
	}
	return c
}

// open gives a real descriptor of a made-up file.
func (s *system) open(path string) *os.File {
	s.t.Helper()
	name := filepath.Join(s.t.TempDir(), "file")
	if real, ok := s.real[path]; ok {
		name = real
	} else if err := os.WriteFile(name, []byte(s.files[path]), 0o600); err != nil {
		s.t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (s *system) env(trace bool) proc.Env {
	return proc.Env{
		Role: proc.Lookup, Clock: s.clock, Log: mlog.New(&s.log, true), Trace: func(string) bool { return trace },
		Peers: map[proc.Role]proc.Caller{proc.Parent: parentPeer{s}, proc.Queue: queuePeer{s}},
		Conf:  s.conf(1, true),
	}
}

func (s *system) role() *Role {
	s.t.Helper()
	r, err := New(s.env(false))
	if err != nil {
		s.t.Fatal(err)
	}
	s.run(r)
	return r
}

// run lets the role run until the test ends.
func (s *system) run(r *Role) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

// parentPeer plays parent.
type parentPeer struct{ *system }

func (p parentPeer) Call(ctx context.Context, m msg.Message, reply msg.Parser) error {
	_, err := p.CallFile(ctx, m, reply)
	return err
}

func (p parentPeer) CallFile(ctx context.Context, m msg.Message, reply msg.Parser) (*os.File, error) {
	p.mu.Lock()
	fail, hang := p.system.parent, p.hang
	p.asked = append(p.asked, fmt.Sprintf("%+v", m))
	p.mu.Unlock()
	if hang {
		p.hanging <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if fail != nil {
		return nil, fail
	}
	switch m := m.(type) {
	case *msg.UserInfo:
		*reply.(*msg.UserInfoReply) = p.user(m)
	case *msg.SystemAuth:
		*reply.(*msg.Authenticated) = p.account(m)
	case *msg.Include:
		*reply.(*msg.IncludeReply) = p.include(m.Path)
	case *msg.TableFile:
		path := map[string]string{"aliases": "/etc/mail/aliases", "second": "/etc/mail/aliases",
			"map": "/etc/mail/map.db"}[m.Name]
		if _, err := os.Stat(p.real[path]); p.files[path] == "" && err != nil {
			reply.(*msg.TableFileReply).Err = mailerr.Local(fs.ErrNotExist)
			return nil, nil
		}
		return p.open(path), nil
	default:
		return nil, fmt.Errorf("parent does not know %T", m)
	}
	return nil, nil
}

func (p parentPeer) user(m *msg.UserInfo) msg.UserInfoReply {
	u, ok := p.users[m.Name]
	if m.Virtual {
		u, ok = msg.UserInfoReply{Found: true, Name: m.Name, UID: m.UID, GID: m.GID, Home: m.Home}, true
	}
	if !ok || !m.Forward {
		return u
	}
	if text, ok := p.files["refused "+u.Home]; ok {
		cause := errors.New(strings.TrimSpace(text))
		u.Err = mailerr.Permanent(524, 2, 4, "Mailing list expansion problem", cause)
		if strings.HasPrefix(text, "temporary") {
			u.Err = mailerr.Temporary(424, 2, 4, "Mailing list expansion problem", cause)
		}
		return u
	}
	text, ok := p.files[u.Home+"/.forward"]
	u.HasForward, u.Forward = ok, []byte(text)
	return u
}

func (p parentPeer) include(path string) msg.IncludeReply {
	text, ok := p.files[path]
	if strings.HasPrefix(text, "unreadable") {
		return msg.IncludeReply{Err: mailerr.Local(fs.ErrPermission)}
	}
	return msg.IncludeReply{Found: ok, Data: []byte(text)}
}

func (p parentPeer) Send(_ context.Context, m msg.Message) error {
	if p.told == nil {
		return errors.New("nothing is sent to parent")
	}
	p.told <- m
	return nil
}

func (p parentPeer) SendFile(context.Context, msg.Message, *os.File) error {
	return errors.New("nothing is sent to parent")
}

// queuePeer plays queue.
type queuePeer struct{ *system }

func (q queuePeer) Send(ctx context.Context, m msg.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	add, ok := m.(*msg.AddEnvelope)
	if !ok {
		return fmt.Errorf("queue does not know %T", m)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, add.Envelope)
	return nil
}

func (q queuePeer) Call(context.Context, msg.Message, msg.Parser) error {
	return errors.New("queue is not called")
}

func (q queuePeer) CallFile(context.Context, msg.Message, msg.Parser) (*os.File, error) {
	return nil, errors.New("queue is not called")
}

func (q queuePeer) SendFile(context.Context, msg.Message, *os.File) error {
	return errors.New("queue is not called")
}

// request is one message to the role.
type request struct {
	from  proc.Role
	body  msg.Message
	reply msg.Message
	fail  *mailerr.Error
}

func (r *request) From() proc.Role                     { return r.from }
func (r *request) Type() msg.Type                      { return r.body.Type() }
func (r *request) Body() []byte                        { return r.body.Append(nil) }
func (r *request) Parse(m msg.Parser) error            { return m.Parse(r.Body()) }
func (r *request) File() *os.File                      { return nil }
func (r *request) Row(msg.Message)                     {}
func (r *request) Reply(m msg.Message)                 { r.reply = m }
func (r *request) ReplyFile(m msg.Message, _ *os.File) { r.reply = m }
func (r *request) Fail(err *mailerr.Error)             { r.fail = err }

// ask sends m through the role's table of handlers.
func ask(t testing.TB, ctx context.Context, r *Role, from proc.Role, m msg.Message) (msg.Message, *mailerr.Error) {
	t.Helper()
	for _, h := range r.Handlers() {
		if h.From == from && h.Type == m.Type() {
			q := &request{from: from, body: m}
			h.Do(ctx, q)
			if (q.reply == nil) == (q.fail == nil) {
				t.Fatalf("%T: reply %v, failure %v", m, q.reply, q.fail)
			}
			return q.reply, q.fail
		}
	}
	t.Fatalf("no handler for %T from %s", m, from)
	return nil, nil
}
