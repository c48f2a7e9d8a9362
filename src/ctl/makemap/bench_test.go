package makemap

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/lookup/table"
)

// million is how many lines the map of the figures has: it is to be made in 20
// seconds, and asked in 50 microseconds at the median.
const million = 1_000_000

// BenchmarkMillion makes a map of a million lines, and asks it as smtpd does.
func BenchmarkMillion(b *testing.B) {
	source := filepath.Join(b.TempDir(), "users")
	writeMillion(b, source)
	makeMap(b, source)
	b.Run("makemap", func(b *testing.B) {
		for b.Loop() {
			makeMap(b, source)
		}
	})
	f, err := os.Open(source + ".db")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	t, err := table.NewDB("users", source+".db", f, "+")
	if err != nil || t.Len() != million {
		b.Fatal(t.Len(), err)
	}
	b.Run("lookup", func(b *testing.B) {
		var took []time.Duration
		for n := 0; b.Loop(); n++ {
			key := fmt.Sprintf("user%d@example%d.org", n*7919%million, n*7919%million%1000)
			since := time.Now()
			_, found, err := t.Lookup(context.Background(), table.Alias, key)
			if took = append(took, time.Since(since)); !found || err != nil {
				b.Fatal(key, found, err)
			}
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns")
	})
}

func makeMap(b *testing.B, source string) {
	b.Helper()
	var errs bytes.Buffer
	call := &invoke.Call{Name: "makemap", Args: []string{source}, Stdout: &errs, Stderr: &errs, Getenv: func(string) string { return "" }}
	if st := Run(context.Background(), call); st != 0 {
		b.Fatal(errs.String())
	}
}

func writeMillion(b *testing.B, path string) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range million {
		fmt.Fprintf(w, "user%d@example%d.org\tuser%d\n", i, i%1000, i)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}
