package program

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
)

// programWord makes a table program of this test's binary.
const programWord = "table-program"

// echo is the program: every key is its own value.
type echo struct{}

func (echo) Lookup(_ context.Context, _ tableprog.Service, key string) (string, bool, error) {
	return key, true, nil
}

func serveEcho() int {
	if tableprog.Serve(context.Background(), os.Stdin, os.Stdout, echo{}, tableprog.Alias) != nil {
		return 1
	}
	return 0
}

// BenchmarkLookup asks one program, a process of its own, over a socket, from
// one goroutine and from many. The figure to hold is 10,000 lookups a second.
func BenchmarkLookup(b *testing.B) {
	t := startEcho(b)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			look(b, t)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
	})
	b.Run("together", func(b *testing.B) {
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				look(b, t)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
	})
}

func look(b *testing.B, t Table) {
	if v, found, err := t.Lookup(context.Background(), table.Alias, "somebody@example.org"); v != "somebody@example.org" || !found || err != nil {
		b.Fatal(v, found, err)
	}
}

func startEcho(b *testing.B) Table { return startProgram(b, os.Args[0], programWord) }

// startProgram starts a program and returns its table.
func startProgram(b testing.TB, name string, args ...string) Table {
	b.Helper()
	ours, theirs, err := imsg.Pair()
	if err != nil {
		b.Fatal(err)
	}
	if err := syscall.SetNonblock(int(theirs.Fd()), false); err != nil { // a shell does not wait otherwise
		b.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	theirs.Close()
	c := New(Options{Name: "t", Clock: clock.NewSystem(), Log: mlog.New(nil, false)})
	c.Use(ours)
	b.Cleanup(func() {
		c.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	return c.Table("+")
}
