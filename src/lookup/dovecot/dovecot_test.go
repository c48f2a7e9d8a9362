package dovecot

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t7\nCUID\t1\nCOOKIE\t0123\nDONE\n"

// fake plays Dovecot: it says hello and answers each AUTH with what answer makes
// of the number, the user and the password; "" is no answer, and "close" the end.
type fake struct {
	t      *testing.T
	hello  string
	answer func(id, user, password string) string
	mu     sync.Mutex
	opened int
	down   error
	work   sync.WaitGroup
}

func (f *fake) open(context.Context) (io.ReadWriteCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return nil, f.down
	}
	f.opened++
	ours, theirs := net.Pipe()
	f.work.Go(func() { f.serve(theirs) })
	return ours, nil
}

func (f *fake) serve(nc net.Conn) {
	defer nc.Close()
	f.work.Go(func() { _, _ = io.WriteString(nc, f.hello) }) // who is gone needs none
	in := bufio.NewReader(nc)
	for _, want := range []string{"VERSION\t1\t2\n", "CPID\t"} {
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
			return
		}
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		w := strings.Split(strings.TrimSpace(line), "\t")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(w[len(w)-1], "resp="))
		said := strings.Split(string(raw), "\x00")
		if w[0] != "AUTH" || w[2] != "PLAIN" || w[3] != "service=smtp" || err != nil || len(said) != 3 {
			f.t.Errorf("it was told %q", line)
			return
		}
		switch answer := f.answer(w[1], said[1], said[2]); answer {
		case "":
		case "close":
			return
		default:
			if _, err := io.WriteString(nc, answer); err != nil {
				return
			}
		}
	}
}

func newFake(t *testing.T, answer func(id, user, password string) string) (*fake, *Client, *clock.Fake) {
	f := &fake{t: t, hello: hello, answer: answer}
	clk := clock.NewFake(time.Unix(1e9, 0))
	c := New("dovecot", clk, f.open)
	t.Cleanup(func() {
		c.Close()
		f.work.Wait()
	})
	return f, c, clk
}

// right knows bob, whose password is "b:b".
func right(id, user, password string) string {
	switch {
	case user == "trouble":
		return "FAIL\t" + id + "\tuser=trouble\ttemp\n"
	case user == "bob" && password == "b:b":
		return "OK\t" + id + "\tuser=bob\n"
	}
	return "FAIL\t" + id + "\tuser=" + user + "\treason=temp\n"
}

func TestVerify(t *testing.T) {
	f, c, _ := newFake(t, right)
	for _, tc := range []struct {
		key string
		ok  bool
		err bool
	}{
		{"bob:b:b", true, false}, {"bob:b", false, false}, {"nobody:b:b", false, false}, {"trouble:x", false, true},
		{"bob:b:b\n", false, false}, {"bo\tb:b:b", false, false},
	} {
		ok, err := c.Match(t.Context(), table.Auth, tc.key)
		if ok != tc.ok || (err != nil) != tc.err {
			t.Errorf("%q: %v, %v", tc.key, ok, err)
		}
	}
	if f.opened != 1 {
		t.Errorf("%d connections", f.opened)
	}
	for _, s := range []table.Service{table.Credentials, table.String} {
		if _, err := c.Match(t.Context(), s, "bob"); !errors.Is(err, table.ErrService) {
			t.Error(err)
		}
		if _, _, err := c.Lookup(t.Context(), s, "bob"); !errors.Is(err, table.ErrService) {
			t.Error(err)
		}
	}
}

// TestManyAtOnce: answers come in any order.
func TestManyAtOnce(t *testing.T) {
	var held []string
	_, c, _ := newFake(t, func(id, user, password string) string {
		held = append(held, right(id, user, password))
		if len(held) < 8 {
			return ""
		}
		all := ""
		for i := range held {
			all += held[len(held)-1-i]
		}
		return all
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			password := "b:b"
			if i%2 == 1 {
				password = "wrong"
			}
			if ok, err := c.Match(context.Background(), table.Auth, "bob:"+password); ok != (i%2 == 0) || err != nil {
				t.Errorf("%d: %v, %v", i, ok, err)
			}
		})
	}
	wg.Wait()
}

