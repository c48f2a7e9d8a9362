package imsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

type raw []byte

func (r raw) Append(b []byte) []byte { return append(b, r...) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns two connected ends, closed with the test.
func pair(t testing.TB) (*Conn, *Conn) {
	t.Helper()
	a, b := plainPair(t)
	return open(t, a), open(t, b)
}

func plainPair(t testing.TB) (*os.File, *os.File) {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func open(t testing.TB, f *os.File) *Conn {
	t.Helper()
	c, err := NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestFrames(t *testing.T) {
	a, b := pair(t)
	sizes := []int{0, 1, HeaderSize, readSize - HeaderSize, readSize, 100_000, MaxBody, 3, 0, MaxBody, 5}
	go func() {
		for i, size := range sizes {
			h := Header{Type: uint16(i), Flags: FlagCall, Call: uint64(i) << 40, Session: ^uint64(i)}
			if _, err := a.Put(h, raw(bytes.Repeat([]byte{byte(i)}, size)), nil); err != nil {
				t.Error(err)
			}
		}
	}()
	for i, size := range sizes {
		f, err := b.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		want := Header{Type: uint16(i), Flags: FlagCall, Call: uint64(i) << 40, Session: ^uint64(i)}
		if f.Header != want || !bytes.Equal(f.Body, bytes.Repeat([]byte{byte(i)}, size)) {
			t.Errorf("frame %d: %+v with %d bytes", i, f.Header, len(f.Body))
		}
	}
}

// Descriptors stay with their frames, whatever goes before, between and after.
func TestFiles(t *testing.T) {
	a, b := pair(t)
	dir := t.TempDir()
	const frames = 200
	withFile := func(i int) bool { return i%3 == 1 || i%7 == 0 }
	go func() {
		for i := range frames {
			var f *os.File
			if withFile(i) {
				name := filepath.Join(dir, fmt.Sprint(i))
				if err := os.WriteFile(name, fmt.Append(nil, i), 0o600); err != nil {
					t.Error(err)
				}
				f, _ = os.Open(name)
			}
			size := i * 97
			if i%50 == 7 {
				size = 300_000
			}
			if _, err := a.Put(Header{Type: uint16(i)}, raw(make([]byte, size)), f); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range frames {
		f, err := b.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if int(f.Type) != i || (f.File != nil) != withFile(i) {
			t.Fatalf("frame %d: type %d, file %v", i, f.Type, f.File)
		}
		if f.File == nil {
			continue
		}
		got, _ := io.ReadAll(f.File)
		f.File.Close()
		if string(got) != fmt.Sprint(i) {
			t.Fatalf("frame %d brought the file of frame %q", i, got)
		}
	}
}

// frame makes the bytes of one.
func frame(length uint32, flags Flags, body string) string {
	b := make([]byte, HeaderSize)
	putHeader(b, 0, Header{Type: 1, Flags: flags})
	binary.LittleEndian.PutUint32(b, length)
	return string(b) + body
}

func TestBadInput(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		good int // frames before the error
		want error
	}{
		"nothing":         {"", 0, io.EOF},
		"one frame":       {frame(2, 0, "hi"), 1, io.EOF},
		"half a header":   {frame(2, 0, "hi") + "\x01\x00", 1, io.ErrUnexpectedEOF},
		"half a body":     {frame(3, 0, "hi"), 0, io.ErrUnexpectedEOF},
		"too long":        {frame(2, 0, "hi") + frame(MaxBody+1, 0, "x"), 1, ErrTooLong},
		"enormous":        {frame(0xffffffff, 0, ""), 0, ErrTooLong},
		"garbage":         {strings.Repeat("GET / HTTP/1.1\r\n", 8), 0, ErrTooLong},
		"unknown flag":    {frame(0, 1<<9, ""), 0, ErrNoHeader},
		"a file promised": {frame(0, FlagFile, ""), 0, ErrFiles},
	} {
		t.Run(name, func(t *testing.T) {
			us, them := plainPair(t)
			c := open(t, us)
			io.WriteString(them, tc.in)
			them.Close()
			for i := range tc.good {
				if _, err := c.Next(); err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
			}
			if f, err := c.Next(); !errors.Is(err, tc.want) {
				t.Errorf("got %v and %+v, want %v", err, f, tc.want)
			}
		})
	}
}

func TestPutRefuses(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Put(Header{}, raw(make([]byte, MaxBody+1)), nil); !errors.Is(err, ErrTooLong) {
		t.Errorf("a body of 1 MiB and a byte: %v", err)
	}
	if n, err := a.Put(Header{Type: 3}, raw("ok"), nil); n != HeaderSize+2 || err != nil {
		t.Errorf("Put() = %d, %v", n, err)
	}
	if f, err := b.Next(); err != nil || f.Type != 3 {
		t.Errorf("after a refused frame: %+v, %v", f, err)
	}
	a.Close()
	f, _ := os.Open(os.DevNull)
	if _, err := a.Put(Header{}, nil, f); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error("a refused file was left open")
	}
}

// A peer that goes away wakes whoever reads and whoever waits to write.
func TestPeerGone(t *testing.T) {
	a, b := pair(t)
	for range 5 {
		if _, err := a.Put(Header{}, raw(make([]byte, MaxBody)), nil); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.WaitBelow(0)
	}()
	b.Close()
	<-done
	if _, err := a.Next(); err == nil {
		t.Error("Next reads from a peer that is gone")
	}
}

func TestCloseWakesNext(t *testing.T) {
	a, _ := pair(t)
	done := make(chan error)
	go func() {
		_, err := a.Next()
		done <- err
	}()
	a.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Next() = %v", err)
	}
}

func TestFlush(t *testing.T) {
	a, b := pair(t)
	go func() {
		for range 20 {
			a.Put(Header{}, raw(make([]byte, 60_000)), nil)
		}
		a.WaitBelow(0)
		a.Close()
	}()
	n := 0
	for {
		_, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 20 {
		t.Errorf("%d of 20 frames came before the end", n)
	}
}

func TestInherited(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Inherited(9999); err == nil {
		t.Error("a descriptor that is not open was taken")
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte(frame(2, 0, "hi")+frame(0, FlagReply, "")), uint8(3))
	f.Add([]byte(frame(2, FlagFile, "hi")), uint8(0))
	f.Add([]byte(frame(0xfffff, 0, "short")), uint8(200))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		if len(in) > 100_000 {
			return // more than the socket holds at once
		}
		us, them := plainPair(t)
		c := open(t, us)
		n := min(int(cut), len(in))
		them.Write(in[:n])
		them.Write(in[n:])
		them.Close()
		taken := 0
		for {
			fr, err := c.Next()
			if err != nil {
				break
			}
			taken += HeaderSize + len(fr.Body)
		}
		if taken > len(in) {
			t.Fatalf("%d bytes of frames out of %d", taken, len(in))
		}
	})
}

func BenchmarkOneWay(b *testing.B) {
	for _, size := range []int{100, 4096, 65536} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := pair(b)
			body := raw(make([]byte, size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			go func() {
				for range b.N {
					x.Put(Header{}, body, nil)
					x.WaitBelow(1 << 20)
				}
			}()
			for range b.N {
				if _, err := y.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
