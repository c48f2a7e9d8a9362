package mlog

import (
	"slices"
	"testing"
)

func TestMemory(t *testing.T) {
	var m Memory
	l := New(&m, false)
	l.Infof("info: one")
	done := make(chan string)
	go func() { done <- m.Await("tw") }()
	l.Warnf("warn: two")
	if got := <-done; got != "warn: two" {
		t.Errorf("waited for %q", got)
	}
	l.Infof("info: three")
	if got := m.With("info"); !slices.Equal(got, []string{"info: one", "info: three"}) || m.Has("four") {
		t.Errorf("%q", got)
	}
	m.TakeUntil("two")
	if got := m.String(); got != "info: three" {
		t.Errorf("left are %q", got)
	}
	if got := m.Take(); len(got) != 1 || m.String() != "" {
		t.Errorf("took %q, %q are left", got, &m)
	}
}
