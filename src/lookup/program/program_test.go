package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mlog"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == programWord {
		os.Exit(serveEcho())
	}
	goleak.VerifyTestMain(m)
}

// world is a client and the other end of its program.
type world struct {
	Table
	t     *testing.T
	clock *clock.Fake
	peer  net.Conn
	in    *bufio.Reader
	ended chan struct{} // receives at each End
	log   mlog.Memory
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: clock.NewFake(time.Unix(1713795082, 354255000)), ended: make(chan struct{}, 8)}
	c := New(Options{Name: "devs", Clock: w.clock, Log: mlog.New(&w.log, true), End: func() { w.ended <- struct{}{} }})
	w.Table = c.Table("+")
	t.Cleanup(w.Close)
	w.start()
	return w
}

// start gives the client a program that has not said hello.
func (w *world) start() {
	ours, theirs := net.Pipe()
	w.t.Cleanup(func() { theirs.Close() })
	w.peer, w.in = theirs, bufio.NewReader(theirs)
	w.Use(ours)
}

func (w *world) read() string {
	w.t.Helper()
	line, err := w.in.ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (w *world) say(lines ...string) {
	w.t.Helper()
	for _, l := range lines {
		if _, err := io.WriteString(w.peer, l+"\n"); err != nil {
			w.t.Fatal(err)
		}
	}
}

// hello is the handshake, seen from the program.
func (w *world) hello(services ...string) {
	w.t.Helper()
	for _, want := range []string{"config|smtpd-version|7.8.0", "config|protocol|0.1", "config|tablename|devs", "config|ready"} {
		if got := w.read(); got != want {
			w.t.Fatalf("%q, want %q", got, want)
		}
	}
	for _, s := range append(services, "ready") {
		w.say("register|" + s)
	}
}

// answer is how a call ended.
type answer struct {
	value string
	found bool
	err   error
}

func (w *world) lookup(s table.Service, key string) chan answer {
	ch := make(chan answer, 1)
	go func() {
		v, found, err := w.Lookup(context.Background(), s, key)
		ch <- answer{v, found, err}
	}()
	return ch
}

func (w *world) match(s table.Service, key string) chan answer {
	ch := make(chan answer, 1)
	go func() {
		found, err := w.Match(context.Background(), s, key)
		ch <- answer{"", found, err}
	}()
	return ch
}

// TestDialogue is the protocol, line for line.
func TestDialogue(t *testing.T) {
	w := newWorld(t)
	w.hello("alias", "auth", "mailaddr", "source", "netaddr", "domain", "something-new")
	for _, tc := range []struct {
		call  func() (string, bool, error)
		talk  []string // what is asked behind the common part, and the answers
		value string
		found bool
		err   string
	}{
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "Op") },
			[]string{"lookup|alias|00000001|op", "lookup-result|00000001|found|a|b, c"}, "a|b, c", true, ""},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "x|y") },
			[]string{"lookup|alias|00000002|x|y", "lookup-result|00000002|not-found"}, "", false, ""},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "z") },
			[]string{"lookup|alias|00000003|z", "lookup-result|00000003|error|no database"}, "", false, "the table program says: no database"},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "z") },
			[]string{"lookup|alias|00000004|z", "lookup-result|00000004|error"}, "", false, "the table program says: error"},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "z") },
			[]string{"lookup|alias|00000005|z", "lookup-result|00000005|found|"}, "", false, errEmpty.Error()},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "z") },
			[]string{"lookup|alias|00000006|z", "lookup-result|00000006|found|a\rb"}, "", false, errBytes.Error()},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "z") },
			[]string{"lookup|alias|00000007|z", "lookup-result|00000007|found|dos\r"}, "dos", true, ""},
		{func() (string, bool, error) {
			f, err := w.Match(t.Context(), table.Auth, "Joe:Se|cret")
			return "", f, err
		},
			[]string{"check|auth|00000008|joe:Se|cret", "check-result|00000008|found"}, "", true, ""},
		{func() (string, bool, error) {
			f, err := w.Match(t.Context(), table.NetAddr, "[::1]")
			return "", f, err
		},
			[]string{"check|netaddr|00000009|[::1]", "check-result|00000009|not-found"}, "", false, ""},
		{func() (string, bool, error) { return w.Fetch(t.Context(), table.Source) },
			[]string{"fetch|source|0000000a", "fetch-result|0000000a|found|192.0.2.1"}, "192.0.2.1", true, ""},
		{func() (string, bool, error) { return w.Fetch(t.Context(), table.Source) }, // as the manual has it
			[]string{"fetch|source|0000000b", "lookup-result|0000000b|found|192.0.2.2"}, "192.0.2.2", true, ""},
		{func() (string, bool, error) { return "", false, w.Update(t.Context()) },
			[]string{"update|0000000c", "update-result|0000000c|ok"}, "", false, ""},
		{func() (string, bool, error) { return "", false, w.Update(t.Context()) },
			[]string{"update|0000000d", "update-result|0000000d|error|bad file"}, "", false, "the table program says: bad file"},
		{func() (string, bool, error) {
			f, err := w.Match(t.Context(), table.MailAddr, "U+T@b.example")
			return "", f, err
		}, []string{
			"check|mailaddr|0000000e|u+t@b.example", "check-result|0000000e|not-found",
			"check|mailaddr|0000000f|u+t@*.example", "check-result|0000000f|not-found",
			"check|mailaddr|00000010|u+t@*", "check-result|00000010|not-found",
			"check|mailaddr|00000011|u@b.example", "check-result|00000011|not-found",
			"check|mailaddr|00000012|u@*.example", "check-result|00000012|found"}, "", true, ""},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.UserInfo, "op") },
			nil, "", false, "table does not serve this: the program has not registered userinfo"},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "a\nb") }, nil, "", false, ""},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, "a\x00b") }, nil, "", false, ""},
		{func() (string, bool, error) {
			f, err := w.Match(t.Context(), table.Auth, "joe:x\rtable|")
			return "", f, err
		}, nil, "", false, ""},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Alias, strings.Repeat("x", maxKey+1)) }, nil, "", false, ""},
		{func() (string, bool, error) { return w.Lookup(t.Context(), table.Domain, "") }, nil, "", false, ""},
	} {
		got := make(chan answer, 1)
		go func() {
			v, found, err := tc.call()
			got <- answer{v, found, err}
		}()
		for i := 0; i < len(tc.talk); i += 2 {
			if line := w.read(); line != "table|0.1|1713795082.354255|devs|"+tc.talk[i] {
				t.Fatalf("asked %q, want %q", line, tc.talk[i])
			}
			w.say(tc.talk[i+1])
		}
		a := <-got
		if a.value != tc.value || a.found != tc.found || (tc.err == "") != (a.err == nil) || a.err != nil && a.err.Error() != tc.err {
			t.Errorf("%v: %+v, want %q, %v, %q", tc.talk, a, tc.value, tc.found, tc.err)
		}
	}
}

