package filter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// memory is a server.Backend that keeps messages.
type memory struct {
	server.Backend // for what no test needs

	mu    sync.Mutex
	name  server.Name
	begun mail.MessageID // how many
	kept  []string
	body  strings.Builder
	over  chan struct{}
}

func (m *memory) Admit(*server.Session) *mailerr.Error           { return nil }
func (m *memory) Lookup(context.Context, netip.Addr) server.Name { return m.name }
func (m *memory) Begin(context.Context) (mail.MessageID, *mailerr.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun++
	return 0x1234abcc + m.begun, nil
}
func (m *memory) Discard(mail.MessageID) {}
func (m *memory) Done(*server.Session)   { m.over <- struct{}{} }
func (m *memory) Rcpt(_ context.Context, _ *server.Session, _ *server.Transaction, r *smtp.Rcpt) (uint32, *mailerr.Error) {
	if r.To.Local == "nobody" {
		return 0, mailerr.Permanent(550, 1, 1, "Invalid recipient", nil)
	}
	return 2, nil
}

func (m *memory) Chunk(_ context.Context, _ *server.Transaction, data []byte) *mailerr.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.body.Write(data)
	return nil
}

func (m *memory) Commit(_ context.Context, _ *server.Transaction, body []byte) *mailerr.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.body.Write(body)
	m.kept = append(m.kept, m.body.String())
	m.body.Reset()
	return nil
}

// words answers for tables: each is a list of keys; the table "broken" fails.
type words map[string][]string

func (w words) Match(_ context.Context, _ mail.Gen, s table.Service, name, key string) (bool, error) {
	if name == "broken" {
		return false, fmt.Errorf("table %s is broken", name)
	}
	for _, have := range w[name] {
		if have == s.String()+" "+key {
			return true, nil
		}
	}
	return false, nil
}

// rig is a server with filters.
type rig struct {
	t        testing.TB
	clk      *clock.Fake
	log      *mlog.Memory
	mem      *memory
	tables   words
	programs *Programs
	named    map[string]*Program
	grey     Greylist
	ended    chan string // identities that were given up
	srv      *server.Server
	ln       *server.Listener
}

var birthday = time.Date(2026, 3, 4, 5, 6, 7, 89000, time.UTC)

func newRig(t testing.TB) *rig {
	r := &rig{
		t: t, clk: clock.NewFake(birthday), log: new(mlog.Memory), tables: words{}, ended: make(chan string, 100), named: make(map[string]*Program),
		mem: &memory{name: server.Name{Host: "client.example.org", Forward: true}, over: make(chan struct{}, 100)},
	}
	log := mlog.New(r.log, true)
	r.programs = NewPrograms(r.clk, log, func(id string) { r.ended <- id })
	n := uint64(0x10)
	r.srv = server.New(server.Config{Backend: guarded{r.mem}, Clock: r.clk, Log: log, NewID: func() uint64 { n++; return n }})
	r.ln = &server.Listener{Gen: 1, Hostname: "mx.example.com", Settings: server.Settings{MaxMails: 100, MaxRcpt: 1000, MaxSize: 64 << 20}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.srv.Run(ctx) })
	t.Cleanup(func() {
		over, stop := context.WithCancel(context.Background())
		stop()
		r.programs.Release()
		r.srv.Stop(over)
		r.programs.Close()
		cancel()
		wg.Wait()
	})
	return r
}

// filter sets the filters of the listener: a chain of them all when there are
// several.
func (r *rig) filter(list ...project.Filter) {
	r.t.Helper()
	d := &project.DispatcherConf{Filters: list}
	chain := project.Filter{Name: "all", Kind: conf.FilterChain}
	for _, f := range list {
		chain.Chain = append(chain.Chain, f.Name)
	}
	d.Filters = append(d.Filters, chain)
	f, err := New(Options{Clock: r.clk, Log: mlog.New(r.log, true), Tables: r.tables, Programs: r.named, Greylist: r.grey}, d).Inbound("all")
	if err != nil {
		r.t.Fatal(err)
	}
	r.ln.Filter = f
}

// script is a filter program of a test.
type script struct {
	register []string
	// react returns what to say to a line; nil: that all is well.
	react func(line string) []string
	nc    net.Conn
	deaf  bool          // keeps nothing of what it hears
	over  chan struct{} // closed when its input has ended

	mu    sync.Mutex
	heard []string
	more  chan struct{} // closed at the next line
}

// await returns once a line holds text.
func (s *script) await(text string) {
	for {
		s.mu.Lock()
		if s.more == nil {
			s.more = make(chan struct{})
		}
		all, more := strings.Join(s.heard, "\n"), s.more
		s.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		<-more
	}
}