// TestReconnect: a connection that has gone is made anew; one that cannot be is
// trouble, and nothing else.
func TestReconnect(t *testing.T) {
	n := 0
	f, c, _ := newFake(t, func(id, user, password string) string {
		if n++; n == 2 {
			return "close"
		}
		return right(id, user, password)
	})
	for range 3 {
		if ok, err := c.Match(t.Context(), table.Auth, "bob:b:b"); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if f.opened != 2 {
		t.Errorf("%d connections", f.opened)
	}
	f.answer = func(string, string, string) string { return "close" }
	if ok, err := c.Match(t.Context(), table.Auth, "bob:b:b"); ok || !errors.Is(err, errGone) {
		t.Error(ok, err)
	}
	f.mu.Lock()
	f.down = errors.New("no such file")
	f.mu.Unlock()
	if ok, err := c.Match(t.Context(), table.Auth, "bob:b:b"); ok || err == nil {
		t.Error(ok, err)
	}
}

// TestBroken: what is not the protocol ends the connection, and lets nobody in.
func TestBroken(t *testing.T) {
	for _, tc := range []struct {
		hello, answer string
		want          error
	}{
		{"VERSION\t2\t0\nDONE\n", "", errSyntax},
		{"VERSION\t1\t2\nMECH\tLOGIN\nDONE\n", "", errMech},
		{"VERSION\t1\t2\nMECH\tPLAIN\nDONE\nDONE\n", "", nil}, // whatever is noticed first
		{strings.Repeat("x", maxLine+1), "", errSyntax},
		{hello, "OK\n", errSyntax},
		{hello, "OK\tone\n", errSyntax},
		{hello, "CONT\t1\t\n", errSyntax},
	} {
		f, c, _ := newFake(t, func(string, string, string) string { return tc.answer })
		f.hello = tc.hello
		if ok, err := c.Match(t.Context(), table.Auth, "bob:b:b"); ok || err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%.40q %q: %v, %v", tc.hello, tc.answer, ok, err)
		}
	}
}

// TestLate: one who does not answer is given up.
func TestLate(t *testing.T) {
	_, c, clk := newFake(t, func(string, string, string) string { return "" })
	got := make(chan error)
	go func() {
		_, err := c.Match(context.Background(), table.Auth, "bob:b:b")
		got <- err
	}()
	clk.BlockUntil(1)
	clk.Advance(patience)
	if err := <-got; !errors.Is(err, errLate) {
		t.Error(err)
	}
}

// FuzzLines: Dovecot is trusted with passwords, but not with our memory.
func FuzzLines(f *testing.F) {
	f.Add(hello + "OK\t1\tuser=bob\n")
	f.Add(hello + "FAIL\t1\ttemp\nCONT\t1\t=\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := &session{ready: make(chan struct{}), gone: make(chan struct{}), asked: map[int]chan reply{1: make(chan reply, 1)}}
		answer := s.asked[1]
		yes := false
		for line := range strings.Lines(text) {
			yes = yes || strings.HasPrefix(line, "OK\t1\t") || strings.TrimSuffix(line, "\n") == "OK\t1" || strings.HasPrefix(line, "OK\t")
			if err := s.line(strings.Split(strings.TrimSuffix(line, "\n"), "\t")); err != nil {
				break
			}
		}
		select {
		case r := <-answer:
			if r.ok && (!yes || r.err != nil) {
				t.Errorf("%q lets somebody in", text)
			}
		default:
		}
	})
}

// lastWords is a connection on which the verdict is the last thing that comes.
type lastWords struct{ s *session }

func (l lastWords) Read([]byte) (int, error) { return 0, io.EOF }
func (l lastWords) Close() error             { return nil }

func (l lastWords) Write(p []byte) (int, error) {
	err := l.s.line([]string{"OK", strings.Split(string(p), "\t")[1]})
	l.s.end(errGone)
	return len(p), err
}

// A verdict holds although the connection ends behind it.
func TestVerdictThenEnd(t *testing.T) {
	for range 64 { // each of two things that are ready may be seen first
		s := &session{clock: clock.NewFake(time.Unix(0, 0)), ready: make(chan struct{}), gone: make(chan struct{}), asked: make(map[int]chan reply), plain: true}
		s.stream = lastWords{s}
		close(s.ready)
		if ok, err := s.verify(t.Context(), "bob", "secret"); !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
	}
}