// TestManyInFlight holds that requests do not wait for each other, and that a
// program may answer them in any order.
func TestManyInFlight(t *testing.T) {
	w := newWorld(t)
	w.hello("alias")
	calls := make(map[string]chan answer)
	for i := range 100 {
		k := fmt.Sprint("k", i)
		calls[k] = w.lookup(table.Alias, k)
	}
	var lines []string
	for range calls {
		lines = append(lines, w.read())
	}
	slices.Reverse(lines)
	for _, l := range lines {
		f := strings.Split(l, "|")
		w.say("lookup-result|" + f[6] + "|found|value of " + f[7])
	}
	for k, ch := range calls {
		if a := <-ch; a.value != "value of "+k {
			t.Errorf("%s: %+v", k, a)
		}
	}
}

// TestBreaks holds that a program that breaks the rules or ends fails what waits,
// once, and that the next one serves again.
func TestBreaks(t *testing.T) {
	for name, do := range map[string]func(w *world, id string){
		"dies":                  func(w *world, _ string) { w.peer.Close() },
		"rubbish":               func(w *world, _ string) { w.say("hello") },
		"empty line":            func(w *world, _ string) { w.say("") },
		"unknown id":            func(w *world, _ string) { w.say("lookup-result|12345678|not-found") },
		"short id":              func(w *world, _ string) { w.say("lookup-result|1|not-found") },
		"other operation":       func(w *world, id string) { w.say("check-result|" + id + "|found") },
		"unknown result":        func(w *world, id string) { w.say("lookup-result|" + id + "|perhaps") },
		"ok to a lookup":        func(w *world, id string) { w.say("lookup-result|" + id + "|ok") },
		"answers twice":         func(w *world, id string) { w.say("lookup-result|"+id+"|not-found", "lookup-result|"+id+"|not-found") },
		"registers again":       func(w *world, _ string) { w.say("register|alias") },
		"a line without an end": func(w *world, _ string) { _, _ = io.WriteString(w.peer, strings.Repeat("x", maxLine+128<<10)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.hello("alias")
			call := w.lookup(table.Alias, "op")
			id := strings.Split(w.read(), "|")[6]
			do(w, id)
			<-w.ended
			if a := <-call; a.err == nil && name != "answers twice" {
				t.Errorf("%+v", a)
			}
			if _, _, err := w.Lookup(t.Context(), table.Alias, "op"); !errors.Is(err, ErrDown) {
				t.Errorf("without a program: %v", err)
			}
			if !w.log.Has("warn: table-proc: devs: ") {
				t.Errorf("log: %v", &w.log)
			}
			w.start()
			w.hello("alias")
			call = w.lookup(table.Alias, "op")
			id = strings.Split(w.read(), "|")[6]
			w.say("lookup-result|" + id + "|found|x")
			if a := <-call; a.value != "x" {
				t.Errorf("the next program: %+v", a)
			}
			select {
			case <-w.ended:
				t.Error("ended twice")
			default:
			}
		})
	}
}