// program adds a program to the rig and starts it.
func (r *rig) program(name string, s *script) *Program {
	g := &Program{owner: r.programs, identity: "id:" + name, name: name, told: project.Told{ADMD: "mx.example.com", In: true}}
	r.named[name] = g
	r.programs.mu.Lock()
	r.programs.list[g.identity] = g
	r.programs.mu.Unlock()
	r.life(g, s)
	return g
}

// life starts a program, or starts it again.
func (r *rig) life(g *Program, s *script) {
	r.t.Helper()
	a, b, err := imsg.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	theirs := conn(r.t, b)
	s.nc, s.over = theirs, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(s.over)
		s.run(theirs)
	})
	r.t.Cleanup(func() {
		theirs.Close()
		wg.Wait()
	})
	if err := g.start(a); err != nil {
		r.t.Fatal(err)
	}
}

// pair returns both ends of a pipe to a program.
func (r *rig) pair() (ours, theirs net.Conn) {
	r.t.Helper()
	a, b, err := imsg.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	return conn(r.t, a), conn(r.t, b)
}

func conn(t testing.TB, f *os.File) net.Conn {
	t.Helper()
	nc, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func (s *script) run(nc net.Conn) {
	in, w := bufio.NewReader(nc), bufio.NewWriter(nc)
	for {
		if in.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return
			}
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		s.mu.Lock()
		if !s.deaf {
			s.heard = append(s.heard, line)
		}
		if s.more != nil {
			close(s.more)
			s.more = nil
		}
		s.mu.Unlock()
		var out []string
		switch {
		case line == "config|ready":
			out = append(append(out, s.register...), "register|ready")
		case s.react != nil && !strings.HasPrefix(line, "config|"):
			if out = s.react(line); out == nil {
				out = well(line)
			}
		default:
			out = well(line)
		}
		for _, line := range out {
			if _, err := io.WriteString(w, line+"\n"); err != nil {
				return
			}
		}
	}
}

// well is the answer of a program that has nothing against a line.
func well(line string) []string {
	f := strings.SplitN(line, "|", 8)
	if f[0] != "filter" {
		return nil
	}
	if f[4] == "data-line" {
		return []string{"filter-dataline|" + f[5] + "|" + f[6] + "|" + f[7]}
	}
	return []string{answerTo(line, "proceed")}
}

// answerTo makes the line that decides about a request.
func answerTo(line, decision string) string {
	f := strings.SplitN(line, "|", 8)
	return "filter-result|" + f[5] + "|" + f[6] + "|" + decision
}

var tokens = regexp.MustCompile(`(\|(?:connect|helo|ehlo|mail-from|rcpt-to|data|data-line|commit|noop|quit|rset|starttls|auth)\|[0-9a-f]{16}\|)[0-9a-f]{16}`)

// said returns what the program has heard, tokens blotted out.
func (s *script) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, line := range s.heard {
		if strings.HasPrefix(line, "filter|") {
			line = tokens.ReplaceAllString(line, "${1}TOKEN")
		}
		out = append(out, line)
	}
	return out
}

// progFilter is a filter in a program.
func progFilter(name, proc string, f conf.OnFailure) project.Filter {
	return project.Filter{Name: name, Kind: conf.FilterProc, Proc: proc, OnFailure: f}
}

// everything is what a program registers that wants it all.
func everything() []string {
	list := []string{"register|report|smtp-in|*"}
	for name := range phases {
		list = append(list, "register|filter|smtp-in|"+name)
	}
	return append(list, "register|filter|smtp-in|data-line")
}

// client is one that plays a conversation.
type client struct {
	t  testing.TB
	nc net.Conn
	in *bufio.Reader
}

func (r *rig) dial() *client {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	ours, err := ln.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.srv.Serve(ours, r.ln, server.Client{Addr: netip.MustParseAddrPort("192.0.2.7:4321")})
	r.t.Cleanup(func() { nc.Close() })
	return &client{r.t, nc, bufio.NewReader(nc)}
}

// reply returns the last line of the next reply, "" when the server has closed.
func (c *client) reply() string {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return ""
		}
		if len(line) > 3 && line[3] == ' ' {
			return strings.TrimRight(line, "\r\n")
		}
	}
}

// play sends lines and returns the replies, the greeting first.
func (c *client) play(lines ...string) []string {
	c.t.Helper()
	replies := []string{c.reply()}
	for _, line := range lines {
		if _, err := io.WriteString(c.nc, line+"\r\n"); err != nil {
			return append(replies, "")
		}
		replies = append(replies, c.reply())
	}
	return replies
}

// close ends the conversation and waits for the server's end of it.
func (r *rig) close(c *client) {
	c.nc.Close()
	<-r.mem.over
}
