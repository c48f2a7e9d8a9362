package ctl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"opensmtpd/src/privsep/msg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs fn for each connection to a control socket, whose path it returns.
func serve(t testing.TB, fn func(*net.UnixConn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			fn(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		os.RemoveAll(dir)
	})
	return path
}

// answer makes a server of a function that answers requests.
func answer(t testing.TB, fn func(*ServerConn, Request) error) string {
	t.Helper()
	return serve(t, func(c *net.UnixConn) {
		s := NewServerConn(c, time.Now, time.Minute)
		if s.Hello("server") != nil {
			return
		}
		for {
			q, err := s.Request()
			if err != nil {
				return
			}
			if err := fn(s, q); err != nil {
				if !errors.Is(err, errPipe) { // a client may leave
					t.Error(err)
				}
				return
			}
		}
	})
}

func dial(t testing.TB, path string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), path, "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRequests(t *testing.T) {
	big := bytes.Repeat([]byte("x"), msg.ControlPage)
	path := answer(t, func(s *ServerConn, q Request) error {
		switch q.Verb {
		case "rows":
			if err := s.Rows([][]byte{[]byte(`{"n":1}`), []byte(`{"n":2}`)}, nil); err != nil {
				return err
			}
			if err := s.Rows(nil, big); err != nil {
				return err
			}
			return s.Done(7)
		case "fail":
			return s.Fail(&Refused{Text: strings.Join(q.Args, "+"), Temp: true})
		}
		return s.Done(0)
	})
	c := dial(t, path)
	var rows, raw []byte
	n, err := c.Do(Request{Verb: "rows"}, Answer{
		Row: func(b []byte) error { rows = append(rows, b...); return nil },
		Raw: func(b []byte) error { raw = append(raw, b...); return nil },
	})
	if err != nil || n != 7 || string(rows) != `{"n":1}{"n":2}` || !bytes.Equal(raw, big) {
		t.Errorf("rows: %d, %v, %s, %d bytes", n, err, rows, len(raw))
	}
	_, err = c.Do(Request{Verb: "fail", Args: []string{"a", "", "c"}}, Answer{})
	var refused *Refused
	if !errors.As(err, &refused) || *refused != (Refused{"a++c", true}) {
		t.Errorf("fail: %v", err)
	}
	if n, err := c.Do(Request{Verb: "none"}, Answer{}); n != 0 || err != nil {
		t.Errorf("the connection is of no more use after a refusal: %d, %v", n, err)
	}
	if _, err := c.Do(Request{Verb: "x", Args: []string{strings.Repeat("x", MaxRequest)}}, Answer{}); err == nil {
		t.Error("a request that is too long is sent")
	}
	stop := errors.New("stop")
	if _, err := c.Do(Request{Verb: "rows"}, Answer{Row: func([]byte) error { return stop }}); !errors.Is(err, stop) {
		t.Errorf("an error of a row: %v", err)
	}
}

func TestUnexpectedRow(t *testing.T) {
	path := answer(t, func(s *ServerConn, _ Request) error {
		return s.Rows([][]byte{[]byte("{}")}, nil)
	})
	if _, err := dial(t, path).Do(Request{Verb: "x"}, Answer{}); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
}

func TestSession(t *testing.T) {
	path := answer(t, func(s *ServerConn, q Request) error {
		if q.Verb != VerbSession {
			return s.Fail(&Refused{Text: "no"})
		}
		f, err := os.CreateTemp(t.TempDir(), "x")
		if err != nil {
			return err
		}
		defer f.Close()
		a, b, err := socketpair()
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		if _, err := io.WriteString(b, "220 hello\r\n"); err != nil {
			return err
		}
		return s.Session(a)
	})
	conn, err := dial(t, path).Session()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if string(got) != "220 hello\r\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func socketpair() (a, b *os.File, err error) {
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "p"), Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	ca, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		return nil, nil, err
	}
	defer ca.Close()
	cb, err := l.AcceptUnix()
	if err != nil {
		return nil, nil, err
	}
	defer cb.Close()
	if a, err = ca.File(); err != nil {
		return nil, nil, err
	}
	b, err = cb.File()
	return a, b, err
}

