package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	got := median([]figures{{start: 3, cpu: 1}, {start: 1, cpu: 9}, {start: 2, cpu: 5}})
	if got != (figures{start: 2, cpu: 5}) {
		t.Errorf("%+v", got)
	}
	if got := median([]relayed{{relayed: 7, broken: 1}}); got != (relayed{relayed: 7, broken: 1}) {
		t.Errorf("%+v", got)
	}
}

// TestFigures holds that a figure cannot be forgotten by median.
func TestFigures(t *testing.T) {
	var f figures
	for _, p := range f.all() {
		*p = 1
	}
	if f != (figures{1, 1, 1, 1, 1, 1, 1}) {
		t.Errorf("%+v", f)
	}
	var r relayed
	for _, p := range r.all() {
		*p = 1
	}
	if r != (relayed{1, 1, 1, 1, 1}) {
		t.Errorf("%+v", r)
	}
}

func TestReport(t *testing.T) {
	peers := []peer{{name: "ours"}, {name: "postfix"}}
	ours := figures{start: 30, pssIdle: 10, accepted: 400, delivered: 300, cpu: 1, pssAfter: 20, perConn: 6}
	theirs := figures{start: 60, pssIdle: 20, accepted: 100, delivered: 100, cpu: 2, pssAfter: 20, perConn: 6}
	var b strings.Builder
	report(&b, peers, map[string][]figures{"ours": {ours}, "postfix": {theirs}})
	const want = "ours/postfix: accepted × 4.00, delivered × 3.00, CPU × 0.50, start × 0.50, idle memory × 0.50\n"
	if !strings.HasSuffix(b.String(), want) || strings.Count(b.String(), "median") != 2 {
		t.Error(b.String())
	}
}

func TestStarted(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := server{out: f}
	if _, _, err := s.started(); err == nil {
		t.Error("a jail has started that said nothing")
	}
	if _, err := f.WriteString("a word before\njail: started 1700000000000000001 0.25\nand behind\n"); err != nil {
		t.Fatal(err)
	}
	at, cpu, err := s.started()
	if !at.Equal(time.Unix(1_700_000_000, 1)) || cpu != 0.25 || err != nil {
		t.Errorf("%v, %g, %v", at, cpu, err)
	}
}

func TestPSS(t *testing.T) {
	if got := pssOf(os.Getpid()); got < 100 {
		t.Errorf("this process takes %g KiB", got)
	}
	if got := pss(os.Getpid()); got != 0 {
		t.Errorf("the processes below this one take %g MiB; there are none", got)
	}
}

// TestAccounts holds that the users of the servers are there once each, whatever
// the machine has.
func TestAccounts(t *testing.T) {
	passwd, group, err := accounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{passwd, group} {
		for _, name := range append([]string{"b00", "b19"}, ourUsers...) {
			if n := strings.Count("\n"+text, "\n"+name+":"); n != 1 {
				t.Errorf("%s is there %d times", name, n)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	var c compare
	if ok, err := c.begin(c.flags("compare"), []string{"-rounds", "0"}, &strings.Builder{}); ok || err == nil {
		t.Error("no rounds are taken")
	}
}