func TestBadHello(t *testing.T) {
	for name, lines := range map[string][]string{
		"nothing registered": {"register|ready"},
		"only the unknown":   {"register|none-such", "register|ready"},
		"not a registration": {"table"},
		"no name":            {"register|"},
	} {
		w := newWorld(t)
		call := w.lookup(table.Alias, "op") // waits for the hello
		for range 4 {
			w.read()
		}
		w.say(lines...)
		<-w.ended
		if a := <-call; !errors.Is(a.err, ErrDown) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestSilence(t *testing.T) {
	w := newWorld(t)
	call := w.lookup(table.Alias, "op")
	w.clock.BlockUntil(2)
	w.clock.Advance(Patience)
	<-w.ended
	if a := <-call; a.err == nil {
		t.Error("a program without a hello answered")
	}
	w.start()
	w.hello("alias")
	call = w.lookup(table.Alias, "op")
	w.read()
	w.clock.BlockUntil(1)
	w.clock.Advance(Patience)
	if a := <-call; !errors.Is(a.err, errSilent) {
		t.Errorf("%+v", a)
	}
	<-w.ended
}

// TestOneLate holds that a program that answers others is left running, and may
// still answer the one that nobody waits for any more.
func TestOneLate(t *testing.T) {
	w := newWorld(t)
	w.hello("alias")
	slow := w.lookup(table.Alias, "slow")
	slowID := strings.Split(w.read(), "|")[6]
	w.clock.BlockUntil(1)
	w.clock.Advance(Patience / 2)
	for _, last := range []bool{false, true} {
		quick := w.lookup(table.Alias, "quick")
		w.say("lookup-result|" + strings.Split(w.read(), "|")[6] + "|found|x")
		if a := <-quick; a.value != "x" {
			t.Errorf("%+v", a)
		}
		if last {
			break
		}
		w.clock.BlockUntil(1)
		w.clock.Advance(Patience / 2)
		if a := <-slow; !errors.Is(a.err, errSilent) {
			t.Errorf("%+v", a)
		}
		w.say("lookup-result|" + slowID + "|found|late")
	}
	select {
	case <-w.ended:
		t.Error("ended")
	default:
	}
}

// TestCanceled holds that a caller who goes away leaves nothing behind.
func TestCanceled(t *testing.T) {
	w := newWorld(t)
	w.hello("alias")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := w.Lookup(ctx, table.Alias, "op")
		done <- err
	}()
	id := strings.Split(w.read(), "|")[6]
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.say("lookup-result|" + id + "|not-found")
	next := w.lookup(table.Alias, "op")
	w.say("lookup-result|" + strings.Split(w.read(), "|")[6] + "|found|x")
	if a := <-next; a.value != "x" {
		t.Errorf("%+v", a)
	}
}

// TestOneAtATime holds that a program that failed twice with many requests gets
// them one by one.
func TestOneAtATime(t *testing.T) {
	w := newWorld(t)
	for failures := range 3 {
		w.hello("alias")
		a, b := w.lookup(table.Alias, "a"), w.lookup(table.Alias, "b")
		w.read()
		w.read()
		w.say("what?")
		<-w.ended
		<-a
		<-b
		if w.log.Has("one at a time") != (failures == 2) {
			t.Errorf("after %d failures: %q", failures+1, w.log.String())
		}
		if failures == 0 {
			w.clock.Advance(suspicion) // long ago by then
		}
		w.start()
	}
	w.hello("alias")
	var a, b chan answer
	for range 3 {
		a, b = w.lookup(table.Alias, "a"), w.lookup(table.Alias, "b")
		for range 2 {
			line := w.read()
			if w.in.Buffered() > 0 {
				t.Fatalf("more than %q", line)
			}
			w.say("lookup-result|" + strings.Split(line, "|")[6] + "|not-found")
		}
		if x, y := <-a, <-b; x.err != nil || y.err != nil {
			t.Errorf("%+v %+v", x, y)
		}
	}
}

func TestUseAndClose(t *testing.T) {
	w := newWorld(t)
	w.hello("alias")
	call := w.match(table.Alias, "op")
	w.read()
	w.start() // parent has started another: nothing is broken
	if a := <-call; !errors.Is(a.err, ErrDown) {
		t.Errorf("%+v", a)
	}
	w.hello("alias")
	call = w.match(table.Alias, "op")
	w.read()
	w.Close()
	if a := <-call; !errors.Is(a.err, ErrDown) {
		t.Errorf("%+v", a)
	}
	w.start()
	if _, err := w.in.ReadString('\n'); err == nil {
		t.Error("a closed client speaks")
	}
	select {
	case <-w.ended:
		t.Error("parent was told to end a program that is not wanted any more")
	default:
	}
}

// TestManualProgram runs the program of smtpd-tables(7) as it stands there.
func TestManualProgram(t *testing.T) {
	manual, err := os.ReadFile("../../../man/smtpd-tables.7")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(manual), "\n#!/bin/sh\n")
	text, _, ends := strings.Cut(text, "\n.Ed")
	if !found || !ends {
		t.Fatal("the manual has no program")
	}
	p := startProgram(t, "/bin/sh", "-c", strings.NewReplacer(`\e`, `\`, `\&`, "").Replace(text))
	for key, want := range map[string]string{"info@example.org": "joe", "eve@example.org": ""} {
		if v, found, err := p.Lookup(t.Context(), table.Alias, key); err != nil || v != want || found != (want != "") {
			t.Errorf("%s: %q %v %v", key, v, found, err)
		}
	}
	if err := p.Update(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"lookup-result|0000002a|found|x|y", "check-result|0000002a|not-found", "fetch-result|0000002a|error|text", "update-result|0000002a|ok",
		"lookup-result", "||", "lookup-result|0000002a|", "update-result|0000002a|found", "-result|0000002a|ok", "register|alias", "lookup-result|+000002a|found",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		_, _, _ = parseRegister(line)
		r, err := parseReply(line)
		if err != nil {
			return
		}
		again := fmt.Sprintf("%s-result|%08x|", r.op, r.id)
		if len(line) < len(again) || !strings.EqualFold(again, line[:len(again)]) || r.status == 0 || r.op.String() == "" {
			t.Fatalf("%q is %+v", line, r)
		}
		if value, found, err := r.value(nil); err == nil && found && r.op != opCheck && (value == "" || !clean(value)) {
			t.Fatalf("%q gives %q", line, value)
		}
	})
}

// FuzzRequest holds that whatever the key, one line goes to the program, or none.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{"op", "a|b", "a\nb", "U+T@x.y.z", "@", "", "a@b@c", "[::1]", "x:y\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		for s := table.Alias; s <= table.Auth; s++ {
			for _, k := range keys(s, key, "+") {
				q := request{opCheck, s, k}
				line := string(q.append(nil, "devs", 1, 2, 3))
				if !clean(key) || !strings.HasSuffix(line, "|00000001|"+k+"\n") || !clean(strings.TrimSuffix(line, "\n")) {
					if clean(key) {
						t.Fatalf("%q makes %q", key, line)
					}
				}
			}
		}
	})
}

// FuzzProgram lets a program say anything: calls end, and nothing else does.
func FuzzProgram(f *testing.F) {
	for _, s := range []string{
		"register|alias\nregister|ready\nlookup-result|00000001|found|x\n", "register|ready\n", "\n", "register|alias\nregister|ready\nlookup-result|00000002|found|x\n",
		"register|alias\nregister|ready\nlookup-result|00000001|found|\n", "register|alias\nregister|ready\nlookup-result|00000001|not-found",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, theirs := net.Pipe()
		c := New(Options{Name: "t", Clock: clock.NewFake(time.Unix(1, 0)), Log: mlog.New(nil, false)})
		c.Use(ours)
		var work sync.WaitGroup
		work.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
		work.Go(func() {
			_, _ = theirs.Write(text)
			theirs.Close()
		})
		if v, found, err := c.Table("").Lookup(t.Context(), table.Alias, "op"); err == nil && found && !strings.Contains(string(text), v) {
			t.Errorf("%q gives %q", text, v)
		}
		c.Close()
		work.Wait()
	})
}