func TestNotRunning(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	for what, path := range map[string]string{"no socket": path, "no path of a socket": filepath.Join(dir, strings.Repeat("x", 200))} {
		if _, err := Dial(t.Context(), path, ""); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(t.Context(), path, ""); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestOtherPrograms(t *testing.T) {
	for _, tc := range []struct {
		name, say string
		want      error
	}{
		{"another version", string(appendFrame(nil, kindHello, hello{Version + 1, "x"}.append)), ErrVersion},
		{"another frame", string(appendFrame(nil, kindDone, nil)), ErrVersion},
		{"refused at the door", string(appendFrame(nil, kindFail, (&Refused{Text: "full"}).append)), &Refused{Text: "full"}},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", ErrProtocol},
	} {
		path := serve(t, func(c *net.UnixConn) {
			io.WriteString(c, tc.say)
			io.Copy(io.Discard, c)
		})
		_, err := Dial(t.Context(), path, "x")
		if !errors.Is(err, tc.want) && fmt.Sprint(err) != tc.want.Error() {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// TestCVE_2025_62875 feeds a server what a hostile user may send. Every
// connection ends with an error, and memory stays flat.
func TestCVE_2025_62875(t *testing.T) {
	ok := appendFrame(nil, kindHello, hello{Version, "x"}.append)
	frame := func(n uint32, k byte, body string) string {
		h := make([]byte, headerSize)
		binary.LittleEndian.PutUint32(h, n)
		h[4] = k
		return string(h) + body
	}
	for _, tc := range []struct{ name, say string }{
		{"garbage", "\xff\x00\x01garbage garbage garbage"},
		{"OpenSMTPD's imsg", "\x07\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"truncated header", string(ok) + "\x01\x02"},
		{"truncated body", string(ok) + frame(100, byte(kindRequest), "short")},
		{"oversize", string(ok) + frame(MaxRequest+1, byte(kindRequest), "")},
		{"4 GiB", string(ok) + frame(1<<32-1, byte(kindRequest), "")},
		{"unknown type", string(ok) + frame(0, 200, "")},
		{"type zero", string(ok) + frame(0, 0, "")},
		{"server's frame", string(ok) + frame(4, byte(kindDone), "\x00\x00\x00\x00")},
		{"request before hello", frame(2, byte(kindRequest), "\x00\x00")},
		{"no magic", frame(3, byte(kindHello), "\x00\x00\x00")},
		{"other version", string(appendFrame(nil, kindHello, hello{9, "x"}.append))},
		{"more strings than bytes", string(ok) + frame(7, byte(kindRequest), "\x00\xff\xff\xff\xff\xff\x7f")},
		{"trailing bytes", string(ok) + frame(3, byte(kindRequest), "\x00\x00\x00")},
		{"hello twice", string(ok) + string(ok)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			errs := make(chan error, 1)
			path := serve(t, func(c *net.UnixConn) {
				s := NewServerConn(c, time.Now, time.Minute)
				err := s.Hello("x")
				for err == nil {
					_, err = s.Request()
				}
				errs <- err
			})
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, tc.say)
			c.(*net.UnixConn).CloseWrite()
			if err := <-errs; err == nil || errors.Is(err, io.EOF) {
				t.Errorf("got %v, want an error about the frame", err)
			}
		})
	}
}

// TestFlatMemory sends frames of the largest length that is allowed, and more
// than is allowed, and looks at what the server allocated.
func TestFlatMemory(t *testing.T) {
	header := func(n uint32) []byte {
		h := make([]byte, headerSize)
		binary.LittleEndian.PutUint32(h, n)
		h[4] = byte(kindRequest)
		return h
	}
	var in bytes.Buffer
	body := make([]byte, MaxRequest)
	for range 100 {
		in.Write(header(MaxRequest))
		in.Write(body)
	}
	in.Write(header(1 << 31))
	r := frameReader{r: &in, max: MaxRequest}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := 0
	var err error
	for ; err == nil; n++ {
		_, _, err = r.read()
	}
	runtime.ReadMemStats(&after)
	if n != 101 || !errors.Is(err, ErrProtocol) {
		t.Errorf("%d frames, then %v", n, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*MaxRequest {
		t.Errorf("%d bytes were allocated for frames of at most %d", got, MaxRequest)
	}
}

// TestIdle holds that a silent client, and one that does not read, are given up.
func TestIdle(t *testing.T) {
	const short = 10 * time.Millisecond
	errs, limits := make(chan error, 2), make(chan time.Duration, 1)
	path := serve(t, func(c *net.UnixConn) {
		s := NewServerConn(c, time.Now, <-limits)
		if err := s.Hello("x"); err != nil {
			errs <- err
			return
		}
		s.limit = short
		for {
			if err := s.Rows(nil, make([]byte, 1<<20)); err != nil {
				errs <- err
				return
			}
		}
	})
	limits <- short
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	limits <- time.Hour // it is not deaf yet, however slow it is
	deaf, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := deaf.Write(appendFrame(nil, kindHello, hello{Version, "x"}.append)); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deaf: %v", err)
	}
}

func TestKernelCreds(t *testing.T) {
	got := make(chan Creds, 1)
	path := serve(t, func(c *net.UnixConn) {
		creds, err := KernelCreds(c)
		if err != nil {
			t.Error(err)
		}
		got <- creds
	})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := Creds{uint32(os.Geteuid()), uint32(os.Getegid())}
	if creds := <-got; creds != want {
		t.Errorf("got %v, want %v", creds, want)
	}
}

func TestPage(t *testing.T) {
	var p Page
	row := QueueRow{ID: "0123456789abcdef", Sender: strings.Repeat("s", 1000)}
	n := 0
	for {
		room, err := p.Add(row)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if !room {
			break
		}
	}
	reply := p.More("next")
	if len(reply.Rows) != n || reply.Next != "next" || n < 200 {
		t.Errorf("%d rows, next %q", len(reply.Rows), reply.Next)
	}
	if size := len(reply.Append(nil)); size > MaxAnswer {
		t.Errorf("a full page takes %d bytes", size)
	}
	if diff := cmp.Diff(&msg.ControlRows{}, new(Page).Done()); diff != "" {
		t.Error(diff)
	}
	if _, err := p.Add(func() {}); err == nil {
		t.Error("a function is no row")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, kindHello, hello{Version, "x"}.append))
	f.Add(appendFrame(nil, kindRequest, (&Request{"remove", []string{"all"}}).append))
	f.Add(appendFrame(nil, kindFail, (&Refused{"no", true}).append))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := frameReader{r: bytes.NewReader(b), max: MaxRequest}
		for {
			k, body, err := r.read()
			if err != nil {
				if !errors.Is(err, ErrProtocol) && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return
			}
			switch k {
			case kindHello:
				if h, err := parseHello(body); err == nil {
					if again, err := parseHello(h.append(nil)); err != nil || again != h {
						t.Fatalf("hello %q: %v", body, err)
					}
				}
			case kindRequest:
				var q Request
				if q.parse(body) == nil {
					var again Request
					if err := again.parse(q.append(nil)); err != nil || cmp.Diff(q, again) != "" {
						t.Fatalf("request %q: %v", body, err)
					}
				}
			case kindFail:
				if e := parseRefused(body); e == nil {
					t.Fatal("a refusal is no error")
				}
			}
		}
	})
}
