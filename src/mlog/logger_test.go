package mlog

import (
	"fmt"
	"testing"
)

type lines []string

func (l *lines) Line(p Priority, s string) { *l = append(*l, fmt.Sprintf("%d %s", p, s)) }

func TestLogger(t *testing.T) {
	var got lines
	l := New(&got, false)
	l.Debugf("unseen")
	l.Infof("from=<%s>", "a\r\nsmtp connected address=1.2.3.4\x00é")
	l.SetVerbose(true)
	l.Debugf("seen")
	l.Warnf("w")
	want := []string{`6 from=<a\x0d\x0asmtp connected address=1.2.3.4\x00é>`, "7 seen", "4 w"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var none *Logger
	none.Infof("dropped")
	none.SetVerbose(true)
	if none.Verbose() {
		t.Error("a nil Logger is verbose")
	}
}
